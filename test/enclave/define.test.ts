import test from 'ava'
import * as v from 'valibot'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'
import type { EcallDeclaration, OcallDeclaration } from '../../protocol/contract.js'
import { declaredCalls, readDeclaredEcall, readDeclaredOcall } from '../../protocol/declared-calls.js'

const text = v.string()
const ask = ocall({ input: text, output: text, limits: { deadlineMs: 500, perSecondMax: 10 } })
const rows = ocall({ input: text, yields: text })

const wellFormed = defineEnclave({
  name: 'well-formed',
  svn: 1,
  ocalls: { rows, ask },
  ecalls: {
    plain: ecall({ input: text, output: text }, (_, input) => input),
    add: ecall({ input: text, output: text, switchless: true, limits: { inputSizeBytesMax: 16 } }, (_, input) => input),
    merge: ecall(
      {
        input: text,
        receives: text,
        yields: text,
        ocalls: { rows, ask },
        limits: { inFlightMax: 2, outputSizeBytesMax: 9 },
      },
      () => [],
    ),
  },
})

test('a definition is described by its calls’ names, streams, OCALLs and limits, in one order', (t) => {
  const { ecalls, ocalls } = declaredCalls(wellFormed)
  const plain = { receives: false, yields: false, switchless: false, ocalls: [], limits: {} }
  t.deepEqual(ecalls, [
    { ...plain, name: 'add', switchless: true, limits: { inputSizeBytesMax: 16 } },
    {
      ...plain,
      name: 'merge',
      receives: true,
      yields: true,
      ocalls: ['ask', 'rows'],
      limits: { outputSizeBytesMax: 9, inFlightMax: 2 },
    },
    { ...plain, name: 'plain' },
  ])
  t.deepEqual(ocalls, [
    { name: 'ask', yields: false, limits: { perSecondMax: 10, deadlineMs: 500 } },
    { name: 'rows', yields: true, limits: {} },
  ])
  t.is(JSON.stringify(ecalls[1]?.limits), '{"outputSizeBytesMax":9,"inFlightMax":2}')
})

test('a description is read back as it was written', (t) => {
  const { ecalls, ocalls } = declaredCalls(wellFormed)
  const read = (claimed: unknown): unknown => JSON.parse(JSON.stringify(claimed))
  for (const declared of ecalls) {
    const again = readDeclaredEcall(read(declared), 'ERR_IMAGE_INVALID')
    t.is(JSON.stringify(again), JSON.stringify(declared))
  }
  for (const declared of ocalls) {
    const again = readDeclaredOcall(read(declared), 'ERR_IMAGE_INVALID')
    t.is(JSON.stringify(again), JSON.stringify(declared))
  }
})

test('a description that no definition has is refused', (t) => {
  const [add] = declaredCalls(wellFormed).ecalls
  const [ask] = declaredCalls(wellFormed).ocalls
  for (const change of [
    { name: 'a b' },
    { receives: 1 },
    { yields: undefined },
    { switchless: 'yes' },
    { ocalls: ['a:b'] },
    { ocalls: 'ask' },
    { limits: null },
    { limits: { inputSizeBytesMax: 0 } },
    { limits: { inFlightMax: 1025 } },
    { limits: { perSecondMax: 1 } },
    { extra: 1 },
  ])
    t.throws(() => readDeclaredEcall({ ...add, ...change }, 'ERR_IMAGE_INVALID'), { code: 'ERR_IMAGE_INVALID' })
  for (const change of [{ name: '' }, { yields: 0 }, { limits: { deadlineMs: 1.5 } }, { limits: { inFlightMax: 1 } }])
    t.throws(() => readDeclaredOcall({ ...ask, ...change }, 'ERR_IMAGE_INVALID'), { code: 'ERR_IMAGE_INVALID' })
})

const plain = { input: text, output: text, handle: () => 'x' }

