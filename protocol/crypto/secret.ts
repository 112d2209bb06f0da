import { allocate, copyBytes, type Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import { equalSecret } from './primitives.js'

const PRINTED = '[secret]'

/**
 * Bytes that nobody may keep, print or copy unnoticed. They live in one buffer of their own outside the V8 heap and are
 * zero-filled on disposal; `expose` is the only way to them, so that a search for it finds every use.
 */
export class Secret implements Disposable {
  #bytes: Bytes | undefined

  private constructor(bytes: Bytes) {
    this.#bytes = bytes
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

  /** A copy with a life of its own. */
  clone(): Secret {
    return new Secret(copyBytes(this.#live()))
  }

  /** Zero-fills the bytes. Safe to repeat. */
  [Symbol.dispose](): void {
    this.#bytes?.fill(0)
    this.#bytes = undefined
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
