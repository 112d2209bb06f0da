import { copyBytes, equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import type { Flow } from '../protocol/contract.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import {
  MESSAGE_SIZE_BYTES_MAX,
  RECORDED_CHECKPOINT_COUNT_MAX,
  RECORDED_REPLY_SIZE_BYTES_MAX,
  VALUE_DEPTH_MAX,
  VALUE_NODE_COUNT_MAX,
} from '../protocol/limits.js'
import { decodeMessage, encodeMessage } from '../protocol/message-codec.js'
import { runtimeEntryName, type EntryName } from '../protocol/names.js'
import type { CancelSignal } from '../protocol/ports.js'
import type { ValueLimits } from '../protocol/values.js'
import {
  decodeRecords,
  encodeRecords,
  withRecord,
  type BeforeImage,
  type CallRecord,
  type CallRecords,
} from './call-records.js'
import type { Change, Checkpoints } from './checkpoint.js'
import type { EpochState, Location } from './epoch-file.js'

const RECORDS = runtimeEntryName('calls')
/** What a message may hold, and what is put around it here. */
const ROOMY: ValueLimits = {
  sizeBytesMax: MESSAGE_SIZE_BYTES_MAX + 1024,
  depthMax: VALUE_DEPTH_MAX + 1,
  nodeCountMax: VALUE_NODE_COUNT_MAX + 2,
}

/** A call that its host may repeat: it has its effect once, and every repetition gets the same outcome. */
export interface KeyedCall {
  readonly key: string
  readonly ecall: string
  /** As the gate admitted it, before any schema. */
  readonly argument: unknown
  readonly signal: CancelSignal
  /** Runs the handler with a flow whose checkpoints are the call's, and gives the checked reply, ready to cross. */
  readonly serve: (flow: Flow) => Promise<unknown>
}

/** What the flow lends, and no author gets. */
export interface RecordStore {
  readonly checkpoints: Checkpoints
  readonly read: (name: EntryName, location: Location, state: EpochState) => Promise<Bytes>
  /** The flow as a keyed call sees it. */
  readonly under: (journal: CallJournal) => Flow
}

/** What became of a call: its reply, or which of the author's refusals. Both are final. */
type Outcome = { readonly value: unknown } | { readonly reason: string }
type Ended = Outcome | { readonly error: unknown; readonly isCancelled: boolean }

/**
 * Calls with an idempotency key. Key, input and outcome are committed with one checkpoint when the handler returns; where the
 * handler makes checkpoints of its own, each carries the call's record, so that a rerun after a crash gets their epochs and
 * stores nothing twice. A refusal of the author's own is an outcome like a reply: a repetition must not have an effect that
 * the first call was refused. Any other failure is none, and the call may be run again. Crash: at any point, repeat the call.
 */
export class IdempotentCalls {
  readonly #store: RecordStore
  readonly #running = new Map<string, { readonly digest: Bytes; readonly ended: Promise<Ended> }>()

  constructor(store: RecordStore) {
    this.#store = store
  }

