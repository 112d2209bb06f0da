import { toHex } from '../protocol/bytes.js'
import type { Clock } from '../protocol/ports.js'

interface Row<T> {
  readonly value: T
  readonly usedMs: number
}

/** At most `countMax` values under ids of bytes, each kept while it is used; the one unused for longest makes room. */
export class ExpiringTable<T> {
  readonly #rows = new Map<string, Row<T>>()
  readonly #options: {
    readonly countMax: number
    readonly idleMsMax: number
    readonly clock: Clock
    readonly drop: (value: T) => void
  }

  /** @param options.drop - called with each value that leaves unasked: it ends there. */
  constructor(options: { countMax: number; idleMsMax: number; clock: Clock; drop: (value: T) => void }) {
    this.#options = options
  }

  put(id: Uint8Array, value: T): void {
    this.#dropExpired()
    if (this.#rows.size >= this.#options.countMax) this.dropOldest()
    this.#rows.set(toHex(id), { value, usedMs: this.#options.clock.nowMs() })
  }

  /** The value, which is in use from now. */
  use(id: Uint8Array): T | undefined {
    const value = this.take(id)
    if (value !== undefined) this.#rows.set(toHex(id), { value, usedMs: this.#options.clock.nowMs() })
    return value
  }

  /** The value, which leaves the table. */
  take(id: Uint8Array): T | undefined {
    this.#dropExpired()
    const key = toHex(id)
    const row = this.#rows.get(key)
    this.#rows.delete(key)
    return row?.value
  }

  /** Drops the value; fine where there is none. */
  end(id: Uint8Array): void {
    this.#drop(toHex(id))
  }

  /** All of them, the one unused for longest first. */
  values(): T[] {
    return [...this.#rows.values()].map(({ value }) => value)
  }

  /** False where there is none but the newest: that one stays. */
  dropOldest(): boolean {
    const [oldest] = this.#rows.keys()
    if (oldest === undefined || this.#rows.size === 1) return false
    this.#drop(oldest)
    return true
  }

  dropWhere(isDropped: (value: T) => boolean): void {
    for (const [key, { value }] of [...this.#rows]) if (isDropped(value)) this.#drop(key)
  }

  clear(): void {
    for (const key of [...this.#rows.keys()]) this.#drop(key)
  }

  /** Rows stand in the order of their use, so that the expired ones come first. */
  #dropExpired(): void {
    const usedSinceMs = this.#options.clock.nowMs() - this.#options.idleMsMax
    for (const [key, { usedMs }] of this.#rows) {
      if (usedMs >= usedSinceMs) return
      this.#drop(key)
    }
  }

  #drop(key: string): void {
    const row = this.#rows.get(key)
    this.#rows.delete(key)
    if (row !== undefined) this.#options.drop(row.value)
  }
}
