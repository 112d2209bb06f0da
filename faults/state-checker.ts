import { Buffer } from 'node:buffer'
import { checkRecovery, describe, type Reference } from './crash-check.js'
import { LeakWatch } from './leak-watch.js'
import type { Scenario } from './scenario.js'
import { chooser, crashStates, disksOf, type CrashState, type TracePoint } from './trace.js'

/** Recovers crash states with the real code, and crashes some of these recoveries again. */

/** Where a crash came: of what a scenario did, or of a recovery from another crash. */
export type CrashPlace = Pick<CrashState, 'crash' | 'kept'> & { readonly at: string }

export interface FoundViolation {
  readonly what: string
  /** One crash, or two in a row. */
  readonly crashes: readonly CrashPlace[]
}

export interface StateResult {
  readonly key: string
  readonly violations: readonly FoundViolation[]
  /** States that crashes of this recovery left: how many, and which of them were recovered. */
  readonly nestedCount: number
  readonly nestedKeys: readonly string[]
  /** Operations and messages of this recovery; of those, where it was crashed. */
  readonly nestedPoints: readonly string[]
}

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
  /** Results in the order of `states`. */
  check(states: readonly CrashState[]): Promise<readonly StateResult[]>
}

/** The end of a key says which states are chosen for more. */
const isChosen = (key: string, every: number): boolean =>
  every > 0 && Buffer.from(key, 'base64url').readUInt32LE(4) % every === 0

export const placeOf = (points: readonly TracePoint[], { point, crash, kept }: CrashState): CrashPlace => ({
  at: points[point]?.name ?? '',
  crash,
  kept,
})

export const watchFor = ({ secrets = [] }: Scenario): LeakWatch => {
  const leaks = new LeakWatch()
  secrets.forEach((secret, index) => leaks.add(`secret ${String(index)}`, secret))
  return leaks
}

export class StateChecker implements Checkers {
  readonly count = 1
  readonly #scenario: Scenario
  readonly #reference: Reference
  readonly #options: CheckerOptions
  readonly #leaks: LeakWatch
  /** Of recoveries’ crashes: no state is recovered twice. */
  readonly #nestedSeen = new Set<string>()

  constructor(scenario: Scenario, reference: Reference, options: CheckerOptions) {
    this.#scenario = scenario
    this.#reference = reference
    this.#options = options
    this.#leaks = watchFor(scenario)
  }

  async check(states: readonly CrashState[]): Promise<StateResult[]> {
    const results: StateResult[] = []
    for (const state of states) results.push(await this.#checkState(state))
    return results
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve()
  }

  async #checkState(state: CrashState): Promise<StateResult> {
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
      return { key, ...(await this.#crashAgain(checked.points, place)) }
    } catch (error) {
      const violations = [{ what: describe(error), crashes: [place] }]
      return { key, violations, nestedCount: 0, nestedKeys: [], nestedPoints: [] }
    }
  }

  /** Every crash of a recovery, that is: two crashes in a row. */
  async #crashAgain(points: readonly TracePoint[], first: CrashPlace) {
    const violations: FoundViolation[] = []
    const nestedKeys: string[] = []
    let nestedCount = 0
    const choose = chooser(`${this.#options.seed} ${first.at}`)
    for (const [point] of points.entries()) {
      const options = { choose, subsetCountMax: this.#options.nestedSubsetCountMax, crashes: ['both'] } as const
      for (const state of crashStates(points, point, options)) {
        nestedCount++
        if (this.#nestedSeen.has(state.key)) continue
        this.#nestedSeen.add(state.key)
        nestedKeys.push(state.key)
        try {
          await checkRecovery({ ...this.#common(), disks: disksOf(points, state), progress: state.progress })
        } catch (error) {
          violations.push({ what: describe(error), crashes: [first, placeOf(points, state)] })
        }
      }
    }
    return { violations, nestedCount, nestedKeys, nestedPoints: points.map(({ name }) => name) }
  }

  #common() {
    return { scenario: this.#scenario, reference: this.#reference, leaks: this.#leaks }
  }
}
