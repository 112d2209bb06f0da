import type { Clock } from '../protocol/ports.js'

/** Messages and file operations that follow from a timer take a few turns of the event loop. */
const TURN_COUNT = 16

interface Timer {
  readonly dueMs: number
  readonly elapsed: () => void
}

/** A clock that moves only when told to. */
export class SimulatedClock implements Clock {
  readonly #timers = new Set<Timer>()
  /** Time by which timers run: it never jumps. */
  #steadyMs = 0
  #wallMs: number

  constructor(startMs = 0) {
    this.#wallMs = startMs
  }

  nowMs(): number {
    return this.#wallMs
  }

  timer(delayMs: number, elapsed: () => void): Disposable {
    const timer: Timer = { dueMs: this.#steadyMs + delayMs, elapsed }
    this.#timers.add(timer)
    return { [Symbol.dispose]: () => this.#timers.delete(timer) }
  }

  /** In how many milliseconds each timer is due, soonest first. */
  get pendingMs(): number[] {
    return [...this.#timers].map(({ dueMs }) => dueMs - this.#steadyMs).sort((a, b) => a - b)
  }

  /** Sets the clock on the wall, as an operator or a time server does; no timer runs. */
  jump(byMs: number): void {
    this.#wallMs += byMs
  }

  /** Lets time pass, and the timers run in order, each with the work that follows from it. */
  async advance(byMs: number): Promise<void> {
    const endMs = this.#steadyMs + byMs
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#pass(next.dueMs)
      this.#timers.delete(next)
      next.elapsed()
      for (let turn = 0; turn < TURN_COUNT; turn++) await new Promise((resolve) => setImmediate(resolve))
    }
    this.#pass(endMs)
  }

  #pass(untilMs: number): void {
    this.#wallMs += untilMs - this.#steadyMs
    this.#steadyMs = untilMs
  }

  #next(endMs: number): Timer | undefined {
    return [...this.#timers].filter(({ dueMs }) => dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs)[0]
  }
}
