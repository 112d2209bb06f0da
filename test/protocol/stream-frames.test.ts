import test from 'ava'
import fc from 'fast-check'
import { concatBytes } from '../../protocol/bytes.js'
import { FRAME_SIZE_BYTES_MAX, FrameReader, FrameWriter } from '../../protocol/stream-frames.js'

const reader = () => {
  const seen: (number[] | 'oversized')[] = []
  const frames = new FrameReader({
    frame: (bytes) => seen.push([...bytes]),
    oversized: () => seen.push('oversized'),
  })
  return { seen, frames }
}

const written = (messages: readonly Uint8Array[]): Uint8Array => {
  const writer = new FrameWriter()
  for (const message of messages) writer.add(message)
  return concatBytes(...writer.take())
}

test('messages come out as they went in, however the stream is cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
      (messages, sizes) => {
        const stream = written(messages)
        const { seen, frames } = reader()
        for (let offset = 0; offset < stream.length;) {
          const { value: size } = sizes.next() as { value: number }
          frames.push(stream.subarray(offset, offset + size))
          offset += size
        }
        t.deepEqual(
          seen,
          messages.map((message) => [...message]),
        )
      },
    ),
  )
})

test('small messages are joined and large ones are not copied', (t) => {
  const writer = new FrameWriter()
  const large = new Uint8Array(1 << 20)
  for (let count = 0; count < 100; count++) writer.add(new Uint8Array([count]))
  writer.add(large)
  writer.add(new Uint8Array(2))
  t.is(writer.sizeBytes, 100 * 5 + 4 + large.length + 6)
  const parts = writer.take()
  t.deepEqual(
    parts.map(({ length }) => length),
    [504, 1 << 20, 6],
  )
  t.is(parts[1], large)
  t.is(writer.sizeBytes, 0)
  t.deepEqual(writer.take(), [])
})

test('a frame larger than any message is said at its head, and passed over', (t) => {
  const size = FRAME_SIZE_BYTES_MAX + 1
  const head = new Uint8Array(4)
  new DataView(head.buffer).setUint32(0, size)
  const { seen, frames } = reader()
  frames.push(head)
  t.deepEqual(seen, ['oversized'])
  const piece = new Uint8Array(1 << 20).fill(1)
  for (let left = size; left > 0; left -= Math.min(left, piece.length)) frames.push(piece.subarray(0, left))
  frames.push(written([new Uint8Array([7])]))
  t.deepEqual(seen, ['oversized', [7]])
})

test('a frame is allocated as large as it says, and no larger frame is', (t) => {
  const sizes: number[] = []
  const { frames } = reader()
  const allocating = ArrayBuffer
  globalThis.ArrayBuffer = new Proxy(allocating, {
    construct(target, given: [number]) {
      sizes.push(given[0])
      return Reflect.construct(target, given) as ArrayBuffer
    },
  })
  try {
    for (const size of [0xff_ff_ff_ff, 0x7f_ff_ff_ff]) {
      const head = new Uint8Array(new allocating(4))
      new DataView(head.buffer).setUint32(0, size)
      reader().frames.push(head)
    }
    frames.push(new Uint8Array([0, 0, 1, 0]))
  } finally {
    globalThis.ArrayBuffer = allocating
  }
  t.true(sizes.includes(256))
  t.true(sizes.every((size) => size <= 256))
})
