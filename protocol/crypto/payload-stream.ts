import { ChunkCutter, guarded, type ByteSink } from '../age-stream.js'
import { allocate, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  isCutThere,
  openChunks,
  PAYLOAD_NONCE_SIZE,
  sealChunks,
  SEALED_CHUNK_SIZE,
} from './payload.js'
import { TAG_SIZE } from './primitives.js'
import type { Secret } from './secret.js'

/**
 * The payload in pieces of any size, with memory for one chunk. What may be released: docs/envelope.md §6.
 */

/**
 * Seals what is pushed; `next` gets nonce and chunks.
 * @param fileKey - borrowed until this returns.
 */
export const payloadSealer = (fileKey: Secret, random: Random, next: ByteSink): ByteSink => {
  const nonce = random.fill(allocate(PAYLOAD_NONCE_SIZE))
  const key = derivePayloadKey(fileKey, nonce)
  const held = allocate(CHUNK_SIZE)
  const cutter = new ChunkCutter(held)
  let index = 0

  const pass = (chunk: Uint8Array, isLast: boolean): void => {
    const sealed = allocate(chunk.length + TAG_SIZE)
    sealChunks(key, { first: index++, isEnd: isLast }, chunk, sealed)
    next.push(sealed)
  }
  next.push(nonce)
  return guarded({
    push: (bytes) => cutter.push(bytes, (chunk) => pass(chunk, false)),
    end() {
      pass(cutter.last, true)
      next.end()
    },
    [Symbol.dispose]() {
      key.fill(0)
      held.fill(0)
      next[Symbol.dispose]()
    },
  })
}

/** The chunks of one payload, in their order, each released in a buffer of its own once it is verified. */
class ChunkOpener {
  readonly #key: Bytes
  readonly #release: (plaintext: Bytes) => void
  #index = 0

  /** @param key - the opener’s from now on. */
  constructor(key: Bytes, release: (plaintext: Bytes) => void) {
    this.#key = key
    this.#release = release
  }

  /** A chunk that others follow. @throws {KeyriseError} ERR_PAYLOAD_INVALID. */
  readonly openFull = (chunk: Uint8Array): void => {
    if (this.#open(chunk, false)) return
    // Where its sender made it the last one, it counts, and what follows it does not.
    this.#open(chunk, true)
    throw new KeyriseError('ERR_PAYLOAD_INVALID')
  }

  /** The chunk before the end. @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED, where it can be told; else ERR_PAYLOAD_INVALID. */
  openLast(chunk: Uint8Array): void {
    if (chunk.length < TAG_SIZE) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
    if (this.#open(chunk, true)) return
    // A full chunk that others followed counts; a short one that its sender did not make the last is no chunk at all.
    const isCut = this.#open(chunk, false) || isCutThere(this.#key, this.#index, chunk)
    throw new KeyriseError(isCut ? 'ERR_PAYLOAD_TRUNCATED' : 'ERR_PAYLOAD_INVALID')
  }

  dispose(): void {
    this.#key.fill(0)
  }

  /** True, and released, where the chunk is authentic. */
  #open(chunk: Uint8Array, isEnd: boolean): boolean {
    const plaintext = allocate(chunk.length - TAG_SIZE)
    if (!openChunks(this.#key, { first: this.#index, isEnd }, chunk, plaintext)) return false
    this.#index++
    if (plaintext.length > 0) this.#release(plaintext)
    return true
  }
}

/**
 * Opens what is pushed, nonce first. `next` gets the plaintext of each chunk once that chunk is verified, and its end only once
 * the last one was: what it has until then is authentic, and a beginning.
 * @param fileKey - borrowed until this returns.
 * @throws {KeyriseError} ERR_PAYLOAD_INVALID, ERR_PAYLOAD_TRUNCATED, from `push` and `end`.
 */
export const payloadOpener = (fileKey: Secret, next: ByteSink): ByteSink => {
  const heldKey = fileKey.clone()
  const nonce = allocate(PAYLOAD_NONCE_SIZE)
  let nonceSize = 0
  const cutter = new ChunkCutter(allocate(SEALED_CHUNK_SIZE))
  let chunks: ChunkOpener | undefined

  return guarded({
    push(bytes) {
      let rest = bytes
      if (chunks === undefined) {
        const taken = bytes.subarray(0, PAYLOAD_NONCE_SIZE - nonceSize)
        nonce.set(taken, nonceSize)
        nonceSize += taken.length
        if (nonceSize < PAYLOAD_NONCE_SIZE) return
        chunks = new ChunkOpener(derivePayloadKey(heldKey, nonce), (plaintext) => next.push(plaintext))
        rest = bytes.subarray(taken.length)
      }
      cutter.push(rest, chunks.openFull)
    },
    end() {
      if (chunks === undefined) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
      chunks.openLast(cutter.last)
      next.end()
    },
    [Symbol.dispose]() {
      heldKey[Symbol.dispose]()
      chunks?.dispose()
      next[Symbol.dispose]()
    },
  })
}
