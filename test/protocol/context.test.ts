import test from 'ava'
import fc from 'fast-check'
import { copyBytes, toHex } from '../../protocol/bytes.js'
import { decodeCbor, encodeCbor, type Cbor } from '../../protocol/cbor.js'
import { FieldReader } from '../../protocol/check.js'
import { decodeContext, encodeContext, type EnvelopeContext } from '../../protocol/context.js'
import { isKeyriseError } from '../../protocol/errors.js'
import { ENTRY_KINDS, parseFlowId, parsePath } from '../../protocol/names.js'

const KINDS = [...ENTRY_KINDS, 'root', 'epoch', 'step'] as const

/** The same by way of any CBOR: cborg decides what is deterministic. */
const reference = (claimed: Uint8Array): EnvelopeContext => {
  const keys = ['v', 'flow', 'task', 'kind', 'name', 'epoch', 'incarnation', 'image']
  const fields = new FieldReader(decodeCbor(claimed), keys, 'ERR_HEADER_MALFORMED')
  fields.count('v', 1, 1)
  return {
    flow: parseFlowId(fields.claimed('flow')),
    task: parseFlowId(fields.claimed('task')),
    kind: KINDS.find((kind) => kind === fields.claimed('kind')) ?? fields.refuse('kind'),
    name: parsePath(fields.claimed('name')),
    epoch: fields.count('epoch'),
    incarnation: fields.count('incarnation'),
    image: fields.bytes('image', 32),
  }
}

const readBy = (decode: typeof decodeContext, claimed: Uint8Array): EnvelopeContext | undefined => {
  try {
    return decode(claimed)
  } catch (error) {
    if (isKeyriseError(error)) return undefined
    throw error
  }
}

const segment = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/)
const flow = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).map(parseFlowId)
/** Around each size at which a head grows. */
const edges = fc
  .constantFrom(0, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER)
  .chain((edge) => fc.constantFrom(edge, Math.min(edge + 1, Number.MAX_SAFE_INTEGER), Math.max(0, edge - 1)))
const context: fc.Arbitrary<EnvelopeContext> = fc.record({
  flow,
  task: flow,
  kind: fc.constantFrom(...KINDS),
  name: fc.array(segment, { minLength: 1, maxLength: 8 }).map((segments) => segments.join('/')),
  epoch: fc.oneof(edges, fc.maxSafeNat()),
  incarnation: fc.oneof(edges, fc.maxSafeNat()),
  image: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(copyBytes),
})

test('a context that is written is read as it was, and as the reference reads it', (t) => {
  fc.assert(
    fc.property(context, (original) => {
      const encoded = encodeContext(original)
      t.deepEqual(decodeContext(encoded), original)
      t.deepEqual(reference(encoded), original)
    }),
    { numRuns: 500 },
  )
})

/** What stands anywhere in place of anything: heads of each type and size before all. */
const byte = fc.oneof(
  fc.integer({ min: 0, max: 255 }),
  fc.constantFrom(0x00, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x40, 0x58, 0x5f, 0x60, 0x78, 0x7f, 0xa0, 0xf9, 0xff),
)
const splice = fc.record({
  at: fc.nat(),
  removed: fc.integer({ min: 0, max: 9 }),
  inserted: fc.array(byte, { maxLength: 9 }),
})

test('changed bytes are read as the reference reads them, or refused as it refuses', (t) => {
  fc.assert(
    fc.property(context, fc.array(splice, { minLength: 1, maxLength: 2 }), (original, splices) => {
      const bytes = [...encodeContext(original)]
      for (const { at, removed, inserted } of splices) bytes.splice(at % (bytes.length + 1), removed, ...inserted)
      const claimed = Uint8Array.from(bytes)
      t.deepEqual(readBy(decodeContext, claimed), readBy(reference, claimed), toHex(claimed))
    }),
    { numRuns: 5000 },
  )
})

test('each single byte changed, and each end too early, has the reference’s verdict', (t) => {
  const encoded = encodeContext({
    flow: parseFlowId('flow-1'),
    task: parseFlowId('a-task-of-more-than-23-characters'),
    kind: 'intermediate-result',
    name: 'intermediate-result/round-3',
    epoch: 300,
    incarnation: 70_000,
    image: new Uint8Array(32).fill(9),
  })
  for (let index = 0; index < encoded.length; index++) {
    t.is(readBy(decodeContext, encoded.subarray(0, index)), undefined)
    for (let value = 0; value < 256; value++) {
      const claimed = copyBytes(encoded)
      claimed[index] = value
      const read = readBy(decodeContext, claimed)
      const expected = readBy(reference, claimed)
      if (read === undefined) t.is(expected, undefined, `${index}: ${value}`)
      else t.deepEqual(read, expected)
    }
  }
})

test('other maps, and other types in place of a value, are refused by both', (t) => {
  const whole = { v: 1, flow: 'a', task: 'a', kind: 'root', name: 'root', epoch: 1, incarnation: 1 }
  const image = new Uint8Array(32)
  t.truthy(readBy(decodeContext, encodeCbor({ ...whole, image })))
  const values: Cbor[] = [null, true, 0, 2, -1, 1.5, '', 'é', image, new Uint8Array(31), new Uint8Array(33), [], {}]
  for (const key of ['more', ...Object.keys(whole), 'image'])
    for (const value of values) {
      const claimed = encodeCbor({ ...whole, image, [key]: value })
      t.deepEqual(readBy(decodeContext, claimed), readBy(reference, claimed), toHex(claimed))
    }
  for (const key of Object.keys(whole)) {
    const rest: Record<string, Cbor> = { ...whole, image }
    Reflect.deleteProperty(rest, key)
    t.is(readBy(decodeContext, encodeCbor(rest)), undefined, key)
  }
})
