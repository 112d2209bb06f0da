import { workerData } from 'piscina'
import type { Reference } from '../faults/crash-check.js'
import { StateChecker, type CheckerOptions, type Job, type JobResult } from '../faults/state-checker.js'
import { disposeAll } from '../protocol/live-secrets.js'
import { loadScenario } from './sweep-scenario.js'

export interface SweepWorkerData {
  /** The scenario’s file. */
  readonly path: string
  readonly reference: Reference
  readonly options: CheckerOptions
}

const data = workerData as SweepWorkerData
const checker = new StateChecker(await loadScenario(data.path), data.reference, data.options)

/** Does a batch of jobs. */
export default async (jobs: readonly Job[]): Promise<JobResult[]> => {
  const results = await checker.check(jobs)
  // What recoveries that were cut short held: nothing else lives in this thread.
  disposeAll()
  return results
}
