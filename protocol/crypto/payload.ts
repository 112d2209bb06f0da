import { allocate, asciiBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import { labelled } from './labels.js'
import { hkdf, openChaCha, openChaChaPieces, sealChaCha, sha256, TAG_SIZE, wipePieces } from './primitives.js'
import type { Secret } from './secret.js'

/** The payload: C2SP age, "Payload". A nonce, then the STREAM of chunks, of which only the last may be short. */

export const CHUNK_SIZE = 64 * 1024
export const SEALED_CHUNK_SIZE = CHUNK_SIZE + TAG_SIZE
export const PAYLOAD_NONCE_SIZE = 16
export const PAYLOAD_KEY_SIZE = 32
const PAYLOAD_INFO = asciiBytes('payload')
export const PAYLOAD_SIZE_MIN = PAYLOAD_NONCE_SIZE + TAG_SIZE

/** What is opened, sealed and hashed as one piece where a payload is worked on by range or by several threads. */
export const SEGMENT_CHUNK_COUNT = 16
export const SEGMENT_SIZE = SEGMENT_CHUNK_COUNT * CHUNK_SIZE
export const SEALED_SEGMENT_SIZE = SEGMENT_CHUNK_COUNT * SEALED_CHUNK_SIZE

/** An empty payload has one empty chunk. */
export const payloadSize = (plaintextSize: number): number =>
  PAYLOAD_NONCE_SIZE + plaintextSize + TAG_SIZE * Math.max(1, Math.ceil(plaintextSize / CHUNK_SIZE))

/** The payload’s nonce counts as the header’s: C2SP’s vectors. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
export const checkNonce = (payloadSize: number): void => {
  if (payloadSize < PAYLOAD_NONCE_SIZE) throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'no payload nonce' })
}

/** One ChaCha20-Poly1305 nonce after another: eleven bytes of counter, then 1 for the last chunk. */
export class ChunkNonce {
  readonly #bytes = allocate(12)
  readonly #view = new DataView(this.#bytes.buffer)

  /** @param index - up to 2^53, as far as numbers count. Valid until the next call. */
  at(index: number, isLast: boolean): Bytes {
    this.#view.setUint32(3, Math.floor(index / 2 ** 32))
    this.#view.setUint32(7, index)
    this.#view.setUint8(11, isLast ? 1 : 0)
    return this.#bytes
  }
}

/** @returns 32 bytes, to be wiped. */
export const derivePayloadKey = (fileKey: Secret, nonce: Uint8Array): Bytes =>
  fileKey.expose((bytes) => hkdf(bytes, nonce, PAYLOAD_INFO, PAYLOAD_KEY_SIZE))

const withPayloadKey = <T>(fileKey: Secret, nonce: Uint8Array, use: (key: Bytes) => T): T => {
  const key = derivePayloadKey(fileKey, nonce)
  try {
    return use(key)
  } finally {
    key.fill(0)
  }
}

/** Of the plaintext of so many bytes of chunks. */
export const openedSize = (chunksSize: number): number =>
  chunksSize - Math.ceil(chunksSize / SEALED_CHUNK_SIZE) * TAG_SIZE

/** Chunks of one payload that follow each other. STREAM has random access: runs open in any order, on any thread. */
export interface ChunkRun {
  /** The index of the first of them. */
  readonly first: number
  /** The last of them is the payload’s last. */
  readonly isEnd: boolean
}

/**
 * Fills `into` with the sealed chunks of a run.
 * @param key - from `derivePayloadKey`. A chunk’s index and place must never seal two plaintexts under one key.
 * @param plaintext - full chunks, but for the payload’s last; may lie in shared memory that nobody writes meanwhile.
 * @param into - TAG_SIZE larger for each chunk; may lie in shared memory.
 */
export const sealChunks = (key: Uint8Array, run: ChunkRun, plaintext: Uint8Array, into: Uint8Array): void => {
  const count = Math.max(1, Math.ceil(plaintext.length / CHUNK_SIZE))
  if (into.length !== plaintext.length + count * TAG_SIZE) throw new RangeError('Size of the output')
  if (!run.isEnd && plaintext.length !== count * CHUNK_SIZE) throw new RangeError('Only the last chunk may be short')
  const nonce = new ChunkNonce()
  for (let index = 0; index < count; index++) {
    const chunk = plaintext.subarray(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)
    const start = index * SEALED_CHUNK_SIZE
    const sealed = into.subarray(start, start + chunk.length + TAG_SIZE)
    sealChaCha(key, nonce.at(run.first + index, run.isEnd && index === count - 1), chunk, sealed)
  }
}

/**
 * Opens the chunks of a run: true, and `into` filled, once every one is verified; else false, and `into` is zeroes. Chunks that
 * a payload cannot have there are refused unopened: a short one that is not the end, an empty one behind others.
 * What opens is authentic at its place, and no more: the payload is whole where a run that is its end opened too.
 * @param key - from `derivePayloadKey`.
 * @param sealed - claimed; may lie in shared memory that nobody writes meanwhile.
 * @param into - TAG_SIZE smaller for each chunk; may lie in shared memory, not in that of `sealed`.
 */
export const openChunks = (key: Uint8Array, run: ChunkRun, sealed: Uint8Array, into: Uint8Array): boolean => {
  const isShaped = isRun(run, sealed)
  if (isShaped && into.length !== openedSize(sealed.length)) throw new RangeError('Size of the output')
  const isOpen =
    isShaped &&
    eachChunk(run, sealed, (nonce, chunk, index) =>
      openChaCha(key, nonce, chunk, into.subarray(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)),
    )
  if (!isOpen) into.fill(0)
  return isOpen
}

/**
 * Opens the chunks of a run as `openChunks` does, into memory of the cipher’s own, which spares whoever writes them a copy.
 * @returns pieces that follow each other, for `wipePieces`; undefined, and nothing left, where not every chunk is verified.
 */
export const openChunkPieces = (key: Uint8Array, run: ChunkRun, sealed: Uint8Array): Uint8Array[] | undefined => {
  if (!isRun(run, sealed)) return undefined
  const pieces: Uint8Array[] = []
  const isOpen = eachChunk(run, sealed, (nonce, chunk) => {
    const plaintext = openChaChaPieces(key, nonce, chunk)
    if (plaintext !== undefined) pieces.push(...plaintext)
    return plaintext !== undefined
  })
  if (isOpen) return pieces
  wipePieces(pieces)
  return undefined
}

/** Whether a payload can have such chunks there. */
const isRun = (run: ChunkRun, sealed: Uint8Array): boolean => {
  const count = Math.ceil(sealed.length / SEALED_CHUNK_SIZE)
  const lastSize = sealed.length - (count - 1) * SEALED_CHUNK_SIZE
  if (count === 0 || lastSize < TAG_SIZE) return false
  return run.isEnd ? lastSize > TAG_SIZE || run.first + count === 1 : lastSize === SEALED_CHUNK_SIZE
}

/** Whether `open` opens every one. */
const eachChunk = (
  { first, isEnd }: ChunkRun,
  sealed: Uint8Array,
  open: (nonce: Uint8Array, chunk: Uint8Array, index: number) => boolean,
): boolean => {
  const nonce = new ChunkNonce()
  for (let offset = 0, index = 0; offset < sealed.length; offset += SEALED_CHUNK_SIZE, index++) {
    const chunk = sealed.subarray(offset, offset + SEALED_CHUNK_SIZE)
    const isLast = isEnd && offset + chunk.length === sealed.length
    if (!open(nonce.at(first + index, isLast), chunk, index)) return false
  }
  return true
}

/** Whether `chunk` is authentic as one that others follow, of whatever size: its payload was cut. */
export const isCutThere = (key: Uint8Array, index: number, chunk: Uint8Array): boolean => {
  const plaintext = allocate(chunk.length - TAG_SIZE)
  try {
    return openChaCha(key, new ChunkNonce().at(index, false), chunk, plaintext)
  } finally {
    plaintext.fill(0)
  }
}

/** Fills `into`, of `payloadSize(plaintext.length)` bytes, with nonce and chunks. */
export const sealPayloadInto = (fileKey: Secret, plaintext: Uint8Array, random: Random, into: Uint8Array): void => {
  const nonce = random.fill(into.subarray(0, PAYLOAD_NONCE_SIZE))
  withPayloadKey(fileKey, nonce, (key) => {
    sealChunks(key, { first: 0, isEnd: true }, plaintext, into.subarray(PAYLOAD_NONCE_SIZE))
  })
}

/** Nonce, then the chunks. */
export const sealPayload = (fileKey: Secret, plaintext: Uint8Array, random: Random): Bytes => {
  const payload = allocate(payloadSize(plaintext.length))
  sealPayloadInto(fileKey, plaintext, random, payload)
  return payload
}

const truncated = (): never => {
  throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
}

/**
 * Opens a whole payload, the last chunk first: only that one tells a whole payload from a cut one. Nothing is returned before
 * every chunk is verified, and what was decrypted until a failure is wiped.
 * @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED, where it can be told; else ERR_PAYLOAD_INVALID.
 */
export const openPayload = (fileKey: Secret, payload: Uint8Array): Bytes => {
  if (payload.length < PAYLOAD_SIZE_MIN) return truncated()
  const chunks = payload.subarray(PAYLOAD_NONCE_SIZE)
  const count = Math.ceil(chunks.length / SEALED_CHUNK_SIZE)
  const last = count - 1
  const [before, lastChunk] = [chunks.subarray(0, last * SEALED_CHUNK_SIZE), chunks.subarray(last * SEALED_CHUNK_SIZE)]
  if (lastChunk.length < TAG_SIZE) return truncated()

  const plaintext = allocate(openedSize(chunks.length))
  const [beforePlaintext, lastPlaintext] = [
    plaintext.subarray(0, last * CHUNK_SIZE),
    plaintext.subarray(last * CHUNK_SIZE),
  ]
  withPayloadKey(fileKey, payload.subarray(0, PAYLOAD_NONCE_SIZE), (key) => {
    if (!openChunks(key, { first: last, isEnd: true }, lastChunk, lastPlaintext)) {
      throw new KeyriseError(isCutThere(key, last, lastChunk) ? 'ERR_PAYLOAD_TRUNCATED' : 'ERR_PAYLOAD_INVALID')
    }
    if (last === 0 || openChunks(key, { first: 0, isEnd: false }, before, beforePlaintext)) return
    lastPlaintext.fill(0)
    throw new KeyriseError('ERR_PAYLOAD_INVALID')
  })
  return plaintext
}

// The digest, in two levels, so that threads hash segments apart: docs/envelope.md §3

export const SEGMENT_DIGEST_SIZE = 32

/** The leaf of one segment. @param sealed - SEALED_SEGMENT_SIZE bytes, in the payload’s last segment fewer. */
export const segmentDigest = (sealed: Uint8Array): Bytes => sha256(...labelled('payload-segment', sealed))

/**
 * An envelope’s digest from that of its segments.
 * @param context - the context’s bytes; none where there is no context.
 * @param leaves - `segmentDigest` of each segment, in order, one behind the other.
 */
export const payloadDigest = (context: Uint8Array, nonce: Uint8Array, leaves: Uint8Array): Bytes =>
  sha256(...labelled('envelope-digest', context, nonce, leaves))