  /**
   * The call's reply, of this run or of an earlier one.
   * @throws {KeyriseError} ERR_IDEMPOTENCY_CONFLICT: the key stands for another call; ERR_APPLICATION, as recorded; ERR_SIZE_LIMIT:
   * the reply is too large to be recorded; what the handler throws; as `checkpoint`.
   */
  async run(call: KeyedCall): Promise<unknown> {
    const digest = digestOf(call)
    for (;;) {
      const running = this.#running.get(call.key)
      if (running === undefined) return reply(await this.#lead(call, digest))
      assertSame(running.digest, digest)
      const ended = await running.ended
      // Whoever gave that run up did not speak for this one.
      if (!('isCancelled' in ended && ended.isCancelled)) return reply(ended)
    }
  }

  async #lead(call: KeyedCall, digest: Bytes): Promise<Ended> {
    const ended = this.#serve(call, digest).catch((error: unknown): Ended => ({
      error,
      isCancelled: call.signal.aborted,
    }))
    this.#running.set(call.key, { digest, ended })
    try {
      return await ended
    } finally {
      this.#running.delete(call.key)
    }
  }

  async #serve(call: KeyedCall, digest: Bytes): Promise<Outcome> {
    const { checkpoints, under } = this.#store
    const records = await this.#load(await checkpoints.settled())
    const record = records.get(call.key)
    if (record !== undefined) assertSame(record.digest, digest)
    if (record !== undefined && record.outcome !== null) return decodeOutcome(record.outcome)
    const journal = new CallJournal({
      record: record ?? { digest, epochs: [], images: [], outcome: null },
      commit: (make) => this.#commit(call.key, make),
      read: this.#store.read,
      imageName: (checkpoint, index) => imageName(call.key, checkpoint, index),
      checkpoints,
    })
    const outcome = await settle(call.serve(under(journal)))
    // What is recorded in a flow that was destroyed is gone with it.
    if (!journal.isDestroyed) await this.#end(call.key, digest, encodeOutcome(outcome))
    return outcome
  }

  async #end(key: string, digest: Bytes, outcome: Bytes): Promise<void> {
    await this.#commit(key, (_state, record) =>
      Promise.resolve({ changes: [], record: { digest, epochs: record?.epochs ?? [], images: [], outcome } }),
    )
  }

  /** One checkpoint: what `make` changes, and the record of `key` with it. */
  async #commit(key: string, make: MakeRecorded): Promise<number> {
    const made: Change[] = []
    try {
      return await this.#store.checkpoints.commit(async (state) => {
        const records = await this.#load(state)
        const old = records.get(key)
        const { changes, record } = await make(state, old)
        const next = withRecord(records, key, record, (other) => this.#running.has(other))
        const superfluous = [...(old === undefined ? [] : [old]), ...next.dropped].flatMap(({ images }) => images)
        const kept = new Set(record.images.map((image) => image.kept))
        for (const image of superfluous)
          if (image.kept !== null && !kept.has(image.kept)) made.push({ name: image.kept, value: null })
        made.push(...changes, entry(RECORDS, encodeRecords(next.records)))
        return made
      })
    } finally {
      for (const { value } of made) value?.bytes[Symbol.dispose]()
    }
  }

  async #load(state: EpochState): Promise<CallRecords> {
    const location = state.entries.get(RECORDS)
    if (location === undefined) return new Map()
    using bytes = Secret.take(await this.#store.read(RECORDS, location, state))
    return bytes.expose(decodeRecords)
  }
}

type MakeRecorded = (
  state: EpochState,
  record: CallRecord | undefined,
) => Promise<{ readonly changes: readonly Change[]; readonly record: CallRecord }>

interface JournalOptions {
  /** As it is when the call starts. */
  readonly record: CallRecord
  readonly commit: (make: MakeRecorded) => Promise<number>
  readonly read: RecordStore['read']
  readonly imageName: (checkpoint: number, index: number) => EntryName
  readonly checkpoints: Checkpoints
}

/**
 * The checkpoints of one run of a keyed call. Those that an earlier run stored are not stored again, and until the run has come
 * to one of them, what it reads of the entries that it changed is what they were before.
 */
export class CallJournal {
  readonly #options: JournalOptions
  readonly #read = new Set<EntryName>()
  #count = 0
  isDestroyed = false

  constructor(options: JournalOptions) {
    this.#options = options
  }

  /** The epoch of the checkpoint that the handler makes now, where an earlier run stored it. */
  replay(): number | undefined {
    const epoch = this.#options.record.epochs[this.#count]
    if (epoch !== undefined) this.#count++
    return epoch
  }

