import { createCipheriv, createHash } from 'node:crypto'
import test from 'ava'
import { allocate, asciiBytes, concatBytes, type Bytes } from '../../protocol/bytes.js'
import { DELIVERED_SEGMENT_SIZE_BYTES_MAX, SEALED_SEGMENT_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import { openDelivery, sealDelivery, segmentAt, segmentCount } from '../../protocol/crypto/delivery.js'
import { segmentDigest, SEALED_SEGMENT_SIZE, SEGMENT_SIZE } from '../../protocol/crypto/payload.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'

const random = (size: number): Bytes => nodeRandom.fill(allocate(size))
const KEY = random(32)

const deliver = (payloadSizeBytes: number, index: number, change: { key?: Bytes; asIndex?: number } = {}) => {
  const segment = segmentAt(payloadSizeBytes, index)
  const plaintext = random(segment.sizeBytes)
  const digest = random(32)
  const delivered = allocate(segment.deliveredSizeBytes)
  sealDelivery(change.key ?? KEY, { ...segment, index: change.asIndex ?? index, digest }, plaintext, delivered)
  return { segment, plaintext, digest, delivered, into: allocate(segment.sizeBytes) }
}

test('segments cover a payload, and the sizes on the wire fit the largest', (t) => {
  t.is(SEALED_SEGMENT_SIZE, SEALED_SEGMENT_SIZE_BYTES_MAX)
  t.is(segmentAt(SEGMENT_SIZE, 0).deliveredSizeBytes, DELIVERED_SEGMENT_SIZE_BYTES_MAX)
  t.deepEqual(segmentAt(0, 0), {
    index: 0,
    sizeBytes: 0,
    sealedSizeBytes: 16,
    deliveredSizeBytes: 64,
    run: { first: 0, isEnd: true },
  })
  for (const size of [0, 1, 65_536, 65_537, SEGMENT_SIZE - 1, SEGMENT_SIZE, SEGMENT_SIZE + 1, 5 * SEGMENT_SIZE]) {
    const segments = Array.from({ length: segmentCount(size) }, (_, index) => segmentAt(size, index))
    t.is(
      segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      size,
    )
    t.deepEqual(
      segments.map(({ run }) => run),
      segments.map((_, index) => ({ first: index * 16, isEnd: index === segments.length - 1 })),
    )
    for (const index of [-1, segments.length, 0.5, NaN])
      t.throws(() => segmentAt(size, index), { code: 'ERR_REQUEST_INVALID' })
  }
})

/** The layout as docs/kms.md has it, from node:crypto alone. */
const byHand = (key: Bytes, index: number, isEnd: boolean, plaintext: Bytes, digest: Bytes): Bytes => {
  const seal = (counter: number, last: number, bytes: Uint8Array): Bytes => {
    const nonce = Buffer.alloc(12)
    nonce.writeUInt32BE(counter, 7)
    nonce[11] = last
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 })
    return concatBytes(cipher.update(bytes), cipher.final(), cipher.getAuthTag())
  }
  const chunks: Bytes[] = []
  for (let offset = 0; offset === 0 || offset < plaintext.length; offset += 65_536) {
    const isLast = isEnd && offset + 65_536 >= plaintext.length
    chunks.push(seal(index * 16 + offset / 65_536, isLast ? 1 : 0, plaintext.subarray(offset, offset + 65_536)))
  }
  return concatBytes(...chunks, seal(index, 2, digest))
}

test('a delivery is byte for byte what the document says', (t) => {
  for (const [size, index] of [
    [0, 0],
    [1, 0],
    [SEGMENT_SIZE, 0],
    [SEGMENT_SIZE + 70_000, 0],
    [SEGMENT_SIZE + 70_000, 1],
  ] as const) {
    const { segment, plaintext, digest, delivered, into } = deliver(size, index)
    t.is(Buffer.compare(delivered, byHand(KEY, index, segment.run.isEnd, plaintext, digest)), 0)
    t.deepEqual(openDelivery(KEY, segment, delivered, into), digest)
    t.is(Buffer.compare(into, plaintext), 0)
  }
})

test('the digest of a segment is what the document says', (t) => {
  const sealed = random(100)
  const size = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 100)
  const expected = createHash('sha256').update(asciiBytes('keyrise/v1/payload-segment')).update(size).update(sealed)
  t.deepEqual(segmentDigest(sealed), new Uint8Array(expected.digest()))
})

test('a delivery that was changed, cut, or is of another place or stream does not open, and leaves zeroes', (t) => {
  const size = 2 * SEGMENT_SIZE
  const { segment, delivered, into } = deliver(size, 0)
  const refused: Readonly<Record<string, Bytes>> = {
    'a changed chunk': delivered.with(0, (delivered[0] ?? 0) ^ 1),
    'a change in the last chunk': delivered.with(
      segment.sealedSizeBytes - 1,
      (delivered[segment.sealedSizeBytes - 1] ?? 0) ^ 1,
    ),
    'a changed digest': delivered.with(-1, (delivered.at(-1) ?? 0) ^ 1),
    'cut short': delivered.slice(0, -1),
    'without its digest': delivered.slice(0, segment.sealedSizeBytes),
    'with something behind it': concatBytes(delivered, allocate(1)),
    nothing: allocate(0),
    'another segment of the stream': deliver(size + 1, 1).delivered,
    'chunks of this place with the digest of another': deliver(size, 0, { asIndex: 1 }).delivered,
    'the same place of another stream': deliver(size, 0, { key: random(32) }).delivered,
  }
  for (const [what, bytes] of Object.entries(refused)) {
    into.fill(7)
    t.is(openDelivery(KEY, segment, bytes, into), undefined, what)
    t.true(
      into.every((byte) => byte === 0),
      what,
    )
  }
})
