import { allocate, copyBytes, type Bytes } from '../bytes.js'
import { dismiss, enlist, type Place } from '../live-secrets.js'
import type { Random } from '../ports.js'
import { equalSecret, expand, extract } from './primitives.js'

const PRINTED = '[secret]'
const NO_SALT = allocate(0)

/**
 * Bytes that nobody may keep, print or copy unnoticed. They live in one buffer of their own outside the V8 heap and are
 * zero-filled on disposal, at the latest by `disposeAll`; `expose` is the only way to them, so that a search for it finds every
 * use.
 */
export class Secret implements Disposable {
  #bytes: Bytes | undefined
  #pseudorandomKey: Bytes | undefined
  readonly #place: Place

  private constructor(bytes: Bytes) {
    this.#bytes = bytes
    this.#place = enlist(this)
  }

  static random(size: number, random: Random): Secret {
    return new Secret(random.fill(allocate(size)))
  }

  /** Moves `bytes` into a secret: copied out, then zero-filled where they were. */
  static take(bytes: Uint8Array): Secret {
    const secret = new Secret(copyBytes(bytes))
    bytes.fill(0)
    return secret
  }

  /** Takes over `bytes`, which fill a buffer that nobody else has kept. @throws {TypeError} where they are a part of one. */
  static own(bytes: Bytes): Secret {
    if (bytes.length !== bytes.buffer.byteLength) throw new TypeError('A secret has a buffer of its own')
    return new Secret(bytes)
  }

  get size(): number {
    return this.#live().length
  }

  /** Lends the bytes to `use`, which must not keep them: they are zero-filled when the secret is disposed of. */
  expose<T>(use: (bytes: Bytes) => T): T {
    return use(this.#live())
  }

  /** In constant time for secrets of one size; sizes are public. */
  equals(other: Secret): boolean {
    return equalSecret(this.#live(), other.#live())
  }

  /**
   * HKDF-SHA256 of these bytes without salt (RFC 5869 §2), `size` bytes. What is extracted is kept until disposal: a header takes
   * two keys from one.
   */
  derive(info: Uint8Array, size: number): Bytes {
    this.#pseudorandomKey ??= extract(this.#live(), NO_SALT)
    return expand(this.#pseudorandomKey, info, size)
  }

  /** A copy with a life of its own. */
  clone(): Secret {
    return new Secret(copyBytes(this.#live()))
  }

  /** Zero-fills the bytes. Safe to repeat. */
  [Symbol.dispose](): void {
    if (this.#bytes === undefined) return
    dismiss(this.#place)
    for (const bytes of [this.#bytes, this.#pseudorandomKey]) bytes?.fill(0)
    this.#bytes = this.#pseudorandomKey = undefined
  }

  toString(): string {
    return PRINTED
  }

  toJSON(): string {
    return PRINTED
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return PRINTED
  }

  #live(): Bytes {
    if (this.#bytes === undefined) throw new Error('A secret was used after it was disposed of')
    return this.#bytes
  }
}
