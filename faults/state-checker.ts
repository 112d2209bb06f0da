import { Buffer } from 'node:buffer'
import { checkRecovery, describe, type Reference } from './crash-check.js'
import {
  checkClone,
  checkDamage,
  checkFaults,
  type Outcome,
  type PlacedDamage,
  type PlacedFault,
} from './fault-check.js'
import { LeakWatch } from './leak-watch.js'
import type { KnownSecret } from './scan.js'
import type { Scenario } from './scenario.js'
import { chooser, crashStates, disksOf, isLikeLast, type CrashState, type TracePoint } from './trace.js'

/** Recovers crash states with the real code, and crashes some of these recoveries again. */

/** Where a crash came: of what a scenario did, or of a recovery from another crash. */
export type CrashPlace = Pick<CrashState, 'crash' | 'kept'> & { readonly at: string }

/** What went wrong with the world: one crash, or two in a row; faults in one run; damage; two hosts with one flow. */
export type Trouble =
  | { readonly crashes: readonly CrashPlace[] }
  | { readonly faults: readonly PlacedFault[] }
  | { readonly damage: PlacedDamage }
  | { readonly clone: string }

export interface FoundViolation {
  readonly what: string
  readonly trouble: Trouble
}

/** A crash state of the recorded run; or anything else, which runs by itself. */
export type Job = { readonly state: CrashState } | Exclude<Trouble, { readonly crashes: unknown }>

export interface JobResult {
  readonly violations: readonly FoundViolation[]
  /** `recoveryKey` of the crash states that were recovered. */
  readonly keys: readonly string[]
  /** `key` of the crash states of recoveries that these stand for. */
  readonly nestedKeys: readonly string[]
  /** How many crashes of recoveries were enumerated, and at which of their operations and messages. */
  readonly nestedCount: number
  readonly nestedPoints: readonly string[]
  /** How the kinds of faults or of damage that it was about ended, where they changed anything. */
  readonly outcome?: Outcome
}

const NOTHING: JobResult = { violations: [], keys: [], nestedKeys: [], nestedCount: 0, nestedPoints: [] }

export interface CheckerOptions {
  readonly seed: string
  /** One in so many recoveries is repeated, and gone on from; chosen by what the disks hold. */
  readonly thoroughEvery: number
  /** One in so many recoveries is crashed itself. */
  readonly nestedEvery: number
  /** Of each crash point inside a recovery. */
  readonly nestedSubsetCountMax: number
}

/** Something that recovers batches of states: this thread, or several. */
export interface Checkers extends AsyncDisposable {
  readonly count: number
  /** Results in the order of `jobs`. */
  check(jobs: readonly Job[]): Promise<readonly JobResult[]>
}

/** The end of a key says which states are chosen for more. */
const isChosen = (key: string, every: number): boolean =>
  every > 0 && Buffer.from(key, 'base64url').readUInt32LE(4) % every === 0

const placeOf = (points: readonly TracePoint[], { point, crash, kept }: CrashState): CrashPlace => ({
  at: points[point]?.name ?? '',
  crash,
  kept,
})

/** @param keys - which are looked for besides the scenario’s own secrets. */
export const watchFor = ({ secrets = [] }: Scenario, keys: readonly KnownSecret[] = []): LeakWatch => {
  const leaks = new LeakWatch()
  for (const { name, bytes } of keys) leaks.add(name, bytes)
  secrets.forEach((secret, index) => leaks.add(`secret ${String(index)}`, secret))
  return leaks
}

export class StateChecker implements Checkers {
  readonly count = 1
  readonly #scenario: Scenario
  readonly #reference: Reference
  readonly #options: CheckerOptions
  readonly #leaks: LeakWatch
  /** Of recoveries’ crashes, by `recoveryKey`: no state is recovered twice. */
  readonly #nestedSeen = new Set<string>()

  constructor(scenario: Scenario, reference: Reference, options: CheckerOptions) {
    this.#scenario = scenario
    this.#reference = reference
    this.#options = options
    this.#leaks = watchFor(scenario, reference.keys)
  }

  async check(jobs: readonly Job[]): Promise<JobResult[]> {
    const results: JobResult[] = []
    for (const job of jobs) results.push('state' in job ? await this.#checkState(job.state) : await this.#try(job))
    return results
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve()
  }

  async #try(job: Exclude<Job, { readonly state: unknown }>): Promise<JobResult> {
    try {
      const outcome = await tryTrouble(this.#common(), job)
      return { ...NOTHING, ...(outcome === undefined ? {} : { outcome }) }
    } catch (error) {
      return { ...NOTHING, violations: [{ what: describe(error), trouble: job }] }
    }
  }

  async #checkState(state: CrashState): Promise<JobResult> {
    const { points } = this.#reference
    const { thoroughEvery, nestedEvery } = this.#options
    const { key } = state
    const isNested = isChosen(key, nestedEvery)
    const place = placeOf(points, state)
    try {
      const checked = await checkRecovery({
        ...this.#common(),
        disks: disksOf(points, state),
        progress: state.progress,
        isThorough: isChosen(key, thoroughEvery),
        isRecorded: isNested,
      })
      return await this.#crashAgain(state, checked.points, place)
    } catch (error) {
      return {
        ...NOTHING,
        keys: [state.recoveryKey],
        violations: [{ what: describe(error), trouble: { crashes: [place] } }],
      }
    }
  }

  /** Every crash of a recovery, that is: two crashes in a row. */
  async #crashAgain(crashed: CrashState, points: readonly TracePoint[], first: CrashPlace): Promise<JobResult> {
    const violations: FoundViolation[] = []
    const keys = [crashed.recoveryKey]
    const nestedKeys: string[] = []
    let nestedCount = 0
    const choose = chooser(`${this.#options.seed} ${first.at}`)
    for (const point of points.keys()) {
      if (isLikeLast(points, point)) continue
      const options = { choose, subsetCountMax: this.#options.nestedSubsetCountMax, crashes: ['both'] } as const
      for (const state of crashStates(points, point, options)) {
        nestedCount++
        nestedKeys.push(state.key)
        if (this.#nestedSeen.has(state.recoveryKey)) continue
        this.#nestedSeen.add(state.recoveryKey)
        keys.push(state.recoveryKey)
        try {
          const { progress } = state
          const toldProgress = crashed.progress
          await checkRecovery({ ...this.#common(), disks: disksOf(points, state), progress, toldProgress })
        } catch (error) {
          violations.push({ what: describe(error), trouble: { crashes: [first, placeOf(points, state)] } })
        }
      }
    }
    return { violations, keys, nestedKeys, nestedCount, nestedPoints: points.map(({ name }) => name) }
  }

  #common() {
    return { scenario: this.#scenario, reference: this.#reference, leaks: this.#leaks }
  }
}

interface Given {
  readonly scenario: Scenario
  readonly reference: Reference
  readonly leaks: LeakWatch
}

/** @returns undefined where it changes nothing. @throws {Violation} */
export const tryTrouble = (
  given: Given,
  trouble: Exclude<Trouble, { readonly crashes: unknown }>,
): Promise<Outcome | undefined> => {
  if ('faults' in trouble) return checkFaults(given, trouble.faults)
  return 'damage' in trouble ? checkDamage(given, trouble.damage) : checkClone(given, trouble.clone)
}
