import { Piscina } from 'piscina'
import type { Reference } from '../faults/crash-check.js'
import type { Checkers, CheckerOptions, JobResult } from '../faults/state-checker.js'
import type { SweepWorkerData } from './sweep-worker.js'

/** Several threads that recover crash states of one recorded run. */
export const startCheckers = (
  path: string,
  threadCount: number,
  reference: Reference,
  options: CheckerOptions,
): Checkers => {
  const pool = new Piscina({
    filename: new URL('./sweep-worker.js', import.meta.url).href,
    minThreads: threadCount,
    maxThreads: threadCount,
    workerData: { path, reference, options } satisfies SweepWorkerData,
  })
  return {
    // One more batch than threads, so that none waits for the next.
    count: threadCount + 1,
    check: (jobs) => pool.run(jobs) as Promise<JobResult[]>,
    [Symbol.asyncDispose]: () => pool.destroy(),
  }
}
