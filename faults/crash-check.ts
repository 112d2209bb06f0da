import { toHex } from '../protocol/bytes.js'
import { isKeyriseError } from '../protocol/errors.js'
import type { DiskMoment } from './disk.js'
import type { LeakWatch } from './leak-watch.js'
import type { Scenario } from './scenario.js'
import { Stuck } from './drive-clock.js'
import { SimulatedWorld, type Disks, type Machine, type WorldOptions } from './simulated-world.js'
import type { KnownSecret } from './scan.js'
import { isTemporaryPath, TraceRecorder, type FlowProgress, type Progress, type TracePoint } from './trace.js'

/** What a scenario does when nothing goes wrong, and whether what a crash left comes back to it. */

/** A flow’s states, in order: after its launch and after each step. */
export interface ReferenceFlow {
  readonly states: readonly string[]
  readonly epochs: readonly number[]
  /** Hex; the same for ever. */
  readonly agreementKey: string
}
export interface Reference {
  readonly points: readonly TracePoint[]
  readonly flows: Readonly<Record<string, ReferenceFlow>>
  /** Of the KMS, all along: no run may show them. */
  readonly keys: readonly KnownSecret[]
}

/** Which state each flow was found in. */
export type Found = Readonly<Record<string, number>>

/** An invariant that does not hold. */
export class Violation extends Error {}

export const describe = (error: unknown): string => {
  if (isKeyriseError(error)) return `${error.code}${error.detail === undefined ? '' : ` (${error.detail})`}`
  return error instanceof Error ? error.message : String(error)
}

const momentsOf = (world: SimulatedWorld): Readonly<Record<Machine, DiskMoment>> => ({
  host: world.disk('host').moment,
  kms: world.disk('kms').moment,
})

/** How far each flow is, as it goes. */
export class ProgressBook {
  readonly #flows = new Map<string, Progress>()

  constructor(scenario: Scenario, from: FlowProgress = {}) {
    for (const flow of Object.keys(scenario.flows)) this.#flows.set(flow, from[flow] ?? { acknowledged: -1, begun: 0 })
  }

