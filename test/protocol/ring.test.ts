import { Worker } from 'node:worker_threads'
import test from 'ava'
import fc from 'fast-check'
import { createRing, RingReader, RingWriter } from '../../protocol/ring.js'

const HEADER_WORDS = 64
const TAIL = 0
const HEAD = 16

const setUp = (dataSizeBytes = 64, frameSizeBytesMax = 64) => {
  const memory = createRing(dataSizeBytes)
  return {
    cells: new Int32Array(memory),
    writer: new RingWriter(memory),
    reader: new RingReader(memory, frameSizeBytesMax),
  }
}

const wordsOf = (bytes: Uint8Array): Int32Array => {
  const words = new Int32Array((bytes.length + 3) >>> 2)
  new Uint8Array(words.buffer).set(bytes)
  return words
}

test('property: what is written is read, in order, whatever fits at the moment', (t) => {
  const step = fc.oneof(fc.uint8Array({ maxLength: 70 }), fc.constant('read' as const), fc.constant('free' as const))
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(64, 128, 512), (steps, size) => {
      const { writer, reader } = setUp(size, 72)
      const model: Uint8Array[] = []
      let [usedWords, unfreedWords] = [0, 0]
      for (const given of steps) {
        if (given === 'free') {
          reader.free()
          usedWords -= unfreedWords
          unfreedWords = 0
        } else if (given === 'read') {
          const expected = model.shift()
          const sizeBytes = reader.read()
          t.is(sizeBytes, expected?.length ?? -1)
          if (expected === undefined) continue
          t.deepEqual(new Uint8Array(reader.frame.subarray(0, sizeBytes)), new Uint8Array(expected))
          unfreedWords += 1 + ((expected.length + 3) >>> 2)
        } else {
          const words = 1 + ((given.length + 3) >>> 2)
          const isWritten = writer.write(wordsOf(given), given.length)
          t.is(isWritten, usedWords + words <= size / 4)
          if (!isWritten) continue
          model.push(given)
          usedWords += words
        }
      }
      t.deepEqual([writer.error, reader.error], [undefined, undefined])
    }),
    { numRuns: 500 },
  )
})

test('frames longer than the loop that copies them cross the end of the ring', (t) => {
  const { writer, reader } = setUp(4096, 2048)
  for (let round = 0; round < 50; round++) {
    const frame = new Uint8Array(1000 + 17 * round).fill(round)
    t.true(writer.write(wordsOf(frame), frame.length))
    t.is(reader.read(), frame.length)
    t.deepEqual(new Uint8Array(reader.frame.subarray(0, frame.length)), frame)
    reader.free()
  }
})

for (const [what, scribble] of Object.entries<(cells: Int32Array) => void>({
  'a tail further away than the ring is long': (cells) => (cells[TAIL] = 17),
  'a tail behind what was read': (cells) => (cells[TAIL] = -1),
  'a negative size': (cells) => (cells[HEADER_WORDS] = -1),
  'a size beyond the largest frame': (cells) => (cells[HEADER_WORDS] = 65),
  'a size beyond what was written': (cells) => (cells[HEADER_WORDS] = 60),
}))
  test(`${what} breaks the ring for its reader, for good`, (t) => {
    const { cells, writer, reader } = setUp()
    t.true(writer.write(Int32Array.of(1), 4))
    scribble(cells)
    t.is(reader.read(), -1)
    t.is(reader.error?.code, 'ERR_MESSAGE_INVALID')
    cells.fill(0)
    t.true(writer.write(Int32Array.of(1), 4))
    t.is(reader.read(), -1)
    t.false(reader.isReadable)
  })

for (const [what, head] of Object.entries({ 'more than was written': 5, 'less than before': -1 }))
  test(`a reader that says it read ${what} breaks the ring for its writer, for good`, (t) => {
    const { cells, writer } = setUp(16)
    t.true(writer.write(Int32Array.of(1, 2), 8))
    cells[HEAD] = head
    t.false(writer.write(Int32Array.of(1, 2), 8))
    t.is(writer.error?.code, 'ERR_MESSAGE_INVALID')
    cells[HEAD] = 3
    t.false(writer.write(Int32Array.of(1), 4))
  })

