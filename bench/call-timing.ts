import { median } from './statistics.js'

/** How calls are timed, for ours and for every peer alike. */

/** One call after another for `sliceMs`, and a few at least. @returns the median, in µs. */
export const microsecondsAlone = async (call: () => Promise<unknown>, sliceMs: number): Promise<number> => {
  const took: number[] = []
  const endMs = performance.now() + sliceMs
  for (let startMs = performance.now(); startMs < endMs || took.length < FEW;) {
    await call()
    const nowMs = performance.now()
    took.push(nowMs - startMs)
    startMs = nowMs
  }
  return median(took) * 1000
}

const FEW = 3

/** As `microsecondsAlone`, of calls that block this thread. */
export const microsecondsBlocking = (call: () => unknown, sliceMs: number): number => {
  const took: number[] = []
  const endMs = performance.now() + sliceMs
  for (let startMs = performance.now(); startMs < endMs || took.length < FEW;) {
    call()
    const nowMs = performance.now()
    took.push(nowMs - startMs)
    startMs = nowMs
  }
  return median(took) * 1000
}

/** Keeps `inFlight` calls in flight for `sliceMs`: each that is answered makes the next. @returns how many a second. */
export const callsPerSecond = async (
  call: () => Promise<unknown>,
  inFlight: number,
  sliceMs: number,
): Promise<number> => {
  let count = 0
  const startMs = performance.now()
  const endMs = startMs + sliceMs
  const keepCalling = async (): Promise<void> => {
    do {
      await call()
      count++
    } while (performance.now() < endMs)
  }
  await Promise.all(Array.from({ length: inFlight }, keepCalling))
  return count / ((performance.now() - startMs) / 1000)
}
