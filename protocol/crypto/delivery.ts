import { allocate, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import {
  openChunks,
  payloadSize,
  PAYLOAD_NONCE_SIZE,
  sealChunks,
  SEGMENT_CHUNK_COUNT,
  SEGMENT_DIGEST_SIZE,
  SEGMENT_SIZE,
  type ChunkRun,
} from './payload.js'
import { openChaCha, sealChaCha, TAG_SIZE } from './primitives.js'

/**
 * A payload on its way from a KMS to an enclave, segment by segment, through a host that is not trusted. The chunks are those of
 * the payload, at the same places, under a key that serves one stream; behind them stands the segment’s digest. Layout and
 * reasons: docs/kms.md, “Streams”.
 */

export const DELIVERY_KEY_SIZE = 32
const SEALED_DIGEST_SIZE = SEGMENT_DIGEST_SIZE + TAG_SIZE

/** One segment of a payload whose plaintext has a known size. */
export interface Segment {
  readonly index: number
  /** Of its plaintext. */
  readonly sizeBytes: number
  /** Of its chunks, as they are stored. */
  readonly sealedSizeBytes: number
  /** Of its chunks and its digest, as they are delivered. */
  readonly deliveredSizeBytes: number
  readonly run: ChunkRun
}

/** An empty payload has one segment. */
export const segmentCount = (payloadSizeBytes: number): number =>
  Math.max(1, Math.ceil(payloadSizeBytes / SEGMENT_SIZE))

/**
 * @param payloadSizeBytes - of the plaintext.
 * @throws {KeyriseError} ERR_REQUEST_INVALID: the payload has no such segment.
 */
export const segmentAt = (payloadSizeBytes: number, index: number): Segment => {
  const count = segmentCount(payloadSizeBytes)
  if (!Number.isSafeInteger(index) || index < 0 || index >= count)
    throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'no such segment' })
  const sizeBytes = Math.min(SEGMENT_SIZE, payloadSizeBytes - index * SEGMENT_SIZE)
  const sealedSizeBytes = payloadSize(sizeBytes) - PAYLOAD_NONCE_SIZE
  return {
    index,
    sizeBytes,
    sealedSizeBytes,
    deliveredSizeBytes: sealedSizeBytes + SEALED_DIGEST_SIZE,
    run: { first: index * SEGMENT_CHUNK_COUNT, isEnd: index === count - 1 },
  }
}

/** Eleven bytes of the segment’s index, then 2: no chunk has that nonce, whose last byte is 0 or 1. */
const digestNonce = (index: number): Bytes => {
  const nonce = allocate(12)
  const view = new DataView(nonce.buffer)
  view.setUint32(3, Math.floor(index / 2 ** 32))
  view.setUint32(7, index)
  view.setUint8(11, 2)
  return nonce
}

/**
 * Seals an opened segment again. A delivery key must never seal two plaintexts of one index.
 * @param segment.digest - `segmentDigest` of the stored chunks.
 * @param into - `deliveredSizeBytes`.
 */
export const sealDelivery = (
  deliveryKey: Uint8Array,
  { index, run, sealedSizeBytes, digest }: Segment & { readonly digest: Uint8Array },
  plaintext: Uint8Array,
  into: Uint8Array,
): void => {
  sealChunks(deliveryKey, run, plaintext, into.subarray(0, sealedSizeBytes))
  sealChaCha(deliveryKey, digestNonce(index), digest, into.subarray(sealedSizeBytes))
}

/**
 * Opens what a KMS delivered: the digest of the segment as it is stored, and `into` filled. Undefined where it is not this
 * segment of this stream, whole; then `into` is zeroes.
 * @param delivered - claimed; of any size.
 * @param into - `sizeBytes`.
 */
export const openDelivery = (
  deliveryKey: Uint8Array,
  { index, run, sealedSizeBytes, deliveredSizeBytes }: Segment,
  delivered: Uint8Array,
  into: Uint8Array,
): Bytes | undefined => {
  const digest = allocate(SEGMENT_DIGEST_SIZE)
  const isOpen =
    delivered.length === deliveredSizeBytes &&
    openChaCha(deliveryKey, digestNonce(index), delivered.subarray(sealedSizeBytes), digest) &&
    openChunks(deliveryKey, run, delivered.subarray(0, sealedSizeBytes), into)
  if (isOpen) return digest
  into.fill(0)
  return undefined
}