  get now(): FlowProgress {
    return Object.fromEntries(this.#flows)
  }

  begin(flow: string, state: number): void {
    this.#flows.set(flow, { acknowledged: state - 1, begun: state })
  }

  reach(flow: string, state: number): void {
    this.#flows.set(flow, { acknowledged: state, begun: state })
  }
}

/** Runs all of `scenario`, from nothing, with every operation recorded. @throws {Violation} where it does not run by itself. */
export const recordRun = async (scenario: Scenario, options: Pick<WorldOptions, 'leaks'> = {}): Promise<Reference> => {
  const book = new ProgressBook(scenario)
  const recorder: TraceRecorder = new TraceRecorder(
    () => momentsOf(world),
    () => book.now,
  )
  const keys: KnownSecret[] = []
  const world = new SimulatedWorld({
    scenario,
    ...options,
    onDone: (operation) => recorder.record(operation),
    onKey: (key) => keys.push(key),
  })
  try {
    await world.drive(world.startKms())
    const flows = await world.drive(
      Promise.all(Object.keys(scenario.flows).map((flow) => recordFlow(world, scenario, flow, book))),
    )
    return { points: recorder.points, flows: Object.fromEntries(flows), keys }
  } catch (error) {
    throw new Violation(`without any fault: ${describe(error)}`, { cause: error })
  } finally {
    await world.end()
  }
}

/** Of the steps of a flow the one of this index, by the image that is then the flow’s. */
export const takeStep = async (world: SimulatedWorld, flow: string, index: number): Promise<void> => {
  const { steps, successor } = world.scenario(flow)
  if (successor?.step === index + 1) await world.replace(flow)
  await steps[index]?.(world.party(flow))
}

const recordFlow = async (
  world: SimulatedWorld,
  scenario: Scenario,
  flow: string,
  book: ProgressBook,
): Promise<[string, ReferenceFlow]> => {
  await world.launch(flow)
  book.reach(flow, 0)
  const states = [await world.observe(flow)]
  const epochs = [world.opened(flow).flow.epoch]
  for (const index of (scenario.flows[flow]?.steps ?? []).keys()) {
    book.begin(flow, index + 1)
    await takeStep(world, flow, index)
    book.reach(flow, index + 1)
    states.push(await world.observe(flow))
    epochs.push(world.opened(flow).flow.epoch)
  }
  return [flow, { states, epochs, agreementKey: toHex(world.opened(flow).flow.agreementKey) }]
}

export interface CheckOptions {
  readonly scenario: Scenario
  readonly reference: Reference
  readonly disks: Disks
  readonly progress: FlowProgress
  /** What the recorded run had told when it was cut short, where a recovery was cut short since: it may have made a flow of its own. */
  readonly toldProgress?: FlowProgress
  readonly leaks?: LeakWatch
  /** Recovers a second time, and goes on with the next step. */
  readonly isThorough?: boolean
  /** Every operation of the recovery is recorded, for crashes in it. */
  readonly isRecorded?: boolean
}

export interface Checked {
  readonly found: Found
  /** Of the recovery, where it was recorded. */
  readonly points: readonly TracePoint[]
}

/**
 * Starts from `disks` with the real code, and holds what comes back against the invariants.
 * @throws {Violation}
 */
export const checkRecovery = async (options: CheckOptions): Promise<Checked> => {
  const { scenario, reference, disks, progress, leaks, isThorough = false, isRecorded = false } = options
  const book = new ProgressBook(scenario, progress)
  const recorder: TraceRecorder = new TraceRecorder(
    () => momentsOf(world),
    () => book.now,
  )
  const state: { isRecording: boolean; read?: string } = { isRecording: isRecorded }
  const world = new SimulatedWorld({
    scenario,
    disks,
    ...(leaks === undefined ? {} : { leaks }),
    onDone: (operation) => {
      if (operation.name.startsWith('read ') && isTemporaryPath(operation.name)) state.read ??= operation.name
      if (state.isRecording) recorder.record(operation)
    },
  })
  try {
    const expected = { scenario, reference, book, known: toldBy(reference, options.toldProgress ?? progress) }
    const found = await recoverAll(world, expected)
    state.isRecording = false
    if (isThorough) await checkAgain(world, expected, found)
    const leaked = leaks?.take() ?? []
    if (leaked.length > 0) throw new Violation(`a secret: ${leaked.join('; ')}`)
    // States that differ only in such files are taken for one, and what was never synced would be trusted.
    if (state.read !== undefined) throw new Violation(`a recovery reads a temporary file: ${state.read}`)
    return { found, points: recorder.points }
  } finally {
    await world.end()
  }
}

export interface Expected {
  readonly scenario: Scenario
  readonly reference: Reference
  readonly book: ProgressBook
  /** Of flows that somebody has been told of: the agreement key, in hex, and the highest epoch. */
  readonly known: Map<string, { readonly key: string; readonly epoch: number }>
}

const toldBy = ({ flows }: Reference, progress: FlowProgress): Expected['known'] =>
  new Map(
    Object.entries(flows).flatMap(([flow, { agreementKey, epochs }]) => {
      const acknowledged = progress[flow]?.acknowledged ?? -1
      return acknowledged < 0 ? [] : [[flow, { key: agreementKey, epoch: epochs[acknowledged] ?? 0 }] as const]
    }),
  )

/** The KMS, then each flow: recovered, in one of the states that it may be in, with its keys. */
export const recoverAll = async (world: SimulatedWorld, expected: Expected): Promise<Found> => {
  const found: Record<string, number> = {}
  await orViolation('the KMS does not start', () => world.drive(world.startKms()))
  for (const [flow, { successor }] of Object.entries(expected.scenario.flows)) {
    if (successor !== undefined && (expected.book.now[flow]?.begun ?? 0) >= successor.step) world.succeed(flow)
    await orViolation(`${flow} does not recover`, () => world.drive(world.launch(flow)))
    found[flow] = await checkFlow(world, flow, expected)
    expected.book.reach(flow, found[flow])
  }
  return found
}

const checkFlow = async (world: SimulatedWorld, flow: string, expected: Expected): Promise<number> => {
  const { scenario, reference, book, known: told } = expected
  const { acknowledged, begun } = book.now[flow] as Progress
  const known = reference.flows[flow] as ReferenceFlow
  const { flow: opened, recovery } = world.opened(flow)
  if (recovery.kind === 'fresh' && acknowledged >= 0) throw new Violation(`${flow} starts afresh`)
  const state = await orViolation(`${flow} cannot be read`, () => world.drive(world.observe(flow)))
  const found = findState(known.states, state, acknowledged, begun)
  if (found === undefined) {
    if (isBetween(scenario, flow, known, state, acknowledged, begun)) return Math.max(0, acknowledged)
    throw new Violation(
      `${flow} is in ${nameState(known.states, state)}, of ${rangeOf(acknowledged, begun)}: ${state.slice(0, 200)}`,
    )
  }
  const key = toHex(opened.agreementKey)
  const before = told.get(flow) ?? { key, epoch: 0 }
  if (opened.epoch < before.epoch) throw new Violation(`${flow} fell to epoch ${String(opened.epoch)}`)
  if (before.key !== key) throw new Violation(`${flow} has other keys`)
  told.set(flow, { key, epoch: opened.epoch })
  return found
}

/** The newest that it may be; a step need not change the state. */
const findState = (
  states: readonly string[],
  state: string,
  acknowledged: number,
  begun: number,
): number | undefined => {
  for (let index = Math.min(begun, states.length - 1); index >= Math.max(0, acknowledged); index--)
    if (states[index] === state) return index
  return undefined
}

const isBetween = (
  scenario: Scenario,
  flow: string,
  { states }: ReferenceFlow,
  state: string,
  acknowledged: number,
  begun: number,
): boolean => {
  const between = scenario.flows[flow]?.between
  const [before, after] = [states[Math.max(0, acknowledged)], states[begun]]
  if (between === undefined || before === undefined || after === undefined) return false
  return between(JSON.parse(state), JSON.parse(before), JSON.parse(after))
}

const rangeOf = (acknowledged: number, begun: number): string =>
  acknowledged < begun ? `${String(Math.max(0, acknowledged))} or ${String(begun)}` : String(begun)
const nameState = (states: readonly string[], state: string): string => {
  const index = states.indexOf(state)
  return index === -1 ? 'a state that never was' : `state ${String(index)}`
}

/** A second recovery finds the same; then the next step does what it would have done. */
const checkAgain = async (world: SimulatedWorld, expected: Expected, found: Found): Promise<void> => {
  world.restart('host')
  world.restart('kms')
  const again = await recoverAll(world, expected)
  for (const [flow, state] of Object.entries(found)) {
    if (again[flow] !== state) throw new Violation(`${flow}: a second recovery finds state ${String(again[flow])}`)
    if (expected.scenario.flows[flow]?.steps[state] === undefined) continue
    await orViolation(`${flow} does not go on`, () => world.drive(takeStep(world, flow, state)))
    const after = await orViolation(`${flow} cannot be read`, () => world.drive(world.observe(flow)))
    const wanted = expected.reference.flows[flow]?.states[state + 1]
    if (after !== wanted) throw new Violation(`${flow}, after step ${String(state + 1)}: ${after.slice(0, 200)}`)
  }
}

const orViolation = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    const stuck = error instanceof Stuck ? ', and nothing settles it' : ''
    throw new Violation(`${what}${stuck}: ${describe(error)}`, { cause: error })
  }
}
