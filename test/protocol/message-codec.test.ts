import { decode as decodeWithCborg } from 'cborg'
import test from 'ava'
import fc from 'fast-check'
import { encodeCall, encodeRefusal, encodeReply } from '../../protocol/calls.js'
import { KeyriseError } from '../../protocol/errors.js'
import { decodeMessage, encodeMessage, MessageDecoder, MessageEncoder } from '../../protocol/message-codec.js'
import { admitValue, type ValueLimits } from '../../protocol/values.js'
import { anyText, anyValue, code } from './any-value.js'

const anyId = fc.oneof(fc.nat(), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, -0, -1, 1.5, '0', '1', 'h1', ''))

/** Layout `any`, which carries a value as it is. */
const ANY = 0
const crossed = (value: unknown, limits?: ValueLimits): unknown => decodeMessage(encodeMessage(value, limits), limits)

test('property: a value that crosses as bytes is the value that admitValue makes', (t) => {
  fc.assert(
    fc.property(anyValue, (given) => {
      t.deepEqual(crossed(given), admitValue(given))
    }),
    { numRuns: 2000 },
  )
})

test('property: another reader of CBOR reads the same value', (t) => {
  fc.assert(
    fc.property(anyValue, (given) => {
      const bytes = encodeMessage(given)
      t.is(bytes[0], ANY)
      t.deepEqual(decodeWithCborg(bytes.subarray(1), { strict: true, rejectDuplicateMapKeys: true }), admitValue(given))
    }),
    { numRuns: 1000 },
  )
})

test('property: equal values have equal bytes, whatever the order of their fields', (t) => {
  fc.assert(
    fc.property(
      fc.dictionary(
        anyText.filter((key) => key !== '__proto__'),
        anyValue,
      ),
      (given) => {
        const reversed = Object.fromEntries(Object.entries(given).reverse())
        t.deepEqual(encodeMessage(reversed), encodeMessage(given))
        t.deepEqual(encodeMessage(decodeMessage(encodeMessage(given))), encodeMessage(given))
      },
    ),
    { numRuns: 300 },
  )
})

test('property: a value crosses as bytes under exactly the limits under which admitValue admits it', (t) => {
  const limits = fc.record({
    sizeBytesMax: fc.nat(200),
    nodeCountMax: fc.nat(12),
    depthMax: fc.nat(4),
  })
  fc.assert(
    fc.property(anyValue, limits, (given, bounds) => {
      const admitted = code(() => admitValue(given, bounds))
      t.is(
        code(() => encodeMessage(given, bounds)),
        admitted,
      )
      t.is(
        code(() => decodeMessage(encodeMessage(given), bounds)),
        admitted,
      )
    }),
    { numRuns: 2000 },
  )
})

test('property: the reader says what a value counts, which is the least limit that lets it pass', (t) => {
  fc.assert(
    fc.property(anyValue, (given) => {
      const decoder = new MessageDecoder()
      decoder.read(encodeMessage({ id: 1, type: 'RAW', value: given }))
      t.is(
        code(() => admitValue(given, { sizeBytesMax: decoder.sizeBytes })),
        undefined,
      )
      t.is(
        code(() => admitValue(given, { sizeBytesMax: decoder.sizeBytes - 1 })),
        'ERR_SIZE_LIMIT',
      )
    }),
    { numRuns: 300 },
  )
})

test('property: calls, keyed calls, replies, items and refusals come back as they were', (t) => {
  const anyMessage = fc.oneof(
    fc
      .tuple(anyId, fc.string({ minLength: 1, maxLength: 64 }), fc.option(anyValue, { nil: undefined }))
      .map(([id, name, value]) => encodeCall(id, name, value).message),
    fc
      .tuple(anyId, fc.constantFrom('add', 'keyrise:store-put'), anyValue, fc.string({ minLength: 1, maxLength: 128 }))
      .map(([id, name, value, key]) => ({ ...(encodeCall(id, name, value).message as object), key })),
    fc.tuple(anyId, fc.option(anyValue, { nil: undefined })).map(([id, value]) => encodeReply(id, value).message),
    fc.tuple(anyId, anyValue).map(([id, value]) => ({ id, type: 'ITEM', value })),
    anyId.map((id) => encodeRefusal(id, new KeyriseError('ERR_ECALL_UNKNOWN')).message),
    fc.tuple(anyId, fc.nat()).map(([id, count]) => ({ id, type: 'CREDIT', count })),
  )
  fc.assert(
    fc.property(anyMessage, (message) => {
      const value = crossed(message) as { value?: unknown }
      // A reply of nothing may lose the field that says so.
      if (value.value === undefined) delete value.value
      t.deepEqual(value, admitValue(message))
    }),
    { numRuns: 2000 },
  )
})

