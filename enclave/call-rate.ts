import { KeyriseError } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'

/**
 * A token bucket: so many calls a second on average, and as many at once. It bounds what an enclave's code asks of its host; as a
 * defence against the host it is worth what the clock is worth, which the host can move.
 */
export class CallRate {
  readonly #perSecondMax: number
  readonly #clock: Clock
  #tokens: number
  #refilledMs: number

  constructor(perSecondMax: number, clock: Clock) {
    this.#perSecondMax = perSecondMax
    this.#clock = clock
    this.#tokens = perSecondMax
    this.#refilledMs = clock.nowMs()
  }

  /** Counts a call. @throws {KeyriseError} ERR_RATE_LIMIT. */
  take(): void {
    const nowMs = this.#clock.nowMs()
    // A clock that jumps back gives nothing, and one that jumps ahead fills the bucket, no more.
    const elapsedMs = Math.max(0, nowMs - this.#refilledMs)
    this.#refilledMs = nowMs
    this.#tokens = Math.min(this.#perSecondMax, this.#tokens + (elapsedMs * this.#perSecondMax) / 1000)
    if (this.#tokens < 1) throw new KeyriseError('ERR_RATE_LIMIT')
    this.#tokens--
  }
}
