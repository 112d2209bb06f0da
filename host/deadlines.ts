import type { Clock } from '../protocol/ports.js'

/**
 * Deadlines of many calls with few timers: those that begin in the same turn of the event loop, with the same delay, share
 * one. It is cancelled when all of them are settled.
 */
export class Deadlines {
  readonly #clock: Clock
  readonly #elapsed: (id: number) => void
  readonly #open = new Map<number, Deadline>()

  /** @param elapsed - called for each id whose deadline passed before it settled, and perhaps for some that did settle. */
  constructor(clock: Clock, elapsed: (id: number) => void) {
    this.#clock = clock
    this.#elapsed = elapsed
  }

  /** `delayMs` from now, for the call `id`. Say `settled()` when it is. */
  start(id: number, delayMs: number): Deadline {
    let deadline = this.#open.get(delayMs)
    if (deadline === undefined) {
      deadline = new Deadline(this.#clock, delayMs, this.#elapsed)
      this.#open.set(delayMs, deadline)
      queueMicrotask(() => this.#open.delete(delayMs))
    }
    deadline.add(id)
    return deadline
  }
}

export class Deadline {
  readonly #timer: Disposable
  readonly #ids: number[] = []
  #openCount = 0

  constructor(clock: Clock, delayMs: number, elapsed: (id: number) => void) {
    this.#timer = clock.timer(delayMs, () => this.#ids.forEach((id) => elapsed(id)))
  }

  add(id: number): void {
    this.#ids.push(id)
    this.#openCount++
  }

  settled(): void {
    if (--this.#openCount === 0) this.#timer[Symbol.dispose]()
  }
}
