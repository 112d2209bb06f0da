import { hash } from 'node:crypto'
import { isTemporaryName } from '../storage/durable.js'
import {
  changedFile,
  changedPage,
  crashTree,
  PAGE_SIZE_BYTES,
  pagesOf,
  seenTree,
  type DiskImage,
  type DiskMoment,
  type FileChange,
} from './disk.js'
import { SeededRandom } from './seeded-random.js'
import type { Disks, Machine, WorldOperation } from './simulated-world.js'

/**
 * A run as the moments between its operations, and from it every state in which a crash could leave the disks: each prefix of
 * the run × each subset of what no fsync had settled.
 */

/** How far a flow is: states are numbered, 0 after its first launch, n after its n-th step. */
export interface Progress {
  /** The last state that somebody was told of; -1 before the launch resolved. */
  readonly acknowledged: number
  /** The last state that may have come about. */
  readonly begun: number
}
export type FlowProgress = Readonly<Record<string, Progress>>

/** A moment just after an operation. */
export interface TracePoint {
  /** The operation, and how often it had come before: `kms sync /kms/ledger.log #2`. */
  readonly name: string
  readonly on: WorldOperation['on']
  readonly disks: Readonly<Record<Machine, DiskMoment>>
  readonly progress: FlowProgress
}

/** Which machines lose their power; the other goes on with what was under way, until it needs the one that is gone. */
export const CRASHES = ['both', 'host', 'kms'] as const
export type Crash = (typeof CRASHES)[number]

/** One state of all disks after a crash, by where it came from. */
export interface CrashState {
  readonly point: number
  readonly crash: Crash
  /** Which unsynced changes of each machine’s disk were kept, by index. */
  readonly kept: Readonly<Record<Machine, readonly number[]>>
  readonly progress: FlowProgress
  /** A digest of what the disks hold. */
  readonly key: string
  /** The same, without what temporary files hold: states that agree in it are one to a recovery, which never reads those. */
  readonly recoveryKey: string
}

/** Names operations as they come, each with how often it came before. */
export class OperationNames {
  readonly #counts = new Map<string, number>()

  next({ on, name }: WorldOperation): string {
    const operation = on === name ? name : `${on} ${name}`
    const count = (this.#counts.get(operation) ?? 0) + 1
    this.#counts.set(operation, count)
    return `${operation} #${String(count)}`
  }
}

export class TraceRecorder {
  readonly points: TracePoint[] = []
  readonly #names = new OperationNames()
  readonly #moments: () => Readonly<Record<Machine, DiskMoment>>
  readonly #progress: () => FlowProgress

  constructor(moments: () => Readonly<Record<Machine, DiskMoment>>, progress: () => FlowProgress) {
    this.#moments = moments
    this.#progress = progress
  }