test('a small call and its reply take few bytes', (t) => {
  t.is(encodeMessage(encodeCall(7, 'add', new Uint8Array(8)).message).length, 1 + 4 + 1 + 3 + 1 + 8)
  t.is(encodeMessage(encodeReply(7, new Uint8Array(8)).message).length, 1 + 4 + 1 + 8)
})

test('one encoder writes many messages, small and large, and what it gave away stays as it is', (t) => {
  const encoder = new MessageEncoder()
  const decoder = new MessageDecoder()
  const taken: [Uint8Array, number][] = []
  for (const size of [8, 200_000, 8, 70_000, 0, 65_536]) {
    t.true(encoder.reply(1, new Uint8Array(size).fill(7)))
    taken.push([encoder.take(), size])
  }
  for (const [bytes, size] of taken) {
    decoder.read(bytes)
    t.deepEqual(decoder.message(), { id: 1, type: 'RAW', value: new Uint8Array(size).fill(7) })
  }
})

test('bytes come back in buffers of their own, exact, whatever becomes of the frame', (t) => {
  for (const size of [0, 8, 64, 65, 5000]) {
    const frame = encodeMessage({ id: 1, type: 'RAW', value: new Uint8Array(size).fill(1) })
    const { value } = decodeMessage(frame) as { value: Uint8Array }
    frame.fill(9)
    t.is(value.buffer.byteLength, size)
    t.true(value.every((byte) => byte === 1))
  }
})

test('values that cannot cross are refused with the codes of admitValue, and text that is no text', (t) => {
  const accessor = Object.defineProperty({}, 'x', { get: () => t.fail('it ran'), enumerable: true })
  const cyclic: unknown[] = []
  cyclic.push(cyclic)
  for (const [value, expected] of [
    [new Map(), 'ERR_VALUE_UNSUPPORTED'],
    [new Date(0), 'ERR_VALUE_UNSUPPORTED'],
    [1n, 'ERR_VALUE_UNSUPPORTED'],
    [NaN, 'ERR_VALUE_UNSUPPORTED'],
    [[undefined], 'ERR_VALUE_UNSUPPORTED'],
    [new Float64Array(1), 'ERR_VALUE_UNSUPPORTED'],
    [Object.create(Uint8Array.prototype) as unknown, 'ERR_VALUE_UNSUPPORTED'],
    [Object.fromEntries([['__proto__', 1]]), 'ERR_VALUE_UNSUPPORTED'],
    [accessor, 'ERR_VALUE_UNSUPPORTED'],
    [new SharedArrayBuffer(1), 'ERR_SHARED_MEMORY'],
    [{ a: new Uint8Array(new SharedArrayBuffer(1)) }, 'ERR_SHARED_MEMORY'],
    [cyclic, 'ERR_SIZE_LIMIT'],
    [{ length: 1, a: new Array<number>(2 ** 32 - 1) }, 'ERR_SIZE_LIMIT'],
    ['\ud800', 'ERR_VALUE_UNSUPPORTED'],
    ['a\udc00b', 'ERR_VALUE_UNSUPPORTED'],
    ['\ud800\ud800', 'ERR_VALUE_UNSUPPORTED'],
    [{ '\udfff': 1 }, 'ERR_VALUE_UNSUPPORTED'],
  ] as const)
    t.is(
      code(() => encodeMessage({ id: 1, type: 'RAW', value })),
      expected,
    )
})

const bytesOf = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16))

