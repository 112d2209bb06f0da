import test from 'ava'
import { encode, rfc8949EncodeOptions } from 'cborg'
import fc from 'fast-check'
import { copyBytes, fromHex } from '../../protocol/bytes.js'
import { decodeCbor, decodeCborMaps, encodeCbor, type Cbor } from '../../protocol/cbor.js'
import { isKeyriseError } from '../../protocol/errors.js'

const bytesOf = (hex: string): Uint8Array => fromHex(hex) ?? new Uint8Array(0)

const { value } = fc.letrec<{ value: Cbor; leaf: Cbor }>((tie) => ({
  leaf: fc.oneof(
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.string(),
    fc.uint8Array().map((bytes) => new Uint8Array(bytes)),
  ),
  value: fc.oneof(
    { maxDepth: 4 },
    tie('leaf'),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      tie('value'),
      { maxKeys: 4, noNullPrototype: true },
    ),
  ),
}))

test('what is encoded decodes to itself, and equal values to equal bytes', (t) => {
  fc.assert(
    fc.property(value, (original) => {
      const encoded = encodeCbor(original)
      t.deepEqual(decodeCbor(encoded), original)
      t.deepEqual(encodeCbor(decodeCbor(encoded) as Cbor), encoded)
    }),
  )
})

test('the bytes are those of a general encoder, also of what only that one encodes', (t) => {
  const ofAny = fc.oneof(
    { weight: 4, arbitrary: value },
    { weight: 1, arbitrary: fc.dictionary(fc.stringMatching(/^[ -~]{0,30}$/), value, { noNullPrototype: true }) },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 250, maxLength: 70_000 }) },
    { weight: 1, arbitrary: fc.array(fc.double({ noNaN: true, noDefaultInfinity: true })) },
    { weight: 1, arbitrary: fc.array(fc.tuple(fc.integer(), value)).map((entries) => new Map(entries)) },
  )
  fc.assert(
    fc.property(ofAny, (original) => {
      t.deepEqual(encodeCbor(original), copyBytes(encode(original, rfc8949EncodeOptions)))
    }),
  )
})

test('integers of every length are encoded in the shortest form', (t) => {
  for (let bits = 0; bits <= 53; bits++)
    for (const near of [-2, -1, 0, 1]) {
      const integer = Math.min(2 ** bits + near, Number.MAX_SAFE_INTEGER)
      for (const signed of [integer, -1 - integer].filter(Number.isSafeInteger))
        t.deepEqual(encodeCbor(signed), copyBytes(encode(signed, rfc8949EncodeOptions)), String(signed))
    }
})

test('the order of a map’s keys when it was made changes no byte', (t) => {
  t.deepEqual(encodeCbor({ epoch: 1, digest: 2, v: 3 }), encodeCbor({ v: 3, digest: 2, epoch: 1 }))
})

/** RFC 8949 §4.2.1 has one encoding for each value; each of these is another, or no value that we carry. */
for (const [what, hex] of Object.entries({
  'an integer longer than needed': '1817',
  'a size longer than needed': '5801ff',
  'an indefinite array': '9f01ff',
  'an indefinite text': '7f6161ff',
  'keys out of order': 'a2616201616101',
  'a key twice': 'a2616101616102',
  'a key that is no text': 'a10102',
  'a byte after the value': '0000',
  'an end too early': '420a',
  nothing: '',
  undefined: 'f7',
  NaN: 'f97e00',
  infinity: 'f97c00',
  'a float that is whole': 'f93c00',
  'a tag': 'c100',
  'an integer beyond 2^53': '1bffffffffffffffff',
  'text that is no UTF-8': '61ff',
})) {
  test(`${what} is refused`, (t) => {
    t.throws(() => decodeCbor(bytesOf(hex)), { code: 'ERR_CBOR_INVALID' })
  })
}

test('nesting without end, and a size without bytes, are refused and take nothing', (t) => {
  t.throws(() => decodeCbor(new Uint8Array(1_000_000).fill(0x81)), { code: 'ERR_CBOR_INVALID' })
  t.throws(() => decodeCbor(bytesOf('5affffffff00')), { code: 'ERR_CBOR_INVALID' })
  t.throws(() => decodeCbor(bytesOf('9affffffff00')), { code: 'ERR_CBOR_INVALID' })
})

test('any bytes are refused with that code, or are the one encoding of what they decode to', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 24 }), fc.boolean(), (claimed, asMaps) => {
      const decode = asMaps ? decodeCborMaps : decodeCbor
      try {
        const decoded = decode(claimed)
        t.deepEqual(encodeCbor(decoded as Cbor), new Uint8Array(claimed))
      } catch (error) {
        t.true(isKeyriseError(error, 'ERR_CBOR_INVALID'))
      }
    }),
    { numRuns: 2000 },
  )
})

test('a key named __proto__ makes a field, never a prototype', (t) => {
  const decoded = decodeCbor(bytesOf('a1695f5f70726f746f5f5fa1616101')) as object
  t.is(Object.getPrototypeOf(decoded), Object.prototype)
  t.false('a' in decoded)
})

test('items are counted before one is made: a frame of the smallest ones is refused at once', (t) => {
  const bomb = new Uint8Array(8 * 1024 * 1024).fill(0xa0)
  bomb.set([0x9a, 0x00, 0x7f, 0xff, 0xfb])
  t.throws(() => decodeCbor(bomb), { code: 'ERR_CBOR_INVALID', message: /too many items/ })
  t.throws(() => decodeCborMaps(bomb), { code: 'ERR_CBOR_INVALID', message: /too many items/ })
})

test('strings count as one item each, whatever they hold', (t) => {
  const items: Cbor = ['a'.repeat(30), new Uint8Array(300).fill(0xa0), new Uint8Array(70_000).fill(0xa0), 1, -1000]
  t.deepEqual(decodeCbor(encodeCbor(items), 6), items)
  t.throws(() => decodeCbor(encodeCbor(items), 5), { message: /too many items/ })
})
