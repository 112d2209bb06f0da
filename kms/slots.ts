import { KeyriseError } from '../protocol/errors.js'
import { makeSlot, slotAreas } from './reseal.js'

/** A fixed number of slots, made when they are first needed; who finds none waits, and not too many may. */
export class Slots {
  readonly #free: SharedArrayBuffer[] = []
  readonly #waiting: ((slot: SharedArrayBuffer) => void)[] = []
  readonly #waitingCountMax: number
  #unmadeCount: number

  constructor(options: { readonly count: number; readonly waitingCountMax: number }) {
    this.#unmadeCount = options.count
    this.#waitingCountMax = options.waitingCountMax
  }

  /** @throws {KeyriseError} ERR_CALLS_LIMIT: too many wait already. */
  take(): Promise<SharedArrayBuffer> {
    const slot = this.#free.pop()
    if (slot !== undefined) return Promise.resolve(slot)
    if (this.#unmadeCount > 0) {
      this.#unmadeCount--
      return Promise.resolve(makeSlot())
    }
    if (this.#waiting.length >= this.#waitingCountMax) return Promise.reject(new KeyriseError('ERR_CALLS_LIMIT'))
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /**
   * Zero-fills the slot’s keys and hands it on.
   * @param isSound - false where a thread may still be at work in it: then it is never used again, and another takes its place.
   */
  give(slot: SharedArrayBuffer, isSound: boolean): void {
    slotAreas(slot).keys.fill(0)
    const next = isSound ? slot : makeSlot()
    const taker = this.#waiting.shift()
    if (taker === undefined) this.#free.push(next)
    else taker(next)
  }
}
