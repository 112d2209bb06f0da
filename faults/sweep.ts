import { recordRun, type Reference } from './crash-check.js'
import { shrink } from './shrink.js'
import type { Scenario } from './scenario.js'
import { planFaults, planClones, planDamage } from './fault-plan.js'
import {
  StateChecker,
  watchFor,
  type Checkers,
  type CheckerOptions,
  type FoundViolation,
  type Job,
  type JobResult,
} from './state-checker.js'
import { chooser, crashStates, isLikeLast, narrowed, type CrashState } from './trace.js'

export interface SweepOptions {
  /** Of what is chosen at random; told in the report. */
  readonly seed?: string
  /** How many states of crashes of the scenario are recovered at most; of more, so many are chosen, every crash point among them. */
  readonly statesMax?: number
  /** How many faults, or damages, of each kind are tried; 5 unless told, in the long run all. Pairs: eight times as many, in all. */
  readonly faultsOfKind?: number
  /** One in so many recoveries is crashed again, at each of its operations; 16 unless told, in the long run all are. */
  readonly crashedAgainEvery?: number
  /** Nothing but power cuts. */
  readonly isCrashesOnly?: boolean
  /** All that the engine has, for as long as it takes. */
  readonly isLong?: boolean
  /** Several threads, say; this one unless told. */
  readonly startCheckers?: (reference: Reference, options: CheckerOptions) => Checkers
  readonly onProgress?: (progress: SweepProgress) => void
}

export interface SweepProgress {
  readonly scenario: string
  readonly checkedCount: number
  readonly totalCount: number
  readonly violationCount: number
}

export interface SweepReport {
  readonly scenario: string
  readonly seed: string
  /** Every state that was enumerated. */
  readonly states: number
  /** Those that differ in what the disks hold, each recovered by the real code, itself or one that differs in temporary files only. */
  readonly distinctStates: number
  /** How many were recovered themselves: no two that a recovery cannot tell apart. */
  readonly recoveries: number
  /** Operations and messages, of the scenario and of recoveries, by name. */
  readonly crashPoints: readonly string[]
  readonly crashPointsCovered: readonly string[]
  /** What was tried, and how often it ended so: `recovered`, or the code that said why not. */
  readonly faultKinds: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** Smallest first. */
  readonly violations: readonly FoundViolation[]
  readonly seconds: number
}

const STATES_MAX = 2000
const FAULTS_OF_KIND = 5
/** Of one point and kind of crash. */
const SUBSET_COUNT_MAX = 2 ** 14
const BATCH_SIZE = 16
const VIOLATION_COUNT_MAX = 20

/**
 * Runs a scenario once, with every operation and message recorded; then recovers every state in which a crash could have left
 * the disks, and crashes recoveries too.
 * @throws {Violation} where the scenario does not run by itself.
 */
export const sweep = async (scenario: Scenario, options: SweepOptions = {}): Promise<SweepReport> => {
  const startMs = performance.now()
  const {
    seed = '1',
    isLong = false,
    isCrashesOnly = false,
    statesMax = isLong ? Infinity : STATES_MAX,
    onProgress,
  } = options
  const reference = await recordRun(scenario, { leaks: watchFor(scenario) })
  const found = enumerate(reference, seed)
  const chosen = choose(found, statesMax, seed)
  const checkerOptions = {
    seed,
    thoroughEvery: isLong ? 2 : 8,
    nestedEvery: options.crashedAgainEvery ?? (isLong ? 1 : 16),
    nestedSubsetCountMax: isLong ? 64 : 8,
  }
  const start = options.startCheckers ?? ((known, how) => new StateChecker(scenario, known, how))
  const plan = {
    choose: chooser(`${seed} faults`),
    isLong,
    countOfKind: options.faultsOfKind ?? (isLong ? Infinity : FAULTS_OF_KIND),
  }
  const crashes = chosen.map((state) => ({ state }))
  const faults = [...planFaults(reference, plan), ...planDamage(reference, plan), ...planClones(scenario)]
  const jobs: Job[] = isCrashesOnly ? crashes : [...crashes, ...faults]
  const tally = new Tally(reference, found)
  {
    await using checkers = start(reference, checkerOptions)
    await inBatches(jobs, checkers, (batch, results, checkedCount) => {
      results.forEach((result, index) => tally.add(batch[index] as Job, result))
      const progress = { scenario: scenario.name, checkedCount, totalCount: jobs.length }
      onProgress?.({ ...progress, violationCount: tally.violations.length })
    })
  }
  const violations = await Promise.all(
    tally.violations.slice(0, 1).map((violation) => shrink(scenario, reference, violation)),
  )
  return {
    scenario: scenario.name,
    seed,
    ...tally.counts(),
    violations: [...violations, ...tally.violations.slice(1)],
    seconds: (performance.now() - startMs) / 1000,
  }
}

interface Enumerated {
  readonly count: number
  /** By `recoveryKey`: one stands for all that a recovery cannot tell from it, and satisfies what each of them must. */
  readonly states: ReadonlyMap<string, CrashState>
  /** For each of them, by `recoveryKey`, the states that it stands for, by `key`. */
  readonly members: ReadonlyMap<string, ReadonlySet<string>>
  /** For each point some states that lead through it. */
  readonly byPoint: readonly (readonly string[])[]
}

/** How many of the states of a point are its own, first in line to be recovered. */
const OWN_COUNT = 6

