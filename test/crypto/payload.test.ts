import { createHash } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { encodeContext } from '../../protocol/context.js'
import { envelopeDigest, sealEnvelope } from '../../protocol/crypto/envelope.js'
import {
  CHUNK_SIZE,
  ChunkNonce,
  derivePayloadKey,
  openChunkPieces,
  openChunks,
  openPayload,
  payloadDigest,
  payloadSize,
  sealChunks,
  SEALED_CHUNK_SIZE,
  SEALED_SEGMENT_SIZE,
  sealPayload,
  SEGMENT_CHUNK_COUNT,
  SEGMENT_SIZE,
  segmentDigest,
  type ChunkRun,
} from '../../protocol/crypto/payload.js'
import { hkdf, nodeRandom, sealChaCha, TAG_SIZE, wipePieces } from '../../protocol/crypto/primitives.js'
import { subKeyRecipient } from '../../protocol/crypto/recipients.js'
import { codeOf, CONTEXT, flipBit, fromText, randomBytes, randomSecret } from './fixtures.js'

const NONCE_SIZE = 16
const fileKey = randomSecret(16)
const seal = (plaintext: Uint8Array): Bytes => sealPayload(fileKey, plaintext, nodeRandom)
const open = (payload: Uint8Array) => codeOf(() => openPayload(fileKey, payload))

for (const size of [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 3 * CHUNK_SIZE + 5]) {
  test(`${String(size)} bytes come back, in a buffer of their size`, (t) => {
    const plaintext = randomBytes(size)
    const payload = seal(plaintext)
    t.is(payload.length, payloadSize(size))
    t.is(payload.length, NONCE_SIZE + size + TAG_SIZE * Math.max(1, Math.ceil(size / CHUNK_SIZE)))
    const opened = openPayload(fileKey, payload)
    t.deepEqual(opened, plaintext)
    t.is(opened.buffer.byteLength, size)
  })
}

test('one plaintext never seals twice to the same bytes', (t) => {
  const plaintext = randomBytes(100)
  t.notDeepEqual(seal(plaintext), seal(plaintext))
})

test('another file key opens nothing', (t) => {
  t.is(
    codeOf(() => openPayload(randomSecret(16), seal(randomBytes(10)))),
    'ERR_PAYLOAD_INVALID',
  )
})

/** The chunks of a payload of three and a bit, and the nonce before them. */
const split = (payload: Uint8Array): { nonce: Uint8Array; chunks: Uint8Array[] } => {
  const chunks: Uint8Array[] = []
  for (let offset = NONCE_SIZE; offset < payload.length; offset += SEALED_CHUNK_SIZE)
    chunks.push(payload.subarray(offset, offset + SEALED_CHUNK_SIZE))
  return { nonce: payload.subarray(0, NONCE_SIZE), chunks }
}
const whole = seal(randomBytes(3 * CHUNK_SIZE + 5))
const { nonce, chunks } = split(whole)
const join = (...indexes: number[]): Bytes =>
  concatBytes(nonce, ...indexes.map((index) => chunks[index] ?? allocate(0)))

test('case 4: chunks swapped, doubled or dropped open nothing', (t) => {
  t.is(open(join(0, 1, 2, 3)), undefined)
  for (const order of [
    [1, 0, 2, 3],
    [0, 2, 1, 3],
    [0, 1, 1, 3],
    [0, 0, 1, 2, 3],
    [0, 2, 3],
    [1, 2, 3],
    [3, 0, 1, 2],
    [0, 1, 2, 3, 3],
  ]) {
    t.is(open(join(...order)), 'ERR_PAYLOAD_INVALID')
  }
})

test('a payload cut between chunks is known as cut', (t) => {
  for (const rest of [[0, 1, 2], [0, 1], [0]]) t.is(open(join(...rest)), 'ERR_PAYLOAD_TRUNCATED')
  t.is(open(nonce), 'ERR_PAYLOAD_TRUNCATED')
  t.is(open(allocate(0)), 'ERR_PAYLOAD_TRUNCATED')
})

test('a payload cut within a chunk opens nothing', (t) => {
  for (const size of [NONCE_SIZE + 1, NONCE_SIZE + TAG_SIZE - 1, NONCE_SIZE + 2 * SEALED_CHUNK_SIZE + 1])
    t.is(open(whole.subarray(0, size)), 'ERR_PAYLOAD_TRUNCATED')
  for (const size of [NONCE_SIZE + TAG_SIZE, NONCE_SIZE + SEALED_CHUNK_SIZE - 1, whole.length - 1])
    t.is(open(whole.subarray(0, size)), 'ERR_PAYLOAD_INVALID')
})