test('a frame is private: what is written over it in the ring after it was read changes nothing', (t) => {
  const { cells, writer, reader } = setUp()
  t.true(writer.write(Int32Array.of(7, 7), 8))
  t.is(reader.read(), 8)
  cells.fill(9, HEADER_WORDS)
  t.deepEqual(new Int32Array(reader.frame.buffer, 0, 2), Int32Array.of(7, 7))
})

test('a sleeper is woken by what comes, and one that was about to sleep is not left', async (t) => {
  const { writer, reader } = setUp()
  const woken = new Promise<void>((resolve) => reader.sleep(resolve))
  t.false(reader.isReadable)
  t.true(writer.write(Int32Array.of(1), 4))
  await woken
  t.is(reader.read(), 4)
  reader.free()
  reader.block(1)
  t.true(writer.write(Int32Array.of(1), 4))
  reader.block(60_000)
  t.is(reader.read(), 4)
})

/** The other thread: sends back every frame, or, for `scribble`, writes anything anywhere as fast as it can. */
const peer = (work: 'mirror' | 'scribble', workerData: unknown): Worker =>
  new Worker(new URL(`./ring-${work}.js`, import.meta.url), { workerData })

test('100,000 frames of any size pass through two threads and back, unchanged and in order', async (t) => {
  const [there, back] = [createRing(8192), createRing(8192)]
  const worker = peer('mirror', { there, back })
  const [writer, reader] = [new RingWriter(there), new RingReader(back, 2048)]
  const COUNT = 100_000
  const sizeOf = (index: number): number => (index * 2_654_435_761) % (index % 100 === 0 ? 2000 : 61)
  const words = new Int32Array(512)
  let [sent, received] = [0, 0]
  while (received < COUNT) {
    while (sent < COUNT && sent - received < 500) {
      words.fill(sent)
      if (!writer.write(words, sizeOf(sent))) break
      sent++
    }
    reader.block(100)
    for (let sizeBytes = reader.read(); sizeBytes >= 0; sizeBytes = reader.read()) {
      if (sizeBytes !== sizeOf(received)) t.is(sizeBytes, sizeOf(received))
      for (let index = 0; index < sizeBytes; index++)
        if (reader.frame[index] !== ((received >>> (8 * (index & 3))) & 0xff)) t.fail(`frame ${received}`)
      received++
    }
    reader.free()
    t.deepEqual([writer.error, reader.error], [undefined, undefined])
  }
  await worker.terminate()
})

test('a hostile peer that scribbles while frames are read can break the ring, and nothing else', async (t) => {
  const outcomes = new Set<string>()
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const memory = createRing(256)
  const worker = peer('scribble', { memory, stop })
  for (let round = 0; round < 2000; round++) {
    const reader = new RingReader(memory, 128)
    const writer = new RingWriter(memory)
    for (let step = 0; step < 50; step++) {
      const sizeBytes = reader.read()
      t.true(sizeBytes >= -1 && sizeBytes <= 128)
      reader.free()
      writer.write(Int32Array.of(step), 4)
    }
    for (const { error } of [reader, writer]) outcomes.add(error?.code ?? 'none')
  }
  Atomics.store(stop, 0, 1)
  await worker.terminate()
  t.true(outcomes.has('ERR_MESSAGE_INVALID'))
  t.deepEqual(
    [...outcomes].filter((code) => code !== 'none' && code !== 'ERR_MESSAGE_INVALID'),
    [],
  )
})

test('memory that is no ring is refused', (t) => {
  t.throws(() => createRing(100), { instanceOf: RangeError })
  t.throws(() => new RingReader(new SharedArrayBuffer(256 + 12), 4), { code: 'ERR_MESSAGE_INVALID' })
})