  /** Stores a checkpoint of the handler's together with the call's record. */
  commit(changes: readonly Change[]): Promise<number> {
    return this.#options.commit(async (state, record) => {
      const { digest } = this.#options.record
      const epochs = [...(record?.epochs ?? []), state.head.epoch + 1]
      if (epochs.length > RECORDED_CHECKPOINT_COUNT_MAX)
        throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'checkpoints of a call with a key' })
      const before = await this.#before(changes, state, epochs.length - 1)
      this.#count = epochs.length
      return {
        changes: [...changes, ...before.changes],
        record: { digest, epochs, images: [...(record?.images ?? []), ...before.images], outcome: null },
      }
    })
  }

  /**
   * What the handler reads: undefined where it reads what is committed; otherwise what the entry was before this run came to
   * the checkpoint that changed it.
   */
  async replayRead(name: EntryName): Promise<{ readonly bytes: Bytes | undefined } | undefined> {
    this.#read.add(name)
    const image = this.#options.record.images.find(
      ({ entry: changed, checkpoint }) => changed === name && checkpoint >= this.#count,
    )
    if (image === undefined) return undefined
    if (image.kept === null) return { bytes: undefined }
    const state = await this.#options.checkpoints.settled()
    const location = state.entries.get(image.kept)
    if (location === undefined) throw new KeyriseError('ERR_STATE_LOST', { detail: name })
    return { bytes: await this.#options.read(image.kept, location, state) }
  }

  /** Of the entries that the handler read and now changes. */
  async #before(
    changes: readonly Change[],
    state: EpochState,
    checkpoint: number,
  ): Promise<{ changes: Change[]; images: BeforeImage[] }> {
    const kept: Change[] = []
    const images: BeforeImage[] = []
    for (const { name } of changes) {
      if (!this.#read.has(name)) continue
      const location = state.entries.get(name)
      if (location === undefined) {
        images.push({ entry: name, checkpoint, kept: null })
        continue
      }
      const image = this.#options.imageName(checkpoint, images.length)
      kept.push(entry(image, await this.#options.read(name, location, state)))
      images.push({ entry: name, checkpoint, kept: image })
    }
    return { changes: kept, images }
  }
}

const entry = (name: EntryName, bytes: Bytes): Change => ({ name, value: { bytes: Secret.take(bytes), direct: false } })

/** Told by the key's digest, since a key may hold characters that a name may not. */
const imageName = (key: string, checkpoint: number, index: number): EntryName =>
  runtimeEntryName(`before/${toHex(sha256(encodeMessage(key))).slice(0, 32)}/${checkpoint}-${index}`)

const digestOf = ({ ecall, argument }: KeyedCall): Bytes =>
  sha256(encodeMessage(argument === undefined ? [ecall] : [ecall, argument], ROOMY))

const assertSame = (known: Bytes, digest: Bytes): void => {
  if (!equalPublicBytes(known, digest)) throw new KeyriseError('ERR_IDEMPOTENCY_CONFLICT')
}

/** @throws {KeyriseError} what is no outcome. */
const settle = async (served: Promise<unknown>): Promise<Outcome> => {
  try {
    return { value: await served }
  } catch (error) {
    if (error instanceof KeyriseError && error.code === 'ERR_APPLICATION' && error.reason !== undefined)
      return { reason: error.reason }
    throw error
  }
}

const reply = (ended: Ended): unknown => {
  if ('value' in ended) return ended.value
  throw 'reason' in ended ? new KeyriseError('ERR_APPLICATION', { reason: ended.reason }) : ended.error
}

const encodeOutcome = (outcome: Outcome): Bytes => {
  const encoded = encodeMessage('reason' in outcome ? { reason: outcome.reason } : { value: outcome.value }, ROOMY)
  if (encoded.length > RECORDED_REPLY_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'the reply to a call with a key' })
  return encoded
}

const decodeOutcome = (encoded: Bytes): Outcome => {
  const outcome = decodeMessage(copyBytes(encoded), ROOMY) as { readonly value?: unknown; readonly reason?: string }
  return outcome.reason === undefined ? { value: outcome.value } : { reason: outcome.reason }
}