test('case 3: trailing bytes or a second final chunk open nothing', (t) => {
  t.is(open(concatBytes(whole, allocate(1))), 'ERR_PAYLOAD_INVALID')
  t.is(open(concatBytes(whole, allocate(TAG_SIZE))), 'ERR_PAYLOAD_INVALID')
  const final = seal(randomBytes(CHUNK_SIZE))
  t.is(open(concatBytes(final, final.subarray(NONCE_SIZE))), 'ERR_PAYLOAD_INVALID')
})

test('a last chunk that is empty, though authentic, opens nothing where others stand before it', (t) => {
  const key = fileKey.expose((bytes) => hkdf(bytes, nonce, fromText('payload'), 32))
  const chunk = (index: number, isLast: boolean, size: number): Bytes => {
    const sealed = allocate(size + TAG_SIZE)
    sealChaCha(key, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, index, isLast ? 1 : 0), allocate(size), sealed)
    return sealed
  }
  t.is(open(concatBytes(nonce, chunk(0, false, CHUNK_SIZE), chunk(1, true, 1))), undefined)
  t.is(open(concatBytes(nonce, chunk(0, false, CHUNK_SIZE), chunk(1, true, 0))), 'ERR_PAYLOAD_INVALID')
  t.is(open(concatBytes(nonce, chunk(0, true, 0))), undefined)
})

test('case 2: a bit flipped in any chunk opens nothing', (t) => {
  for (let index = 0; index < chunks.length; index++) {
    const bit = (NONCE_SIZE + index * SEALED_CHUNK_SIZE + 3) * 8
    t.is(open(flipBit(whole, bit)), 'ERR_PAYLOAD_INVALID')
  }
  t.is(open(flipBit(whole, 0)), 'ERR_PAYLOAD_INVALID')
})

test('a NUL-filled payload opens nothing', (t) => {
  for (const size of [32, 1000, 3 * SEALED_CHUNK_SIZE]) t.is(open(allocate(size)), 'ERR_PAYLOAD_INVALID')
})

test('chunk nonces count beyond 2^32, and mark the last chunk', (t) => {
  const nonce = new ChunkNonce()
  const at = (index: number, isLast: boolean) => Buffer.from(nonce.at(index, isLast)).toString('hex')
  t.is(at(0, false), '000000000000000000000000')
  t.is(at(258, true), '000000000000000000010201')
  t.is(at(2 ** 32 + 1, false), '000000000000010000000100')
})

// Runs of chunks

const payloadKey = derivePayloadKey(fileKey, nonce)
const sealed = whole.subarray(NONCE_SIZE)
const opened = openPayload(fileKey, whole)
const range = (first: number, count: number): Uint8Array =>
  sealed.subarray(first * SEALED_CHUNK_SIZE, (first + count) * SEALED_CHUNK_SIZE)
/** What a run opens to, in one buffer and in pieces alike; undefined, where nothing was left in the output. */
const openRun = (run: ChunkRun, of: Uint8Array): Bytes | undefined => {
  const into = allocate(Math.max(0, of.length - TAG_SIZE * Math.ceil(of.length / SEALED_CHUNK_SIZE))).fill(1)
  const isOpen = openChunks(payloadKey, run, of, into)
  const pieces = openChunkPieces(payloadKey, run, of)
  if ((pieces !== undefined) !== isOpen)
    throw new Error('pieces open where one buffer does not, or the other way round')
  if (pieces !== undefined && Buffer.compare(concatBytes(...pieces), into) !== 0)
    throw new Error('pieces hold other bytes')
  if (isOpen) return into
  if (into.some((byte) => byte !== 0)) throw new Error('what did not open was left')
  return undefined
}

test('every run of a payload opens by itself, in any order, to its part of the plaintext', (t) => {
  fc.assert(
    fc.property(fc.nat({ max: 3 }), fc.integer({ min: 1, max: 4 }), (first, count) => {
      const isEnd = first + count >= 4
      const expected = opened.subarray(first * CHUNK_SIZE, (first + count) * CHUNK_SIZE)
      t.deepEqual(openRun({ first, isEnd }, range(first, count)), copyBytes(expected))
    }),
  )
})

test('a run at another place, or one that ends elsewhere, opens nothing', (t) => {
  t.is(openRun({ first: 1, isEnd: false }, range(0, 2)), undefined)
  t.is(openRun({ first: 2, isEnd: false }, range(2, 2)), undefined)
  t.is(openRun({ first: 0, isEnd: true }, range(0, 2)), undefined)
  t.is(openRun({ first: 0, isEnd: false }, allocate(0)), undefined)
  t.is(openRun({ first: 0, isEnd: true }, range(0, 1).subarray(0, TAG_SIZE - 1)), undefined)
  for (let index = 0; index < 3; index++)
    t.is(openRun({ first: 0, isEnd: false }, flipBit(range(0, 3), index * SEALED_CHUNK_SIZE * 8)), undefined)
})

