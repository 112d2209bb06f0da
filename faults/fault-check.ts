import { isKeyriseError, outsideCode, type ErrorCode } from '../protocol/errors.js'
import {
  ProgressBook,
  recoverAll,
  checkRecovery,
  describe,
  takeStep,
  Violation,
  type Reference,
} from './crash-check.js'
import { DAMAGE_CODES, DAMAGE_KINDS, LIVE_KINDS, type LiveKind } from './fault-kinds.js'
import { MachineStopped } from './memory-file-system.js'
import type { LeakWatch } from './leak-watch.js'
import type { Scenario } from './scenario.js'
import { Stuck } from './drive-clock.js'
import { SimulatedWorld, type Disks, type Machine } from './simulated-world.js'
import { disksOf, OperationNames } from './trace.js'

/** A fault of a kind at one operation of a run. */
export interface PlacedFault {
  readonly at: string
  readonly fault: string
}

/** Damage of a kind to one file of a disk, or to all of it, as it was after an operation. */
export interface PlacedDamage {
  readonly at: string
  readonly damage: string
  readonly machine: Machine
  readonly path: string
  /** Another file, for kinds that take two. */
  readonly other: string
  /** The operation after which an older content comes from. */
  readonly earlier: string
}

/** `recovered`, or the code with which damage was refused. */
export type Outcome = 'recovered' | ErrorCode

interface Given {
  readonly scenario: Scenario
  readonly reference: Reference
  readonly leaks?: LeakWatch
}

/** Long after every deadline of a launch, a call or a message. */
const PATIENCE_MS = 60 * 60 * 1000

/**
 * Runs the scenario with faults, each at its operation; then recovers: nothing that was acknowledged is lost, whatever the steps
 * were told.
 * @returns undefined where none struck: an earlier one kept the run from getting so far.
 * @throws {Violation}
 */
export const checkFaults = async (
  { scenario, reference, leaks }: Given,
  faults: readonly PlacedFault[],
): Promise<Outcome | undefined> => {
  const book = new ProgressBook(scenario)
  const names = new OperationNames()
  const state = { isArmed: true, struckCount: 0 }
  const kinds = faults.map(({ at, fault }) => ({ at, kind: liveKind(fault) }))
  const world: SimulatedWorld = new SimulatedWorld({
    scenario,
    ...(leaks === undefined ? {} : { leaks }),
    fault: (operation) => {
      if (!state.isArmed) return undefined
      const name = names.next(operation)
      const kind = kinds.find(({ at }) => at === name)?.kind
      if (kind === undefined) return undefined
      state.struckCount++
      if (typeof kind.fault === 'object' && 'jumpMs' in kind.fault) {
        world.clock.jump(kind.fault.jumpMs)
        return undefined
      }
      return kind.fault
    },
  })
  try {
    await runAll(world, scenario, book)
    state.isArmed = false
    const isPowerCut = kinds.some(({ kind }) => kind.isPowerCut === true)
    for (const machine of ['host', 'kms'] as const) world.restart(machine, () => !isPowerCut)
    // A first launch that failed may have made a flow that nobody was told of.
    await recoverAll(world, { scenario, reference, book, known: new Map() })
    checkLeaks(leaks)
    return state.struckCount > 0 ? 'recovered' : undefined
  } finally {
    await world.end()
  }
}

const liveKind = (name: string): LiveKind => {
  const kind = LIVE_KINDS.find((each) => each.name === name)
  if (kind === undefined) throw new Violation(`no fault is called ${name}`)
  return kind
}

/** Each flow as far as it gets. A step that fails says why by a code; then the flow ends. */
const runAll = async (world: SimulatedWorld, scenario: Scenario, book: ProgressBook): Promise<void> => {
  const runFlow = async (flow: string): Promise<void> => {
    await world.launch(flow)
    book.reach(flow, 0)
    for (const index of (scenario.flows[flow]?.steps ?? []).keys()) {
      book.begin(flow, index + 1)
      await takeStep(world, flow, index)
      book.reach(flow, index + 1)
    }
  }
  const isSaid = (error: unknown): boolean =>
    isKeyriseError(error) || (error instanceof MachineStopped && !(world.isOn('host') && world.isOn('kms')))
  const untilFailure = async (what: string, work: Promise<void>): Promise<boolean> => {
    try {
      await work
      return true
    } catch (error) {
      if (!isSaid(error)) throw new Violation(`${what} fails without a code: ${describe(error)}`, { cause: error })
      return false
    }
  }
  const all = async (): Promise<void> => {
    if (!(await untilFailure('the KMS', world.startKms()))) return
    await Promise.all(Object.keys(scenario.flows).map((flow) => untilFailure(flow, runFlow(flow))))
  }
  try {
    await world.drive(all(), PATIENCE_MS)
  } catch (error) {
    if (error instanceof Stuck) throw new Violation(error.message, { cause: error })
    throw error
  }
}

/** Starts from damaged disks: what comes back is right, or a code says that it is not. @throws {Violation} */
export const checkDamage = async (
  { scenario, reference, leaks }: Given,
  place: PlacedDamage,
): Promise<Outcome | undefined> => {
  const kind = DAMAGE_KINDS.find(({ name }) => name === place.damage)
  const now = reference.points.findIndex(({ name }) => name === place.at)
  const before = reference.points.findIndex(({ name }) => name === place.earlier)
  const progress = reference.points[now]?.progress
  if (kind === undefined || progress === undefined || before === -1) return undefined
  const disks = disksAt(reference, now)
  const image = kind.damage(place, disks, disksAt(reference, before))
  if (image === undefined) return undefined
  try {
    const common = { scenario, reference, progress, ...(leaks === undefined ? {} : { leaks }) }
    await checkRecovery({ ...common, disks: { ...disks, [place.machine]: image } })
    return 'recovered'
  } catch (error) {
    const cause = error instanceof Violation ? error.cause : undefined
    const code = isKeyriseError(cause) ? outsideCode(cause.code) : undefined
    if (code !== undefined && DAMAGE_CODES.includes(code)) return code
    throw error
  }
}

/** With nothing lost that was on its way to the disks. */
export const disksAt = ({ points }: Reference, point: number): Disks => {
  const { disks } = points[point] as Reference['points'][number]
  const all = (machine: Machine): number[] => disks[machine].unsynced.map((_, index) => index)
  return disksOf(points, { point, crash: 'both', kept: { host: all('host'), kms: all('kms') } })
}

/** Two hosts with one flow: the older one is fenced at its next commit. @throws {Violation} */
export const checkClone = async ({ scenario, reference }: Given, flow: string): Promise<Outcome> => {
  const world = new SimulatedWorld({ scenario, disks: disksAt(reference, reference.points.length - 1) })
  try {
    await world.drive(world.startKms())
    if (world.scenario(flow).successor !== undefined) world.succeed(flow)
    await world.drive(world.launch(flow))
    const older = world.opened(flow)
    await world.drive(world.launch(flow))
    const refused = await world.drive(older.flow.checkpoint({ 'session/clone': new Uint8Array(1) })).then(
      () => undefined,
      (error: unknown) => error,
    )
    if (!isKeyriseError(refused, 'ERR_FENCED'))
      throw new Violation(`the older of two clones of ${flow} is not fenced: ${describe(refused)}`)
    return 'ERR_FENCED'
  } finally {
    await world.end()
  }
}

const checkLeaks = (leaks: LeakWatch | undefined): void => {
  const leaked = leaks?.take() ?? []
  if (leaked.length > 0) throw new Violation(`a secret: ${leaked.join('; ')}`)
}
