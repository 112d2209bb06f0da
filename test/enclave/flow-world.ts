import { aroundStore, type Around } from '../../faults/around.js'
import type { Finding } from '../../enclave/copies.js'
import { openFlow, type OpenedFlow } from '../../enclave/flow.js'
import { parseHeader } from '../../protocol/age-header.js'
import { concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import type { Policy } from '../../kms/policy.js'
import type { Migrate } from '../../protocol/contract.js'
import { KeyriseError } from '../../protocol/errors.js'
import { commitChannel } from '../../host/commits.js'
import { segmentChannel } from '../../host/segments.js'
import { parseFlowId, parseStoreId, type EntryName } from '../../protocol/names.js'
import type { Attester, Clock, CommitChannel, KmsChannel, Random, SegmentChannel, Store } from '../../protocol/ports.js'
import { getHeaders, headerName, pairsAmong, payloadName } from '../../protocol/sealed-pair.js'
import { MemoryStore } from '../../storage/index.js'
import type { TestPlatform } from '../kms/attested-client.js'
import { IMAGE, startInProcess } from '../kms/in-process.js'

export const FLOW = 'flow-1'
export const TASK = 'task-1'

/** Retries happen at once; deadlines never come. */
export const hastyClock: Clock = {
  nowMs: () => 0,
  timer(delayMs, elapsed) {
    const immediate = delayMs < 10_000 ? setImmediate(elapsed) : undefined
    return { [Symbol.dispose]: () => clearImmediate(immediate) }
  },
}

/** A store whose holder may do as it likes with it. */
export class HostStore extends MemoryStore {
  static async of(objects: ReadonlyMap<string, Bytes>): Promise<HostStore> {
    const store = new HostStore()
    for (const [name, bytes] of objects) await store.put(name, bytes)
    return store
  }

  async objects(): Promise<Map<string, Bytes>> {
    const objects = new Map<string, Bytes>()
    for (const name of await this.list('')) objects.set(name, (await this.get(name)) as Bytes)
    return objects
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    await this.delete(name)
    await this.put(name, bytes)
  }

  /** Goes back to what `objects` held. */
  async restore(objects: ReadonlyMap<string, Bytes>): Promise<void> {
    for (const name of await this.list('')) await this.delete(name)
    for (const [name, bytes] of objects) await this.put(name, bytes)
  }

  async names(part: string): Promise<string[]> {
    return (await this.list('')).filter((name) => name.includes(part))
  }

  /** What pairs whose names include `part` are named after; half of one is enough. */
  async pairs(part: string): Promise<string[]> {
    return [...pairsAmong(await this.names(part)).keys()]
  }

  /** The age file that a pair is. */
  async envelope(pair: string): Promise<Bytes> {
    const [newest] = await getHeaders(this, pair)
    const payload = await this.get(payloadName(pair))
    if (newest === undefined || payload === undefined) throw new Error(`${pair} is not whole`)
    return concatBytes(newest.bytes, payload)
  }

  /** Puts an age file in the place of a pair, cut where `headerSize` says. */
  async replacePair(pair: string, envelope: Uint8Array, headerSize = parseHeader(envelope).sizeBytes): Promise<void> {
    for (const name of await this.names(`${pair}.`)) await this.delete(name)
    await this.put(headerName(pair, 1), envelope.subarray(0, headerSize))
    await this.put(payloadName(pair), envelope.subarray(headerSize))
  }
}

/** Called with each operation of an instance, before and after it takes effect; may throw. */
export type Interrupt = (moment: { at: 'before' | 'after'; operation: string; index: number }) => void | Promise<void>

export interface LaunchOptions {
  readonly flow?: string
  readonly task?: string
  readonly image?: Bytes
  readonly interrupt?: Interrupt
  readonly store?: Store
  readonly kms?: KmsChannel
  /** The registered store that the KMS is to read headers in. */
  readonly kmsStore?: string
  /** A host that commits as it likes. */
  readonly commits?: (right: CommitChannel) => CommitChannel
  /** A host that does with segments as it likes. */
  readonly segments?: (right: SegmentChannel) => SegmentChannel
  readonly kmsIdentity?: Bytes
  /** Whose evidence that KMS believes. */
  readonly platform?: TestPlatform
  readonly random?: Random
  readonly found?: Finding
  readonly migrate?: Migrate
  /** Of the image; 1 unless told. */
  readonly svn?: number
}

/** One KMS, one store, and instances of flows between them: all in this process, so that any operation can be made the last. */
export const startWorld = async (policy: Partial<Policy> = {}, stores: ReadonlyMap<string, Store> = new Map()) => {
  const kms = await startInProcess({ policy, stores })
  const store = new HostStore()

  const launch = (options: LaunchOptions = {}): Promise<OpenedFlow> => {
    const image = options.image ?? IMAGE
    const around = interrupting(options.interrupt)
    const channel = options.kms ?? kms.service
    const attester: Attester = {
      attest: ({ nonce, confirmationKey }) =>
        Promise.resolve(
          (options.platform ?? kms.platform).attest({
            nonce: copyBytes(nonce),
            confirmationKey: copyBytes(confirmationKey),
            measurement: image,
            ...(options.svn === undefined ? {} : { svn: options.svn }),
          }),
        ),
    }
    const faulty = {
      store: aroundStore(options.store ?? store, around),
      kms: {
        exchange: (frame: Uint8Array) =>
          around({ operation: 'kms-exchange', subject: '' }, () => channel.exchange(frame)),
      },
    }
    const commits = commitChannel(faulty.store, faulty.kms)
    const segments = segmentChannel(faulty.store, faulty.kms)
    return openFlow({
      ...faulty,
      commits: options.commits?.(commits) ?? commits,
      segments: options.segments?.(segments) ?? segments,
      attester,
      kmsStore: options.kmsStore === undefined ? undefined : parseStoreId(options.kmsStore),
      kmsIdentity: options.kmsIdentity ?? kms.keyring.identity,
      flow: parseFlowId(options.flow ?? FLOW),
      task: parseFlowId(options.task ?? TASK),
      image,
      random: options.random ?? nodeRandom,
      clock: hastyClock,
      ...(options.found === undefined ? {} : { found: options.found }),
      ...(options.migrate === undefined ? {} : { migrate: options.migrate }),
    })
  }
  return { kms, store, launch }
}
export type World = Awaited<ReturnType<typeof startWorld>>

const interrupting = (interrupt: Interrupt | undefined): Around => {
  let count = 0
  return async ({ operation }, work) => {
    const index = count++
    await interrupt?.({ at: 'before', operation, index })
    const answer = await work()
    await interrupt?.({ at: 'after', operation, index })
    return answer
  }
}

/** A dead instance: from the moment on, none of its operations happens and none returns. */
export class Death extends Error {}

/** Kills an instance at its n-th moment: before (and, unless `onlyBefore`, after) an operation takes effect. */
const killAt = (n: number, onlyBefore = false): Kill => {
  const state = { count: 0, dead: false, moment: '' }
  const interrupt: Interrupt = ({ at, operation }) => {
    if (!state.dead && (at === 'before' || !onlyBefore) && state.count++ === n) {
      state.dead = true
      state.moment = `${at} ${operation}`
    }
    if (state.dead) throw new Death(state.moment)
  }
  return { interrupt, state }
}
interface Kill {
  readonly interrupt: Interrupt
  readonly state: { readonly dead: boolean; readonly moment: string }
}

/**
 * Runs `script` with instances that die at moment 0, 1, 2, … until one survives it.
 * @param script - gives each instance that is to die an interrupt of its own.
 * @returns the moments.
 */
export const atEveryMoment = async (
  script: (interrupt: () => Interrupt) => Promise<void>,
  onlyBefore = false,
  { from = 0, step = 1 } = {},
): Promise<string[]> => {
  const moments: string[] = []
  for (let n = from; ; n += step) {
    let state: Kill['state'] | undefined
    await script(() => {
      const kill = killAt(n, onlyBefore)
      state = kill.state
      return kill.interrupt
    })
    if (state?.dead !== true) return moments
    moments.push(state.moment)
  }
}

/** Of all pairs of moments, every third: the sweep dies twice in a row as well. */
const PAIR_STEP = 3

/**
 * Runs `script` for pairs of moments, of which only those before an operation: each first one, and each second one beside some.
 * @returns the first ones.
 */
export const atPairsOfMoments = async (
  script: (first: () => Interrupt, second: () => Interrupt) => Promise<void>,
): Promise<string[]> => {
  let index = 0
  return atEveryMoment(async (first) => {
    const stride = { from: index++ % PAIR_STEP, step: PAIR_STEP }
    await atEveryMoment((second) => script(first, second), true, stride)
  }, true)
}

/** True when `work` fails, as everything of a dead instance does. */
export const dies = async (work: () => Promise<unknown>): Promise<boolean> => {
  try {
    await work()
    return false
  } catch {
    return true
  }
}

/** Fails every operation of one kind while `active`, its effect having happened (`after`) or not (`before`). */
export const failing = (
  operation: string,
  at: 'before' | 'after',
  code: ConstructorParameters<typeof KeyriseError>[0],
) => {
  const state = { active: false, count: 0 }
  const interrupt: Interrupt = (moment) => {
    if (!state.active || moment.operation !== operation || moment.at !== at) return
    state.count++
    throw new KeyriseError(code)
  }
  return { interrupt, state }
}

export const text = (value: string): Bytes => copyBytes(new TextEncoder().encode(value))
export const readText = async ({ flow }: OpenedFlow, name: EntryName): Promise<string | undefined> => {
  const bytes = await flow.read(name)
  return bytes && new TextDecoder().decode(bytes)
}

/** Everything that a flow holds, as text. */
export const readAll = async (opened: OpenedFlow): Promise<Record<string, string | undefined>> => {
  const all: Record<string, string | undefined> = {}
  for (const { name } of opened.flow.list()) all[name] = await readText(opened, name)
  return all
}
