import type { ErrorCode } from './errors.js'
import { KeyriseError } from './errors.js'
import { copyBytes, type Bytes } from './bytes.js'

/**
 * Checks of decoded values from the untrusted side. Each throws the code that its reader was made with, and names the
 * field (public), never the value.
 */
export class FieldReader {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #code: ErrorCode

  /** @param claimed - must be a plain object whose keys are all in `keys`. */
  constructor(claimed: unknown, keys: readonly string[], code: ErrorCode) {
    this.#code = code
    if (typeof claimed !== 'object' || claimed === null || Array.isArray(claimed) || claimed instanceof Uint8Array)
      throw new KeyriseError(code)
    for (const key of Object.keys(claimed))
      if (!keys.includes(key)) throw new KeyriseError(code, { detail: 'an unknown field' })
    this.#fields = claimed as Readonly<Record<string, unknown>>
  }

  /** Throws the reader’s code for a check of the caller’s own. */
  refuse(field: string): never {
    throw new KeyriseError(this.#code, { detail: field })
  }

  #get(field: string): unknown {
    return Object.hasOwn(this.#fields, field) ? this.#fields[field] : undefined
  }

  has(field: string): boolean {
    return this.#get(field) !== undefined && this.#get(field) !== null
  }

  text(field: string, lengthMax: number): string {
    const value = this.#get(field)
    return typeof value === 'string' && value.length <= lengthMax ? value : this.refuse(field)
  }

  /** A whole number from `min` to `max`. */
  count(field: string, max = Number.MAX_SAFE_INTEGER, min = 0): number {
    const value = this.#get(field)
    return Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max
      ? (value as number)
      : this.refuse(field)
  }

  flag(field: string): boolean {
    const value = this.#get(field)
    return typeof value === 'boolean' ? value : this.refuse(field)
  }

  /** A copy, `sizeMin` to `sizeMax` bytes; exactly `sizeMin` where no maximum is given. */
  bytes(field: string, sizeMin: number, sizeMax = sizeMin): Bytes {
    const value = this.#get(field)
    return value instanceof Uint8Array && value.length >= sizeMin && value.length <= sizeMax
      ? copyBytes(value)
      : this.refuse(field)
  }

  list<T>(field: string, countMax: number, read: (claimed: unknown) => T): T[] {
    const value = this.#get(field)
    return Array.isArray(value) && value.length <= countMax
      ? value.map((item: unknown) => read(item))
      : this.refuse(field)
  }

  /** The raw value, for a reader of its own. */
  claimed(field: string): unknown {
    return this.#get(field)
  }
}