test('a run that cannot be is refused, though each of its chunks is authentic', (t) => {
  const chunk = (index: number, isLast: boolean, size: number): Bytes => {
    const sealedChunk = allocate(size + TAG_SIZE)
    sealChaCha(payloadKey, new ChunkNonce().at(index, isLast), allocate(size), sealedChunk)
    return sealedChunk
  }
  t.is(openRun({ first: 4, isEnd: false }, chunk(4, false, CHUNK_SIZE - 1)), undefined)
  t.is(openRun({ first: 4, isEnd: true }, chunk(4, true, 0)), undefined)
  t.deepEqual(openRun({ first: 0, isEnd: true }, chunk(0, true, 0)), allocate(0))
  const short = allocate(CHUNK_SIZE - 1)
  t.throws(
    () => {
      sealChunks(payloadKey, { first: 0, isEnd: false }, short, allocate(CHUNK_SIZE - 1 + TAG_SIZE))
    },
    { instanceOf: RangeError },
  )
})

test('runs are sealed and opened in shared memory', (t) => {
  const shared = (size: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(size + 100), 100)
  const [plaintext, into, back] = [shared(opened.length), shared(sealed.length), shared(opened.length)]
  plaintext.set(opened)
  sealChunks(payloadKey, { first: 0, isEnd: true }, plaintext, into)
  t.deepEqual(copyBytes(into), copyBytes(sealed))
  t.true(openChunks(payloadKey, { first: 0, isEnd: true }, into, back))
  t.deepEqual(copyBytes(back), opened)
})

test('pieces that were wiped hold nothing, or are gone', (t) => {
  const pieces = openChunkPieces(payloadKey, { first: 0, isEnd: true }, sealed) ?? []
  t.true(pieces.some((piece) => piece.some((byte) => byte !== 0)))
  wipePieces(pieces)
  t.true(pieces.every((piece) => piece.length === 0 || piece.every((byte) => byte === 0)))
})

test('an output of another size is a bug, and nothing is written', (t) => {
  const into = allocate(opened.length + 1)
  t.throws(() => openChunks(payloadKey, { first: 0, isEnd: true }, sealed, into), { instanceOf: RangeError })
  t.throws(
    () => {
      sealChunks(payloadKey, { first: 0, isEnd: true }, opened, into)
    },
    { instanceOf: RangeError },
  )
  t.true(into.every((byte) => byte === 0))
})

/** docs/envelope.md §2, by hand. */
const labelledHash = (label: string, ...parts: readonly Uint8Array[]): Bytes => {
  const hash = createHash('sha256').update(`keyrise/v1/${label}`)
  for (const part of parts) {
    const size = Buffer.alloc(8)
    size.writeBigUInt64BE(BigInt(part.length))
    hash.update(size).update(part)
  }
  return copyBytes(hash.digest())
}

test('an envelope’s digest is cut at segments, whatever its payload’s size', (t) => {
  const file = sealEnvelope(randomBytes(0), {
    recipients: [subKeyRecipient('epoch/7', randomSecret())],
    context: CONTEXT,
    random: nodeRandom,
  })
  const header = file.subarray(0, file.length - NONCE_SIZE - TAG_SIZE)
  for (const size of [TAG_SIZE, SEALED_SEGMENT_SIZE, SEALED_SEGMENT_SIZE + 1, 2 * SEALED_SEGMENT_SIZE + TAG_SIZE]) {
    const chunks = randomBytes(size)
    const leaves: Bytes[] = []
    for (let offset = 0; offset < size; offset += 1_048_832)
      leaves.push(labelledHash('payload-segment', chunks.subarray(offset, offset + 1_048_832)))
    t.deepEqual(
      envelopeDigest(concatBytes(header, nonce, chunks)),
      labelledHash('envelope-digest', encodeContext(CONTEXT), nonce, concatBytes(...leaves)),
    )
  }
})

test('a digest is over the digests of segments of sixteen chunks', (t) => {
  t.is(SEGMENT_SIZE, SEGMENT_CHUNK_COUNT * CHUNK_SIZE)
  t.is(SEALED_SEGMENT_SIZE, 16 * (65536 + 16))
  const [context, segment] = [fromText('context'), randomBytes(100)]
  t.deepEqual(segmentDigest(segment), labelledHash('payload-segment', segment))
  const leaves = randomBytes(96)
  t.deepEqual(payloadDigest(context, nonce, leaves), labelledHash('envelope-digest', context, nonce, leaves))
  // Neither a leaf nor a digest stands for the other.
  t.notDeepEqual(segmentDigest(segment), payloadDigest(allocate(0), allocate(0), segment))
})
