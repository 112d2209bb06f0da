import type { Clock } from '../protocol/ports.js'

/** The operating system's clock. */
export const nodeClock: Clock = {
  nowMs: () => Date.now(),
  timer(delayMs, elapsed) {
    const timeout = setTimeout(elapsed, delayMs)
    return {
      [Symbol.dispose]: () => {
        clearTimeout(timeout)
      },
    }
  },
}
