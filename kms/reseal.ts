import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { DELIVERED_SEGMENT_SIZE_BYTES_MAX, SEALED_SEGMENT_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { DELIVERY_KEY_SIZE, sealDelivery, type Segment } from '../protocol/crypto/delivery.js'
import { openChunks, PAYLOAD_KEY_SIZE, segmentDigest, SEGMENT_SIZE, type ChunkRun } from '../protocol/crypto/payload.js'

/** What the pool’s threads do to payloads, in memory that they share with the thread that asks. */

/** Payload key, then delivery key. */
export const SEGMENT_KEYS_SIZE = PAYLOAD_KEY_SIZE + DELIVERY_KEY_SIZE
const SLOT_SIZE = SEGMENT_KEYS_SIZE + SEALED_SEGMENT_SIZE_BYTES_MAX + DELIVERED_SEGMENT_SIZE_BYTES_MAX

/** Memory for one segment on its way: apart from the keys, nothing in it is secret. */
export const makeSlot = (): SharedArrayBuffer => new SharedArrayBuffer(SLOT_SIZE)
export const slotAreas = (memory: SharedArrayBuffer) => ({
  keys: new Uint8Array(memory, 0, SEGMENT_KEYS_SIZE),
  sealed: new Uint8Array(memory, SEGMENT_KEYS_SIZE, SEALED_SEGMENT_SIZE_BYTES_MAX),
  delivered: new Uint8Array(
    memory,
    SEGMENT_KEYS_SIZE + SEALED_SEGMENT_SIZE_BYTES_MAX,
    DELIVERED_SEGMENT_SIZE_BYTES_MAX,
  ),
})

/** Chunks of one payload: opened from shared memory into shared memory. */
export interface OpenTask {
  readonly kind: 'open'
  /** The payload key. */
  readonly key: Uint8Array<SharedArrayBuffer>
  readonly run: ChunkRun
  readonly sealed: Uint8Array<SharedArrayBuffer>
  readonly into: Uint8Array<SharedArrayBuffer>
}

/** One segment, opened and sealed again in a slot. */
export interface ResealTask {
  readonly kind: 'reseal'
  readonly slot: SharedArrayBuffer
  readonly segment: Segment
  /** The digest of what was answered under this index before. */
  readonly known: Bytes | undefined
}

/** True, and `into` filled, where every chunk is authentic; else `into` is zeroes. */
export const openShared = ({ key, run, sealed, into }: OpenTask): boolean => openChunks(key, run, sealed, into)

/** The segment’s digest, and the delivery in the slot; undefined where the segment does not open. */
export const resealShared = ({ slot, segment, known }: ResealTask): Bytes | undefined => {
  const { keys, sealed, delivered } = slotAreas(slot)
  return resealSegment({
    keys,
    segment,
    known,
    sealed: sealed.subarray(0, segment.sealedSizeBytes),
    into: delivered.subarray(0, segment.deliveredSizeBytes),
  })
}

/** For plaintexts of segments: zeroes between two of them. */
const plaintexts = allocate(SEGMENT_SIZE)

/**
 * Opens a segment under its payload key and seals it under its delivery key, with the same nonces. So a delivery key seals one
 * plaintext at each place only because other bytes than those of `known` are refused before anything is sealed.
 * @returns the segment’s digest; undefined, and nothing sealed, where it does not open.
 */
export const resealSegment = (work: {
  readonly keys: Uint8Array
  readonly segment: Segment
  readonly known: Bytes | undefined
  readonly sealed: Uint8Array
  readonly into: Uint8Array
}): Bytes | undefined => {
  const { keys, segment, known, sealed, into } = work
  const digest = segmentDigest(sealed)
  if (known !== undefined && !equalPublicBytes(known, digest)) return undefined
  const plaintext = plaintexts.subarray(0, segment.sizeBytes)
  try {
    if (!openChunks(keys.subarray(0, PAYLOAD_KEY_SIZE), segment.run, sealed, plaintext)) return undefined
    sealDelivery(keys.subarray(PAYLOAD_KEY_SIZE), { ...segment, digest }, plaintext, into)
    return digest
  } finally {
    plaintext.fill(0)
  }
}
