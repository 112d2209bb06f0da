import test from 'ava'
import fc from 'fast-check'
import { admitReceived, admitValue, releaseValue, TRANSFERRED_SIZE_BYTES_MIN } from '../../protocol/values.js'
import { anyValue, code } from './any-value.js'

test('property: what is admitted or released equals what was given, and shares nothing with it', (t) => {
  fc.assert(
    fc.property(anyValue, (given) => {
      for (const copy of [admitValue(given), releaseValue(given).value]) {
        t.deepEqual(copy, given)
        if (typeof given === 'object' && given !== null) t.not(copy, given)
      }
    }),
    { numRuns: 300 },
  )
})

test('property: released bytes have buffers of their own, exact; large ones are listed for transfer', (t) => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (given) => {
      const pooled = given.map((bytes) => Buffer.from(bytes))
      const large = [TRANSFERRED_SIZE_BYTES_MIN - 1, TRANSFERRED_SIZE_BYTES_MIN].map((size) => new Uint8Array(size))
      const { value, transfer } = releaseValue([...pooled, ...pooled, ...large])
      const buffers = (value as Uint8Array[]).map(({ buffer }) => buffer)
      t.deepEqual(
        buffers.map(({ byteLength }) => byteLength),
        [...given, ...given, ...large].map(({ length }) => length),
      )
      t.is(new Set(buffers).size, buffers.length)
      t.is(transfer.length, 1)
      t.true(transfer[0] === buffers.at(-1))
    }),
    { numRuns: 100 },
  )
})

test('neither accessors nor inherited values nor methods of the value run', (t) => {
  const run = () => t.fail('it ran')
  const hostile = Object.defineProperty({}, 'x', { get: run, enumerable: true })
  const array = Object.defineProperty([1], 0, { get: run })
  const inherited = Object.setPrototypeOf([,], {
    0: 1,
    get length() {
      return run()
    },
  }) as unknown
  t.is(
    code(() => admitValue(hostile)),
    'ERR_VALUE_UNSUPPORTED',
  )
  t.is(
    code(() => admitValue(array)),
    'ERR_VALUE_UNSUPPORTED',
  )
  t.is(
    code(() => admitValue(inherited)),
    'ERR_VALUE_UNSUPPORTED',
  )
  const bytes = Object.defineProperties(new Uint8Array([1, 2, 3]), {
    length: { get: run },
    buffer: { get: run },
    constructor: { get: run },
    [Symbol.iterator]: { get: run },
  })
  t.deepEqual(admitValue(bytes), new Uint8Array([1, 2, 3]))
  t.deepEqual(admitValue({ toJSON: undefined, valueOf: undefined }), {})
})

test('an object that only claims to be bytes is not', (t) => {
  const fake = Object.create(Uint8Array.prototype) as unknown
  t.is(
    code(() => admitValue(fake)),
    'ERR_VALUE_UNSUPPORTED',
  )
  t.is(
    code(() => admitValue({ [Symbol.toStringTag]: 'Uint8Array' })),
    undefined,
  )
  t.is(
    code(() => admitValue(new (class extends Array {})(3))),
    'ERR_VALUE_UNSUPPORTED',
  )
})

test('shared memory is refused, growable and resized too', (t) => {
  const growable = new (
    SharedArrayBuffer as unknown as new (size: number, o: { maxByteLength: number }) => SharedArrayBuffer
  )(4, { maxByteLength: 8 })
  for (const value of [
    new SharedArrayBuffer(4),
    new Uint8Array(new SharedArrayBuffer(4)),
    growable,
    new Uint8Array(growable),
  ])
    t.is(
      code(() => admitValue([value])),
      'ERR_SHARED_MEMORY',
    )
})

test('a field named __proto__ is refused; constructor and toString are data', (t) => {
  t.is(
    code(() => admitValue(JSON.parse('{"__proto__": {}}'))),
    'ERR_VALUE_UNSUPPORTED',
  )
  const copy = admitValue({ constructor: 1, toString: 'x', hasOwnProperty: null }) as object
  t.deepEqual(Object.entries(copy), [
    ['constructor', 1],
    ['toString', 'x'],
    ['hasOwnProperty', null],
  ])
  t.is(Object.getPrototypeOf(copy), Object.prototype)
})

test('each limit is exact', (t) => {
  t.is(
    code(() => admitValue(new Uint8Array(10), { sizeBytesMax: 10 })),
    undefined,
  )
  t.is(
    code(() => admitValue(new Uint8Array(11), { sizeBytesMax: 10 })),
    'ERR_SIZE_LIMIT',
  )
  t.is(
    code(() => admitValue('12345', { sizeBytesMax: 10 })),
    undefined,
  )
  t.is(
    code(() => admitValue('123456', { sizeBytesMax: 10 })),
    'ERR_SIZE_LIMIT',
  )
  t.is(
    code(() => admitValue([[1]], { depthMax: 2 })),
    undefined,
  )
  t.is(
    code(() => admitValue([[[1]]], { depthMax: 2 })),
    'ERR_SIZE_LIMIT',
  )
  t.is(
    code(() => admitValue([1, 2], { nodeCountMax: 3 })),
    undefined,
  )
  t.is(
    code(() => admitValue([1, 2, 3], { nodeCountMax: 3 })),
    'ERR_SIZE_LIMIT',
  )
  t.is(
    code(() => admitValue({ key: null }, { sizeBytesMax: 14 })),
    'ERR_SIZE_LIMIT',
  )
  t.is(
    code(() => admitValue({ key: null }, { sizeBytesMax: 15 })),
    undefined,
  )
})

test('undefined is no argument, a missing field, and nothing else', (t) => {
  t.is(admitValue(undefined), undefined)
  t.deepEqual(Object.keys(admitValue({ a: undefined, b: 1 }) as object), ['b'])
  t.is(
    code(() => admitValue([undefined])),
    'ERR_VALUE_UNSUPPORTED',
  )
})

test('of a value that a structured clone made, bytes that alone cover their buffer are taken, all others copied', (t) => {
  const whole = new Uint8Array(100).fill(1)
  const twice = new Uint8Array(10).fill(2)
  const resizable = new (ArrayBuffer as unknown as new (size: number, o: { maxByteLength: number }) => ArrayBuffer)(4, {
    maxByteLength: 8,
  })
  const claimed = {
    whole,
    first: twice,
    second: new Uint8Array(twice.buffer),
    part: new Uint8Array(new ArrayBuffer(10), 2, 4),
    resizable: new Uint8Array(resizable),
    buffer: Buffer.from(new ArrayBuffer(3)),
  }
  const admitted = admitReceived(claimed) as typeof claimed
  t.deepEqual(admitted, admitValue(claimed) as typeof claimed)
  t.is(admitted.whole.buffer, whole.buffer)
  t.not(admitted.first.buffer, admitted.second.buffer)
  for (const name of ['part', 'resizable', 'buffer'] as const) t.not(admitted[name].buffer, claimed[name].buffer)
  t.is(
    code(() => admitReceived(new Uint8Array(new SharedArrayBuffer(4)))),
    'ERR_SHARED_MEMORY',
  )
  t.is(
    code(() => admitReceived(whole, { sizeBytesMax: 99 })),
    'ERR_SIZE_LIMIT',
  )
})
