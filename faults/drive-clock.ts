import { pendingCryptoCount } from './pending-crypto.js'
import type { SimulatedClock } from './simulated-clock.js'

/** Nothing is left that could happen, and a promise has not settled. */
export class Stuck extends Error {
  constructor() {
    super('a promise that never settles')
  }
}

/** Messages that follow from one another take a turn of the event loop each. */
const REST_TURN_COUNT = 24

/** An operation takes a turn of the event loop, so that those of several flows, or of one checkpoint, overlap. */
export const oneTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export interface DriveOptions {
  readonly clock: SimulatedClock
  /** How many operations and messages there were: where it grows, not all has come to rest. */
  readonly eventCount: () => number
  /** Of the clock; for ever unless told. */
  readonly patienceMs?: number | undefined
}

/**
 * Waits for `work`, and moves the clock to its next timer whenever all has come to rest.
 * @throws what `work` rejects with; Stuck where nothing is left that could settle it, or the patience is over.
 */
export const driveClock = async <T>(
  work: Promise<T>,
  { clock, eventCount, patienceMs = Infinity }: DriveOptions,
): Promise<T> => {
  let passedMs = 0
  const state = { isSettled: false }
  const settled = (): void => void (state.isSettled = true)
  work.then(settled, settled)
  for (let restedCount = 0, countBefore = 0; !state.isSettled;) {
    await oneTurn()
    const isBusy = pendingCryptoCount() > 0 || countBefore !== eventCount()
    countBefore = eventCount()
    restedCount = isBusy ? 0 : restedCount + 1
    if (restedCount <= REST_TURN_COUNT) continue
    const [nextMs] = clock.pendingMs
    if (nextMs === undefined || (passedMs += nextMs) > patienceMs) throw new Stuck()
    await clock.advance(nextMs)
    restedCount = 0
  }
  return work
}