  record(operation: WorldOperation): void {
    const { on } = operation
    const last = on === 'ecall' || on === 'ocall' || on === 'store' ? this.points.at(-1) : undefined
    // A message between a host and its enclave, or to a store, leaves the disks as they were.
    const disks = last?.disks ?? this.#moments()
    this.points.push({ name: this.#names.next(operation), on, disks, progress: this.#progress() })
  }
}

/** At most so many unsynced changes have all their subsets tried; of more, so many subsets are chosen at random. */
const EXHAUSTIVE_COUNT_MAX = 14
/** Of one machine’s disk, however many of the other’s each is combined with. */
const SUBSET_COUNT_MIN = 8
const OTHER: Readonly<Record<Machine, Machine>> = { host: 'kms', kms: 'host' }

const isSame = (a: FlowProgress, b: FlowProgress): boolean =>
  Object.entries(a).every(([flow, { acknowledged, begun }]) => {
    const other = b[flow]
    return other?.acknowledged === acknowledged && other.begun === begun
  })

/** True where a crash leaves what one leaves that comes just before: nothing but a message inside the host came between. */
export const isLikeLast = (points: readonly TracePoint[], point: number): boolean => {
  const [last, now] = [points[point - 1], points[point]]
  return last !== undefined && now?.disks === last.disks && isSame(now.progress, last.progress)
}

/** The moments from which the disks of a crash at `point` come: a machine that lives on gets further than the other. */
const momentsOf = (points: readonly TracePoint[], point: number, crash: Crash): readonly [TracePoint, TracePoint] => {
  const dead = points[point] as TracePoint
  if (crash === 'both') return [dead, dead]
  // What would have needed the dead machine never happens: a host asks, a KMS answers and may have its operator at work.
  const ending: readonly WorldOperation['on'][] = crash === 'host' ? ['request', 'store'] : ['reply', 'kms']
  let last = point
  for (let next = point + 1; next < points.length; next++) {
    const { on, progress } = points[next] as TracePoint
    if (ending.includes(on)) break
    // The next step is the host’s to begin, also where it is the operator’s.
    if (crash === 'host' && !isSame(progress, dead.progress)) break
    if (on === OTHER[crash]) last = next
  }
  return [dead, points[last] as TracePoint]
}

/** The disks of a crash state, for `Disk.of`. */
export const disksOf = (
  points: readonly TracePoint[],
  { point, crash, kept }: Pick<CrashState, 'point' | 'crash' | 'kept'>,
): Disks => {
  const [dead, living] = momentsOf(points, point, crash)
  const image = (machine: Machine): DiskImage =>
    crash !== 'both' && crash !== machine
      ? seenTree(living.disks[machine], changedFile)
      : crashTree(dead.disks[machine], kept[machine], changedFile)
  return { host: image('host'), kms: image('kms') }
}

/** Chooses at random: a number from 0 to below `limit`. */
export type Choose = (limit: number) => number

/** The same choices for the same seed. */
export const chooser = (seed: string): Choose => {
  const random = new SeededRandom(seed)
  const words = new Uint32Array(256)
  let used = words.length
  return (limit) => {
    if (used === words.length) {
      random.fill(new Uint8Array(words.buffer))
      used = 0
    }
    return (words[used++] as number) % limit
  }
}

/** The subsets of `count` changes, as lists of indexes: all of them, or `sampleCount` with none, all and each single one among them. */
function* subsets(count: number, choose: Choose, sampleCount: number): Generator<readonly number[]> {
  const all = Array.from({ length: count }, (_, index) => index)
  if (count <= EXHAUSTIVE_COUNT_MAX && 2 ** count <= sampleCount) {
    for (let bits = 0; bits < 2 ** count; bits++) yield all.filter((index) => (bits & (1 << index)) !== 0)
    return
  }
  yield []
  yield all
  for (const index of all) {
    yield [index]
    yield all.filter((other) => other !== index)
    // Disks mostly keep the order in which they were told.
    yield all.slice(0, index)
  }
  for (let sample = 3 * count + 2; sample < sampleCount; sample++) yield all.filter(() => choose(2) === 1)
}

export interface EnumerateOptions {
  readonly choose: Choose
  /** Of one point and crash. */
  readonly subsetCountMax: number
  readonly crashes?: readonly Crash[]
}

/** Every state that a crash at `point` could leave, some of them the same. */
export function* crashStates(
  points: readonly TracePoint[],
  point: number,
  { choose, subsetCountMax, crashes = CRASHES }: EnumerateOptions,
): Generator<CrashState> {
  for (const crash of crashes) {
    const [dead, living] = momentsOf(points, point, crash)
    // Nobody hears what a KMS does for a host that is gone.
    const progress = crash === 'kms' ? joined(dead.progress, living.progress) : dead.progress
    // Of each disk what it may hold, once, however many of the other’s that is combined with.
    const held = (machine: Machine, countMax: number): Held[] =>
      crash !== 'both' && crash !== machine
        ? [{ kept: [], ...digestsOf(seenTree(living.disks[machine], digestOf)) }]
        : Array.from(subsets(dead.disks[machine].unsynced.length, choose, countMax), (kept) => ({
            kept,
            ...digestsOf(crashTree(dead.disks[machine], kept, digestOf)),
          }))
    const ofKms = held('kms', subsetCountMax)
    // Of both together so many as of one.
    const ofHost = held('host', Math.max(SUBSET_COUNT_MIN, Math.floor(subsetCountMax / ofKms.length)))
    for (const host of ofHost)
      for (const kms of ofKms)
        yield {
          point,
          crash,
          kept: { host: host.kept, kms: kms.kept },
          progress,
          key: keyOf(host.all, kms.all),
          recoveryKey: keyOf(host.read, kms.read),
        }
  }
}

/** What was acknowledged by the earlier point or by what the living machine did afterwards. */
const joined = (dead: FlowProgress, living: FlowProgress): FlowProgress =>
  Object.fromEntries(
    Object.entries(dead).map(([flow, { acknowledged, begun }]) => [
      flow,
      {
        acknowledged: Math.max(acknowledged, living[flow]?.acknowledged ?? -1),
        begun: Math.max(begun, living[flow]?.begun ?? 0),
      },
    ]),
  )

/**
 * Where two ways lead to one state of the disks, it has to satisfy both. Steps that change nothing make a later one begun, or
 * acknowledged, with the disks as they were: the one that was acknowledged counts.
 */
export const narrowed = (a: FlowProgress, b: FlowProgress): FlowProgress =>
  Object.fromEntries(
    Object.entries(a).map(([flow, one]) => {
      const other = b[flow] ?? one
      const acknowledged = Math.max(one.acknowledged, other.acknowledged)
      return [flow, { acknowledged, begun: Math.max(acknowledged, Math.min(one.begun, other.begun)) }]
    }),
  )

/** What of one disk is kept, and digests of what it then holds: of all of it, and of what a recovery reads. */
interface Held {
  readonly kept: readonly number[]
  readonly all: string
  readonly read: string
}

const sha256 = (content: Uint8Array | string): string => hash('sha256', content, 'base64url')

/** Digests of pages: by the bytes that are durable, then by the page and the changes to it. A page has few contents, a file many. */
const digests = new WeakMap<Uint8Array, Map<string, string>>()
const changeNumbers = new WeakMap<FileChange, number>()
let changeCount = 0

const numberOf = (change: FileChange): number => {
  const known = changeNumbers.get(change) ?? ++changeCount
  changeNumbers.set(change, known)
  return known
}

/** Of a file’s size and its pages. */
const digestOf = (bytes: Uint8Array, changes: readonly FileChange[]): string => {
  const known = digests.get(bytes) ?? new Map<string, string>()
  digests.set(bytes, known)
  const whole = changes.length === 0 ? known.get('') : undefined
  if (whole !== undefined) return whole
  const { sizeBytes, changesOf } = pagesOf(bytes, changes)
  let pages = String(sizeBytes)
  for (let page = 0; page * PAGE_SIZE_BYTES < sizeBytes; page++) {
    const ofPage = changesOf.get(page) ?? []
    const name = `${String(page)}:${ofPage.map(numberOf).join()}`
    const digest = known.get(name) ?? sha256(changedPage(bytes, page, ofPage))
    known.set(name, digest)
    pages += digest
  }
  const digest = sha256(pages)
  if (changes.length === 0) known.set('', digest)
  return digest
}

/** What a write leaves until its rename. */
export const isTemporaryPath = (path: string): boolean => isTemporaryName(path.slice(path.lastIndexOf('/') + 1))

/** The names of temporary files count without the process in them. */
const digestsOf = (tree: ReadonlyMap<string, string | null>): Pick<Held, 'all' | 'read'> => {
  let [all, read] = ['', '']
  for (const [path, digest] of tree) {
    const name = `${path.replace(/\.\d+-\d+\.tmp$/, '.tmp')}\0`
    all += name + (digest ?? '')
    read += name + (digest === null || isTemporaryPath(path) ? '' : digest)
  }
  return { all: sha256(all), read: sha256(read) }
}

/** Twelve bytes of a digest over both disks. */
const keyOf = (host: string, kms: string): string => sha256(`${host}${kms}`).slice(0, 16)