const enumerate = ({ points }: Reference, seed: string): Enumerated => {
  const choose = chooser(`${seed} subsets`)
  const states = new Map<string, CrashState>()
  const members = new Map<string, Set<string>>()
  let count = 0
  const byPoint: string[][] = []
  for (const point of points.keys()) {
    const last = byPoint.at(-1)
    if (last !== undefined && isLikeLast(points, point)) {
      byPoint.push(last)
      continue
    }
    const keys = new Set<string>()
    for (const state of crashStates(points, point, { choose, subsetCountMax: SUBSET_COUNT_MAX })) {
      count++
      const { key, recoveryKey } = state
      const known = states.get(recoveryKey)
      states.set(
        recoveryKey,
        known === undefined ? state : { ...known, progress: narrowed(known.progress, state.progress) },
      )
      const alike = members.get(recoveryKey) ?? new Set()
      members.set(recoveryKey, alike.add(key))
      if (keys.size < OWN_COUNT) keys.add(recoveryKey)
    }
    byPoint.push([...keys])
  }
  return { count, states, members, byPoint }
}

/** All of them; of too many, those that every point has first, those that stand for most, and as many others at random. */
const choose = ({ states, members, byPoint }: Enumerated, statesMax: number, seed: string): CrashState[] => {
  if (states.size <= statesMax) return [...states.values()]
  const chosen = new Map<string, CrashState>()
  for (let round = 0; round < OWN_COUNT; round++)
    for (const keys of byPoint) {
      const state = states.get(keys[round] ?? '')
      if (state !== undefined && (round === 0 || chosen.size < statesMax)) chosen.set(state.recoveryKey, state)
    }
  const rest = [...states.values()].filter(({ recoveryKey }) => !chosen.has(recoveryKey))
  const standsFor = ({ recoveryKey }: CrashState): number => members.get(recoveryKey)?.size ?? 0
  rest.sort((a, b) => standsFor(b) - standsFor(a))
  for (const state of rest.splice(0, Math.max(0, statesMax - chosen.size) >>> 1)) chosen.set(state.recoveryKey, state)
  const draw = chooser(`${seed} states`)
  while (chosen.size < statesMax && rest.length > 0) {
    const [state] = rest.splice(draw(rest.length), 1)
    if (state !== undefined) chosen.set(state.recoveryKey, state)
  }
  return [...chosen.values()]
}

class Tally {
  readonly violations: FoundViolation[] = []
  readonly #recovered = new Set<string>()
  readonly #distinct = new Set<string>()
  readonly #nestedPoints = new Set<string>()
  readonly #kinds = new Map<string, Map<string, number>>()
  readonly #reference: Reference
  readonly #found: Enumerated
  #nestedCount = 0

  constructor(reference: Reference, found: Enumerated) {
    this.#reference = reference
    this.#found = found
  }

  add(job: Job, { violations, keys, nestedKeys, nestedCount, nestedPoints, outcome }: JobResult): void {
    for (const key of keys) {
      this.#recovered.add(key)
      for (const member of this.#found.members.get(key) ?? []) this.#distinct.add(member)
    }
    for (const key of nestedKeys) this.#distinct.add(key)
    for (const name of nestedPoints) this.#nestedPoints.add(`recovery: ${name}`)
    this.#nestedCount += nestedCount
    const ending = 'state' in job ? (violations.length === 0 ? 'recovered' : undefined) : outcome
    for (const kind of kindsOf(job)) {
      const counts = this.#kinds.get(kind) ?? new Map<string, number>()
      this.#kinds.set(kind, counts)
      if (ending !== undefined) counts.set(ending, (counts.get(ending) ?? 0) + 1)
    }
    this.violations.push(...violations)
    this.violations.sort((a, b) => sizeOf(a) - sizeOf(b))
    this.violations.splice(VIOLATION_COUNT_MAX)
  }

  counts() {
    const points = this.#reference.points.map(({ name }) => name)
    const covered = points.filter((_, point) => this.#found.byPoint[point]?.some((key) => this.#recovered.has(key)))
    const nested = [...this.#nestedPoints].sort()
    return {
      states: this.#found.count + this.#nestedCount,
      distinctStates: this.#distinct.size,
      recoveries: this.#recovered.size,
      crashPoints: [...points, ...nested],
      crashPointsCovered: [...covered, ...nested],
      faultKinds: Object.fromEntries([...this.#kinds].map(([kind, counts]) => [kind, Object.fromEntries(counts)])),
    }
  }
}

/** Fewest crashes or faults first, then fewest changes kept. */
const sizeOf = ({ trouble }: FoundViolation): number => {
  if ('faults' in trouble) return 1000 * trouble.faults.length
  if (!('crashes' in trouble)) return 1000
  return trouble.crashes.reduce((sum, { kept }) => sum + 1000 + kept.host.length + kept.kms.length, 0)
}

const inBatches = async (
  jobs: readonly Job[],
  checkers: Checkers,
  checked: (batch: readonly Job[], results: readonly JobResult[], checkedCount: number) => void,
): Promise<void> => {
  let next = 0
  let done = 0
  const work = async (): Promise<void> => {
    while (next < jobs.length) {
      const batch = jobs.slice(next, (next += BATCH_SIZE))
      const results = await checkers.check(batch)
      checked(batch, results, (done += batch.length))
    }
  }
  await Promise.all(Array.from({ length: checkers.count }, work))
}

/** What a job tries, by name. */
const kindsOf = (job: Job): readonly string[] => {
  if ('state' in job) return [`power cut of ${job.state.crash}`]
  if ('damage' in job) return [job.damage.damage]
  return 'faults' in job ? job.faults.map(({ fault }) => fault) : ['clone']
}
