import { workerData } from 'piscina'
import type { Reference } from '../faults/crash-check.js'
import { StateChecker, type CheckerOptions, type StateResult } from '../faults/state-checker.js'
import type { CrashState } from '../faults/trace.js'
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

/** Recovers a batch of crash states. */
export default async (states: readonly CrashState[]): Promise<StateResult[]> => {
  const results = await checker.check(states)
  // What recoveries that were cut short held: nothing else lives in this thread.
  disposeAll()
  return results
}
