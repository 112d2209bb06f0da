import { allocate, asciiBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import { hkdf, openChaCha, sealChaCha, TAG_SIZE } from './primitives.js'
import type { Secret } from './secret.js'

/** The payload: C2SP age, "Payload". A nonce, then the STREAM of chunks, of which only the last may be short. */

export const CHUNK_SIZE = 64 * 1024
export const SEALED_CHUNK_SIZE = CHUNK_SIZE + TAG_SIZE
export const PAYLOAD_NONCE_SIZE = 16
const PAYLOAD_KEY_SIZE = 32
const PAYLOAD_INFO = asciiBytes('payload')
export const PAYLOAD_SIZE_MIN = PAYLOAD_NONCE_SIZE + TAG_SIZE

/** An empty payload has one empty chunk. */
export const payloadSize = (plaintextSize: number): number =>
  PAYLOAD_NONCE_SIZE + plaintextSize + TAG_SIZE * Math.max(1, Math.ceil(plaintextSize / CHUNK_SIZE))

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

/** @returns to be wiped. */
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

/** Fills `into`, of `payloadSize(plaintext.length)` bytes, with nonce and chunks. */
export const sealPayloadInto = (fileKey: Secret, plaintext: Uint8Array, random: Random, into: Uint8Array): void => {
  const nonce = random.fill(into.subarray(0, PAYLOAD_NONCE_SIZE))
  const chunks = into.subarray(PAYLOAD_NONCE_SIZE)
  const chunkNonce = new ChunkNonce()
  const count = Math.max(1, Math.ceil(plaintext.length / CHUNK_SIZE))
  withPayloadKey(fileKey, nonce, (key) => {
    for (let index = 0; index < count; index++) {
      const chunk = plaintext.subarray(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE)
      const start = index * SEALED_CHUNK_SIZE
      sealChaCha(
        key,
        chunkNonce.at(index, index === count - 1),
        chunk,
        chunks.subarray(start, start + chunk.length + TAG_SIZE),
      )
    }
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
  const lastSize = chunks.length - (count - 1) * SEALED_CHUNK_SIZE
  if (lastSize < TAG_SIZE) return truncated()
  // Only the one chunk of an empty payload may be empty.
  if (lastSize === TAG_SIZE && count > 1) throw new KeyriseError('ERR_PAYLOAD_INVALID')

  const plaintext = allocate(chunks.length - count * TAG_SIZE)
  const chunkNonce = new ChunkNonce()
  const open = (key: Bytes, index: number, isLast: boolean): boolean => {
    const sealed = chunks.subarray(index * SEALED_CHUNK_SIZE, (index + 1) * SEALED_CHUNK_SIZE)
    return openChaCha(
      key,
      chunkNonce.at(index, isLast),
      sealed,
      plaintext.subarray(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE),
    )
  }
  let verified = false
  try {
    withPayloadKey(fileKey, payload.subarray(0, PAYLOAD_NONCE_SIZE), (key) => {
      const last = count - 1
      if (!open(key, last, true)) {
        if (open(key, last, false)) truncated()
        throw new KeyriseError('ERR_PAYLOAD_INVALID')
      }
      for (let index = 0; index < last; index++) {
        if (!open(key, index, false)) throw new KeyriseError('ERR_PAYLOAD_INVALID')
      }
    })
    verified = true
    return plaintext
  } finally {
    if (!verified) plaintext.fill(0)
  }
}
