import type { Clock } from '../protocol/ports.js'
import type { ConsoleState } from './console/state.js'

/** How long a page waits for news before it is told that there are none, and asks again. */
const WAIT_MS = 20_000
/** What changes within this time is one change to those that wait. */
const GATHER_MS = 250
/** Pages that wait at once; another is answered at once. */
const WAITING_COUNT_MAX = 64

/** A state without what the feed adds. */
export type ConsoleView = Omit<ConsoleState, 'version' | 'nowMs'>

/** Tells the console's pages what the KMS is like, each time that it has changed. */
export class ConsoleFeed implements Disposable {
  readonly #read: () => ConsoleView
  readonly #clock: Clock
  readonly #waiting = new Set<() => void>()
  #version = 1
  #gathering: Disposable | undefined

  constructor(read: () => ConsoleView, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** Something that `read` tells is another than before. */
  changed(): void {
    this.#version++
    if (this.#waiting.size === 0) return
    this.#gathering ??= this.#clock.timer(GATHER_MS, () => {
      this.#gathering = undefined
      this.#release()
    })
  }

  /** The state, as soon as it is newer than `version`, or when nothing has changed for a while. */
  async after(version: number): Promise<ConsoleState> {
    if (version === this.#version && this.#waiting.size < WAITING_COUNT_MAX) await this.#news()
    return { ...this.#read(), version: this.#version, nowMs: this.#clock.nowMs() }
  }

  /** Answers those that wait. */
  [Symbol.dispose](): void {
    this.#gathering?.[Symbol.dispose]()
    this.#release()
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        timer[Symbol.dispose]()
        this.#waiting.delete(settle)
        resolve()
      }
      const timer = this.#clock.timer(WAIT_MS, settle)
      this.#waiting.add(settle)
    })
  }

  #release(): void {
    for (const settle of this.#waiting) settle()
  }
}
