import { checkRecovery, describe, type Reference } from './crash-check.js'
import type { Scenario } from './scenario.js'
import { watchFor, type CrashPlace, type FoundViolation } from './state-checker.js'
import { disksOf, type TracePoint } from './trace.js'
import type { Machine } from './simulated-world.js'

/** One violation made smaller, and run again. */

interface Attempt {
  readonly what: string
  readonly crashes: readonly CrashPlace[]
}

/**
 * Crashes a recorded run at the given places, one after the other, and recovers.
 * @returns what is wrong; undefined where nothing is, or where a place is not among the operations.
 */
export const replay = async (
  scenario: Scenario,
  reference: Reference,
  [first, ...others]: readonly CrashPlace[],
): Promise<string | undefined> => {
  if (first === undefined) return undefined
  const common = { scenario, reference, leaks: watchFor(scenario) }
  let points: readonly TracePoint[] = reference.points
  let place = first
  for (const next of [...others, undefined]) {
    const point = points.findIndex(({ name }) => name === place.at)
    const progress = points[point]?.progress
    if (progress === undefined) return undefined
    const disks = disksOf(points, { ...place, point })
    const isLast = next === undefined
    try {
      points = (await checkRecovery({ ...common, disks, progress, isThorough: isLast, isRecorded: !isLast })).points
    } catch (error) {
      return describe(error)
    }
    if (next !== undefined) place = next
  }
  return undefined
}

/** The same violation with as few unsynced changes kept as will do. */
export const shrink = async (
  scenario: Scenario,
  reference: Reference,
  violation: FoundViolation,
): Promise<FoundViolation> => {
  let smallest: Attempt = violation
  for (const [index, place] of violation.crashes.entries()) {
    for (const machine of ['host', 'kms'] as const) {
      for (const change of place.kept[machine]) {
        const crashes = smallest.crashes.map((each, at) => (at === index ? without(each, machine, change) : each))
        const what = await replay(scenario, reference, crashes)
        if (what !== undefined) smallest = { what, crashes }
      }
    }
  }
  return smallest
}

const without = (place: CrashPlace, machine: Machine, change: number): CrashPlace => ({
  ...place,
  kept: { ...place.kept, [machine]: place.kept[machine].filter((kept) => kept !== change) },
})