/** What an author without a compiler may write. */
const refusedEcalls: Record<string, [claimed: unknown, detail: RegExp]> = {
  'a misspelt field': [{ ...plain, limit: {} }, /a field limit/],
  'no input': [{ ...plain, input: undefined }, /input of the ECALL it is no Standard Schema/],
  'an output that is no schema': [{ ...plain, output: String }, /the answer of the ECALL it is no Standard Schema/],
  'output and yields': [{ ...plain, yields: text }, /an output or yields items/],
  'neither output nor yields': [{ ...plain, output: undefined }, /an output or yields items/],
  'receives that is no schema': [{ ...plain, receives: {} }, /receives of the ECALL it/],
  'no handler': [{ ...plain, handle: undefined }, /no handler/],
  'a limit of another name': [{ ...plain, limits: { perSecondMax: 1 } }, /a limit perSecondMax/],
  'an inherited name as a limit': [{ ...plain, limits: { toString: 1 } }, /a limit toString/],
  'a limit of 0': [{ ...plain, limits: { inFlightMax: 0 } }, /the limit inFlightMax/],
  'a limit that is no whole number': [{ ...plain, limits: { inputSizeBytesMax: 1.5 } }, /the limit inputSizeBytesMax/],
  'a limit that is text': [{ ...plain, limits: { inputSizeBytesMax: '1' } }, /the limit inputSizeBytesMax/],
  'a size above the cap': [{ ...plain, limits: { outputSizeBytesMax: 64 * 1024 * 1024 + 1 } }, /outputSizeBytesMax/],
  'more in flight than the cap': [{ ...plain, limits: { inFlightMax: 1025 } }, /inFlightMax/],
  'switchless that is not true': [{ ...plain, switchless: false }, /switchless/],
  'switchless with streams in': [{ ...plain, switchless: true, receives: text }, /no streams and no OCALLs/],
  'switchless with streams out': [
    { ...plain, switchless: true, output: undefined, yields: text },
    /no streams and no OCALLs/,
  ],
  'switchless with OCALLs': [{ ...plain, switchless: true, ocalls: { ask } }, /no streams and no OCALLs/],
  'an OCALL that is not listed': [{ ...plain, ocalls: { rows } }, /rows is used but not listed/],
  'an OCALL listed as another': [{ ...plain, ocalls: { ask: { ...ask } } }, /ask is used but not listed/],
}
for (const [what, [claimed, message]] of Object.entries(refusedEcalls)) {
  test(`an ECALL is refused: ${what}`, (t) => {
    const ecalls = { it: claimed as EcallDeclaration }
    t.throws(() => defineEnclave({ name: 'enclave', svn: 1, ecalls, ocalls: { ask } }), {
      code: 'ERR_CONFIG_INVALID',
      message,
    })
  })
}

const refusedOcalls: Record<string, [claimed: unknown, detail: RegExp]> = {
  'a misspelt field': [{ input: text, output: text, limit: {} }, /a field limit/],
  'streams in': [{ input: text, output: text, receives: text }, /a field receives/],
  'output and yields': [{ input: text, output: text, yields: text }, /an output or yields items/],
  'a limit of another name': [{ input: text, output: text, limits: { inFlightMax: 1 } }, /a limit inFlightMax/],
  'a rate of 0': [{ input: text, output: text, limits: { perSecondMax: 0 } }, /perSecondMax/],
  'a deadline above the cap': [{ input: text, output: text, limits: { deadlineMs: 86_400_001 } }, /deadlineMs/],
}
for (const [what, [claimed, message]] of Object.entries(refusedOcalls)) {
  test(`an OCALL is refused: ${what}`, (t) => {
    const ocalls = { it: claimed as OcallDeclaration }
    t.throws(() => defineEnclave({ name: 'enclave', svn: 1, ecalls: {}, ocalls }), {
      code: 'ERR_CONFIG_INVALID',
      message,
    })
  })
}

test('names and SVN of a definition are checked', (t) => {
  const code = 'ERR_CONFIG_INVALID'
  t.throws(() => defineEnclave({ name: 'a b', svn: 1, ecalls: {} }), { code })
  t.throws(() => defineEnclave({ name: 'a', svn: -1, ecalls: {} }), { code })
  t.throws(() => defineEnclave({ name: 'a', svn: 1, ecalls: { 'keyrise:x': wellFormed.ecalls.plain } }), { code })
  t.throws(() => defineEnclave({ name: 'a', svn: 1, ecalls: {}, refusals: { 'no way': 'x' } }), { code })
})
