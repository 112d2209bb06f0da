import { checkRecovery, describe, type Reference } from './crash-check.js'
import type { Scenario } from './scenario.js'
import { tryTrouble, watchFor, type CrashPlace, type FoundViolation, type Trouble } from './state-checker.js'
import { disksOf, type FlowProgress, type TracePoint } from './trace.js'
import type { Machine } from './simulated-world.js'

/** One violation made smaller, and run again. */

/** Makes the same trouble again. @returns what is wrong; undefined where nothing is. */
export const replay = async (
  scenario: Scenario,
  reference: Reference,
  trouble: Trouble,
): Promise<string | undefined> => {
  if ('crashes' in trouble) return crashAgain(scenario, reference, trouble.crashes)
  try {
    await tryTrouble({ scenario, reference, leaks: watchFor(scenario, reference.keys) }, trouble)
    return undefined
  } catch (error) {
    return describe(error)
  }
}

/**
 * Crashes a recorded run at the given places, one after the other, and recovers.
 * @returns what is wrong; undefined where nothing is, or where a place is not among the operations.
 */
const crashAgain = async (
  scenario: Scenario,
  reference: Reference,
  [first, ...others]: readonly CrashPlace[],
): Promise<string | undefined> => {
  if (first === undefined) return undefined
  const common = { scenario, reference, leaks: watchFor(scenario, reference.keys) }
  let points: readonly TracePoint[] = reference.points
  let toldProgress: FlowProgress | undefined
  let place = first
  for (const next of [...others, undefined]) {
    const point = points.findIndex(({ name }) => name === place.at)
    const progress = points[point]?.progress
    if (progress === undefined) return undefined
    const disks = disksOf(points, { ...place, point })
    toldProgress ??= progress
    const isLast = next === undefined
    try {
      points = (
        await checkRecovery({ ...common, disks, progress, toldProgress, isThorough: isLast, isRecorded: !isLast })
      ).points
    } catch (error) {
      return describe(error)
    }
    if (next !== undefined) place = next
  }
  return undefined
}

/** The same violation with as few unsynced changes kept, or as few faults, as will do. */
export const shrink = async (
  scenario: Scenario,
  reference: Reference,
  violation: FoundViolation,
): Promise<FoundViolation> => {
  let smallest = violation
  for (let isSmaller = true; isSmaller;) {
    isSmaller = false
    for (const trouble of smallerThan(smallest.trouble)) {
      const what = await replay(scenario, reference, trouble)
      if (what === undefined) continue
      smallest = { what, trouble }
      isSmaller = true
      break
    }
  }
  return smallest
}

function* smallerThan(trouble: Trouble): Generator<Trouble> {
  if ('faults' in trouble && trouble.faults.length > 1)
    for (const fault of trouble.faults) yield { faults: trouble.faults.filter((other) => other !== fault) }
  if (!('crashes' in trouble)) return
  for (const [index, place] of trouble.crashes.entries())
    for (const machine of ['host', 'kms'] as const)
      for (const change of place.kept[machine])
        yield {
          crashes: trouble.crashes.map((each, at) => (at === index ? without(each, machine, change) : each)),
        }
}

const without = (place: CrashPlace, machine: Machine, change: number): CrashPlace => ({
  ...place,
  kept: { ...place.kept, [machine]: place.kept[machine].filter((kept) => kept !== change) },
})
