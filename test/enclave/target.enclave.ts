import { randomFillSync } from 'node:crypto'
import * as v from 'valibot'
import { defineEnclave, ecall, KeyriseError, ocall, refuse } from '../../enclave/index.js'
import { listEscapes, listSoftIntrinsics, probeCapabilities } from './inside.js'

const nothing = v.optional(v.undefined())
const bytes = v.instance(Uint8Array)
const ask = ocall({ input: v.object({ question: v.string() }), output: v.pipe(v.string(), v.maxLength(10)) })

/** Something that an attack must leave as it was. */
let total = 0
const key = randomFillSync(new Uint8Array(new ArrayBuffer(32)))

const merge = (into: Record<string, unknown>, from: Record<string, unknown>): void => {
  for (const name of Object.keys(from)) {
    const [old, next] = [into[name], from[name]]
    const isObject = (value: unknown): value is Record<string, unknown> =>
      typeof value === 'object' || typeof value === 'function'
    if (isObject(old) && isObject(next)) merge(old, next)
    else into[name] = next
  }
}

/** The enclave that the attacks are run against. */
export default defineEnclave({
  name: 'target',
  svn: 3,
  ocalls: { ask },
  refusals: { 'not-today': 'The office is closed' },
  ecalls: {
    add: ecall({ input: v.object({ a: v.number(), b: v.number() }), output: v.number() }, (_, { a, b }) => a + b),
    increment: ecall({ input: nothing, output: v.number() }, () => ++total),
    total: ecall({ input: nothing, output: v.number() }, () => total),
    echo: ecall({ input: v.object({ bytes }), output: v.object({ bytes }) }, (_, input) => input),
    // 16 bytes of Node's pool, which holds other Buffers too.
    smallView: ecall({ input: nothing, output: bytes }, () => Buffer.from('sixteen bytes ok')),
    keyPart: ecall({ input: nothing, output: bytes }, () => key.subarray(0, 4)),
    extraField: ecall({ input: nothing, output: v.object({ shown: v.number() }) }, () => ({
      shown: 1,
      hidden: 'secret text',
    })),
    badOutput: ecall({ input: nothing, output: v.number() }, () => 'secret text' as unknown as number),
    crash: ecall({ input: nothing, output: v.number() }, () => {
      throw new Error('secret text')
    }),
    forged: ecall({ input: nothing, output: v.number() }, () => {
      throw new KeyriseError('ERR_STORE_FULL', { detail: 'secret text', cause: new Error('secret text') })
    }),
    closed: ecall({ input: nothing, output: v.number() }, () => refuse('not-today')),
    undeclared: ecall({ input: nothing, output: v.number() }, () => refuse('secret text')),
    merge: ecall({ input: v.any(), output: v.string() }, (_, input: Record<string, unknown>) => {
      try {
        merge({ nested: {} }, input)
      } catch {
        // A locked prototype throws; what matters is that it is unchanged.
      }
      return String(({} as Record<string, unknown>)['polluted'])
    }),
    probe: ecall({ input: nothing, output: v.array(v.string()) }, () => probeCapabilities()),
    escapes: ecall({ input: nothing, output: v.array(v.string()) }, () => listEscapes()),
    softIntrinsics: ecall({ input: nothing, output: v.array(v.string()) }, () => listSoftIntrinsics()),
    attest: ecall(
      { input: v.any(), output: bytes },
      ({ flow }, claims) => flow.checkpoint(claims as never) as unknown as Promise<Uint8Array<ArrayBuffer>>,
    ),
    consult: ecall(
      { input: v.object({ question: v.string() }), output: v.string(), ocalls: { ask } },
      ({ ocalls }, input) => ocalls.ask(input),
    ),
    hang: ecall({ input: nothing, output: v.number() }, () => new Promise<number>(() => {})),
    spin: ecall({ input: nothing, output: v.number() }, () => {
      for (;;) total += 0
    }),
    throwLater: ecall({ input: nothing, output: v.number() }, () => {
      setTimeout(() => {
        throw new Error('secret text')
      })
      return 1
    }),
    rejectLater: ecall({ input: nothing, output: v.number() }, () => {
      void Promise.reject(new Error('secret text'))
      return 1
    }),
    print: ecall({ input: nothing, output: v.number() }, () => {
      console.log('secret text')
      console.error('secret text')
      process.stdout.write('secret text')
      process.stderr.write('secret text')
      process.emitWarning('secret text')
      return 1
    }),
    quit: ecall({ input: nothing, output: v.number() }, () => process.exit(0)),
  },
})
