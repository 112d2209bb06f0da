import { copyBytes, type Bytes } from '../protocol/bytes.js'
import type { Secret } from '../protocol/crypto/secret.js'

interface Held {
  readonly plaintext: Secret
  /** Where entries' offsets count from. */
  readonly dataOffset: number
}

/**
 * Opened objects, so that reading 10,000 entries of one epoch opens it once. Bounded: the least recently used are zero-filled
 * when it is full; the newest stays whatever its size.
 */
export class ObjectCache implements Disposable {
  readonly #sizeBytesMax: number
  /** In order of use, oldest first. */
  readonly #held = new Map<string, Held>()
  #sizeBytes = 0
  #isDisposed = false

  constructor(sizeBytesMax: number) {
    this.#sizeBytesMax = sizeBytesMax
  }

  has(name: string): boolean {
    return this.#held.has(name)
  }

  /** A copy of a part of the object's data; undefined when the object isn't held. @throws RangeError: no such part. */
  read(name: string, offset: number, sizeBytes: number): Bytes | undefined {
    const held = this.#held.get(name)
    if (held === undefined) return undefined
    this.#held.delete(name)
    this.#held.set(name, held)
    const start = held.dataOffset + offset
    return held.plaintext.expose((bytes) => {
      if (start + sizeBytes > bytes.length) throw new RangeError('An entry lies outside its object')
      return copyBytes(bytes.subarray(start, start + sizeBytes))
    })
  }

  /** Takes `plaintext` over; a cache that was disposed of meanwhile keeps nothing. */
  hold(name: string, plaintext: Secret, dataOffset: number): void {
    if (this.#isDisposed) {
      plaintext[Symbol.dispose]()
      return
    }
    this.forget(name)
    this.#held.set(name, { plaintext, dataOffset })
    this.#sizeBytes += plaintext.size
    for (const oldest of this.#held.keys()) {
      if (this.#sizeBytes <= this.#sizeBytesMax || oldest === name) break
      this.forget(oldest)
    }
  }

  forget(name: string): void {
    const held = this.#held.get(name)
    if (held === undefined) return
    this.#held.delete(name)
    this.#sizeBytes -= held.plaintext.size
    held.plaintext[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true
    for (const name of [...this.#held.keys()]) this.forget(name)
  }
}
