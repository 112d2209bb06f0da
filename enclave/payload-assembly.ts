import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { openDelivery, segmentAt, segmentCount } from '../protocol/crypto/delivery.js'
import {
  payloadDigest,
  PAYLOAD_NONCE_SIZE,
  SEALED_SEGMENT_SIZE,
  SEGMENT_DIGEST_SIZE,
  SEGMENT_SIZE,
} from '../protocol/crypto/payload.js'
import type { Secret } from '../protocol/crypto/secret.js'

/** A payload that arrives in segments, in any order. Nothing of it can be taken before all of it is verified. */
export class PayloadAssembly implements Disposable {
  readonly segmentCount: number
  readonly #sizeBytes: number
  readonly #leaves: Bytes
  readonly #arrived = new Set<number>()
  /** Made when the first segment arrives: what is only planned takes no memory. */
  #plaintext: Bytes | undefined

  /** @param sizeBytes - of the plaintext. */
  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    this.segmentCount = segmentCount(sizeBytes)
    this.#leaves = allocate(this.segmentCount * SEGMENT_DIGEST_SIZE)
  }

  get isWhole(): boolean {
    return this.#arrived.size === this.segmentCount
  }

  /** Where segment `index` stands in the stored payload. */
  placeOf(index: number): { readonly offset: number; readonly sizeBytes: number } {
    const { sealedSizeBytes } = segmentAt(this.#sizeBytes, index)
    return { offset: PAYLOAD_NONCE_SIZE + index * SEALED_SEGMENT_SIZE, sizeBytes: sealedSizeBytes }
  }

  /**
   * Opens segment `index`, as delivered under `key`, into its place.
   * @returns false, and nothing of it is kept, where it is not that segment under that key.
   */
  add(index: number, key: Secret, claimed: Uint8Array): boolean {
    const segment = segmentAt(this.#sizeBytes, index)
    const plaintext = (this.#plaintext ??= allocate(this.#sizeBytes))
    const start = index * SEGMENT_SIZE
    const into = plaintext.subarray(start, start + segment.sizeBytes)
    const leaf = key.expose((bytes) => openDelivery(bytes, segment, claimed, into))
    if (leaf === undefined) return false
    this.#leaves.set(leaf, index * SEGMENT_DIGEST_SIZE)
    this.#arrived.add(index)
    return true
  }

  /**
   * The whole plaintext, once: the caller’s from then on.
   * @param context - the body of the context stanza.
   * @param nonce - the payload’s.
   * @param digest - what the epoch lists.
   * @returns undefined where it is not whole, or not that; then it is zero-filled.
   */
  take(context: Uint8Array, nonce: Uint8Array, digest: Uint8Array): Bytes | undefined {
    const plaintext = this.#plaintext
    // The leaf of a segment that is missing is zeroes, and no digest.
    if (!equalPublicBytes(payloadDigest(context, nonce, this.#leaves), digest)) {
      this[Symbol.dispose]()
      return undefined
    }
    this.#plaintext = undefined
    this.#arrived.clear()
    return plaintext
  }

  /** Zero-fills what has arrived. Safe to repeat. */
  [Symbol.dispose](): void {
    this.#plaintext?.fill(0)
    this.#plaintext = undefined
    this.#arrived.clear()
  }
}