for (const [what, hex, expected = 'ERR_MESSAGE_INVALID'] of [
  ['no bytes', ''],
  ['an unknown layout', '05'],
  ['no value', '00'],
  ['trailing bytes', '00f6f6'],
  ['an integer that is too long', '001800'],
  ['an integer of two bytes that fits one', '001900ff'],
  ['an integer of four bytes that fits two', '001a0000ffff'],
  ['an integer of eight bytes that fits four', '001b00000000ffffffff'],
  ['an integer of more than 53 bits', '001b0020000000000000'],
  ['a negative integer of more than 53 bits', '003b001fffffffffffff'],
  ['an indefinite length', '009fff'],
  ['bytes in chunks', '005f4101ff'],
  ['a tag', '00c000'],
  ['undefined', '00f7'],
  ['another simple value', '00f8ff'],
  ['a break', '00ff'],
  ['not a number', '00f97e00', 'ERR_VALUE_UNSUPPORTED'],
  ['infinity', '00f97c00', 'ERR_VALUE_UNSUPPORTED'],
  ['an infinity of eight bytes', '00fb7ff0000000000000', 'ERR_VALUE_UNSUPPORTED'],
  ['an integer as a float', '00f93c00'],
  ['a single float that fits a half', '00fa3fc00000'],
  ['a double float that fits a single', '00fb3ff8000000000000'],
  ['bytes that are cut short', '00420a'],
  ['a count of bytes far beyond the frame', '005b0000ffffffffffff'],
  ['a count of items that the frame cannot hold', '009a0000ffff'],
  ['a count of items beyond the limits', '009b0000ffffffffffff', 'ERR_SIZE_LIMIT'],
  ['a count of fields that the frame cannot hold', '00ba0000ffff'],
  ['a key that is not text', '00a101f6'],
  ['a key twice', '00a26161016161' + '02'],
  ['keys that do not ascend', '00a26162016161' + '02'],
  ['a longer key first', '00a262616101616202'],
  ['a key named __proto__', '00a1695f5f70726f746f5f5ff6', 'ERR_VALUE_UNSUPPORTED'],
  ['an overlong form of UTF-8', '0062c080'],
  ['half a surrogate pair in UTF-8', '0063eda080'],
  ['a lone continuation byte', '006180'],
  ['text that is cut within a character', '0061c3'],
  ['a call with half an id', '01000000'],
  ['a call without a name', '010000000100'],
  ['a call whose name is cut short', '01000000010561'],
  ['a call whose name is not ASCII', '010000000101ff'],
  ['a call with two arguments', '01000000010161f6f6'],
  ['a keyed call without a key', '02000000010161'],
  ['a reply with trailing bytes', '0300000001f6f6'],
] as const)
  test(`bytes with ${what} are refused`, (t) => {
    t.is(
      code(() => decodeMessage(bytesOf(hex))),
      expected,
    )
  })

test('nesting is refused at the depth of the limit, not of the stack', (t) => {
  for (const opening of [0x81, 0xa1]) {
    const deep = new Uint8Array(1_000_000).fill(opening)
    deep[0] = ANY
    t.true(['ERR_SIZE_LIMIT', 'ERR_MESSAGE_INVALID'].includes(String(code(() => decodeMessage(deep)))))
  }
})

test('property: bytes that the writer did not write are refused with a code, or are read as what the writer writes so', (t) => {
  const changed = fc.tuple(anyValue, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
  const check = (frame: Uint8Array) => {
    let value: unknown
    try {
      value = decodeMessage(frame)
    } catch (error) {
      t.true(error instanceof KeyriseError, String(error))
      return
    }
    if (frame[0] === ANY)
      t.deepEqual(encodeMessage(value).subarray(0, 1)[0] === ANY ? encodeMessage(value) : frame, frame)
  }
  fc.assert(
    fc.property(changed, ([given, changes]) => {
      const frame = encodeMessage({ id: 7, type: 'RAW', value: given })
      const any = encodeMessage(given)
      for (const [index, byte] of changes) {
        frame[index % frame.length] = byte
        any[1 + (index % (any.length - 1))] = byte
      }
      check(frame)
      check(any)
    }),
    { numRuns: 3000 },
  )
  fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), check), { numRuns: 3000 })
})
