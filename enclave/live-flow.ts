import { copyBytes, type Bytes } from '../protocol/bytes.js'
import type {
  BulkItem,
  CheckpointValue,
  Flow,
  FlowEntry,
  ResealedEntry,
  RosterMember,
  VerifiedObject,
} from '../protocol/contract.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { lend } from '../protocol/live-secrets.js'
import { MESSAGE_SIZE_BYTES_MAX, ROSTER_VALUE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { isRuntimeEntry, kindOf, parseEntryName, parsePath, type EntryName, type FlowId } from '../protocol/names.js'
import type { CancelSignal, Clock, Random, SegmentChannel, Store } from '../protocol/ports.js'
import { BulkReader } from './bulk-reader.js'
import { Checkpoints, type Change } from './checkpoint.js'
import { statusOf, type Finding } from './copies.js'
import { isOfItem } from './entry-failures.js'
import { EntryReader } from './entry-reader.js'
import type { FlowIdentity, FlowKeys } from './flow-keys.js'
import { IdempotentCalls, type CallJournal } from './idempotency.js'
import type { KmsClient } from './kms-client.js'
import { formatObjectName } from './object-names.js'
import type { Recovered } from './recovery.js'
import { resealEntries } from './reseal.js'
import { inspectRoot } from './root.js'
import { verifyRoster } from './roster.js'
import { deleteObjects, listObjects } from './stored-objects.js'
import { Verifier } from './verify.js'

/** What surrounds an entry on its way to the store and back: header, tags of chunks, the call. */
const DIRECT_OVERHEAD_BYTES_MAX = 128 * 1024
/** An entry that could be stored and not be read again would be lost. */
const DIRECT_SIZE_BYTES_MAX = MESSAGE_SIZE_BYTES_MAX - DIRECT_OVERHEAD_BYTES_MAX
const PUBLISHED_COUNT_MAX = 16

export interface LiveFlowOptions {
  readonly identity: FlowIdentity
  readonly store: Store
  readonly kms: KmsClient
  readonly originKey: () => Secret
  readonly segments: SegmentChannel
  readonly clock: Clock
  readonly kmsIdentity: Bytes
  readonly random: Random
  readonly found: Finding
  readonly recovered: Recovered
}

/** A flow that this instance holds: what an author's code gets, and nothing that it could keep a key with. */
export class LiveFlow implements Flow {
  readonly #options: LiveFlowOptions
  readonly #keys: FlowKeys
  readonly #reader: EntryReader
  readonly #bulk: BulkReader
  readonly #checkpoints: Checkpoints
  readonly #verifier: Verifier
  /** Of the keyed call that sees the flow so. */
  readonly #journal: CallJournal | undefined

  constructor(options: LiveFlowOptions | LiveFlow, journal?: CallJournal) {
    this.#journal = journal
    if (options instanceof LiveFlow) {
      this.#options = options.#options
      this.#keys = options.#keys
      this.#reader = options.#reader
      this.#bulk = options.#bulk
      this.#checkpoints = options.#checkpoints
      this.#verifier = options.#verifier
      return
    }
    const { identity, store, kms, segments, clock, found, recovered } = options
    const { keys, incarnation, state, garbage, plaintext } = recovered
    this.#options = options
    this.#keys = keys
    this.#reader = new EntryReader({ flow: identity.flow, store, keys, kms, found })
    this.#bulk = new BulkReader({ flow: identity.flow, store, kms, segments, clock })
    this.#checkpoints = new Checkpoints({
      flow: identity.flow,
      store,
      keys,
      kms,
      reader: this.#reader,
      incarnation,
      state,
      garbage,
    })
    this.#verifier = new Verifier({
      settled: () => this.#checkpoints.settled(),
      root: keys.rootObject,
      inspect: (wanted) => this.#reader.inspect(wanted),
      inspectRoot: () => inspectRoot(options, keys.rootObject),
      found,
    })
    if (plaintext !== undefined) this.#reader.hold(state.object, plaintext)
  }

  /** The flow's keyed calls: for the runtime, and no author's to make. */
  static callsOf(flow: LiveFlow): IdempotentCalls {
    return new IdempotentCalls({
      checkpoints: flow.#checkpoints,
      read: (name, location, state) => flow.#reader.read(name, location, state),
      under: (journal) => new LiveFlow(flow, journal),
    })
  }

  /** Commits the flow's entries, as they are, as its next epoch: for the runtime. */
  static async restate(flow: LiveFlow): Promise<void> {
    await flow.#checkpoints.restate()
  }

  get id(): FlowId {
    return this.#options.identity.flow
  }

  get task(): FlowId {
    return this.#options.identity.task
  }

  get epoch(): number {
    return this.#checkpoints.state.head.epoch
  }

  get agreementKey(): Bytes {
    this.#checkpoints.assertLive()
    return this.#keys.agreementKey
  }

  async checkpoint(entries: Readonly<Partial<Record<EntryName, CheckpointValue>>>): Promise<number> {
    // Copied before the first await: what the caller does with its buffers afterwards is its own affair.
    return this.#commit(readChanges(entries))
  }

  async delete(names: readonly EntryName[]): Promise<number> {
    const changes = [...new Set(names.map(parseEntryName))].map((name): Change => ({ name, value: null }))
    const replayed = this.#journal?.replay()
    if (replayed !== undefined) return replayed
    const state = await this.#checkpoints.settled()
    for (const { name } of changes)
      if (!state.entries.has(name)) throw new KeyriseError('ERR_ENTRY_MISSING', { detail: name })
    return this.#commit(changes)
  }

  async read(claimedName: EntryName): Promise<Bytes | undefined> {
    const name = parseEntryName(claimedName)
    const replayed = await this.#journal?.replayRead(name)
    if (replayed !== undefined) return replayed.bytes && lend(replayed.bytes)
    for (;;) {
      const state = await this.#checkpoints.settled()
      const location = state.entries.get(name)
      if (location === undefined) return undefined
      try {
        return lend(await this.#reader.read(name, location, state))
      } catch (error) {
        this.#checkpoints.assertLive()
        // Once a newer state has dropped the object, its absence is no loss.
        if (this.#checkpoints.state.entries.get(name) !== location) continue
        if (isOfItem(error)) this.#options.found(formatObjectName(location.object.name), statusOf(error))
        throw error
      }
    }
  }

  readBulk(
    claimedNames: readonly EntryName[],
    { signal }: { readonly signal?: CancelSignal } = {},
  ): AsyncIterable<BulkItem> {
    return this.#readBulk(claimedNames.map(parseEntryName), signal)
  }

  list(): readonly FlowEntry[] {
    this.#checkpoints.assertLive()
    const { entries } = this.#checkpoints.state
    return [...entries]
      .filter(([name]) => !isRuntimeEntry(name))
      .map(([name, { object, sizeBytes }]) => ({ name, kind: kindOf(name), epoch: object.name.epoch, sizeBytes }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  reseal({ since, signal }: Parameters<Flow['reseal']>[0] = {}): AsyncIterable<ResealedEntry> {
    this.#checkpoints.assertLive()
    return resealEntries({
      checkpoints: this.#checkpoints,
      read: (name, location, state) => this.#reader.read(name, location, state),
      since,
      signal,
    })
  }

  verify({ after, signal }: Parameters<Flow['verify']>[0] = {}): AsyncIterable<VerifiedObject> {
    this.#checkpoints.assertLive()
    return this.#verifier.verify(after, signal)
  }

  seal(step: string, bytes: Uint8Array): Bytes {
    this.#checkpoints.assertLive()
    return this.#keys.sealStep(parsePath(step), bytes, this.#checkpoints.incarnation)
  }

  open(step: string, envelope: Uint8Array): Bytes {
    this.#checkpoints.assertLive()
    return lend(this.#keys.openStep(parsePath(step), envelope))
  }

  sign(message: Uint8Array): Bytes {
    this.#checkpoints.assertLive()
    return this.#keys.sign(message)
  }

  agree(peerKey: Uint8Array, step: string): Bytes {
    this.#checkpoints.assertLive()
    using agreed = this.#keys.agree(peerKey, parsePath(step))
    return lend(agreed.expose(copyBytes))
  }

  async publish(values: Readonly<Record<string, Uint8Array>>): Promise<void> {
    this.#checkpoints.assertLive()
    const published = Object.entries(values).map(([name, value]) => [parsePath(name), copyBytes(value)] as const)
    if (
      published.length > PUBLISHED_COUNT_MAX ||
      published.some(([, value]) => value.length > ROSTER_VALUE_SIZE_BYTES_MAX)
    ) {
      throw new KeyriseError('ERR_SIZE_LIMIT', {
        detail: `${PUBLISHED_COUNT_MAX} values of ${ROSTER_VALUE_SIZE_BYTES_MAX} bytes`,
      })
    }
    await this.#options.kms.publish(this.#checkpoints.incarnation, this.#keys.signingKey, Object.fromEntries(published))
  }

  get receipts(): readonly Bytes[] {
    return this.#options.kms.receipts
  }

  async roster(): Promise<readonly RosterMember[]> {
    this.#checkpoints.assertLive()
    const { kms, kmsIdentity, identity } = this.#options
    return verifyRoster(await kms.roster(), kmsIdentity, identity.task)
  }

  destroy(): Promise<void> {
    return this.#checkpoints.inTurn(async () => {
      const { kms } = this.#options
      try {
        await kms.destroy(this.#checkpoints.incarnation)
      } catch (error) {
        // An earlier request whose answer was lost.
        if (!isKeyriseError(error, 'ERR_FLOW_DESTROYED')) throw error
      }
      if (this.#journal !== undefined) this.#journal.isDestroyed = true
      this.#end('ERR_FLOW_DESTROYED')
      await this.#deleteObjects()
    })
  }

  /** Zero-fills everything. Safe to repeat. */
  wipe(): void {
    this.#end('ERR_ENCLAVE_CLOSED')
  }

  async *#readBulk(names: readonly EntryName[], signal: CancelSignal | undefined): AsyncGenerator<BulkItem> {
    const { entries } = await this.#checkpoints.settled()
    const items = this.#bulk.read({
      names,
      signal,
      locate: (name) => entries.get(name),
      read: (name) => this.#readItem(name),
      // Once a newer state has dropped the object, its absence is no loss.
      isCurrent: (name, { object }) => this.#checkpoints.state.entries.get(name)?.object === object,
    })
    for await (const item of items) {
      if ('bytes' in item) lend(item.bytes)
      yield item
    }
  }

  async #readItem(name: EntryName): Promise<BulkItem> {
    try {
      const bytes = await this.read(name)
      return bytes === undefined ? { name, error: new KeyriseError('ERR_ENTRY_MISSING') } : { name, bytes }
    } catch (error) {
      if (isOfItem(error)) return { name, error }
      throw error
    }
  }

  #end(code: 'ERR_FLOW_DESTROYED' | 'ERR_ENCLAVE_CLOSED'): void {
    const reason = new KeyriseError(code)
    this.#checkpoints.end(reason)
    this.#bulk.end(reason)
    this.#reader[Symbol.dispose]()
    this.#keys[Symbol.dispose]()
    this.#options.kms[Symbol.dispose]()
  }

  async #commit(changes: readonly Change[]): Promise<number> {
    try {
      return this.#journal?.replay() ?? (await (this.#journal ?? this.#checkpoints).commit(changes))
    } finally {
      for (const { value } of changes) value?.bytes[Symbol.dispose]()
    }
  }

  /** The ciphertexts say nothing without the keys, and the ledger's tombstone outlives them: what fails to go may stay. */
  async #deleteObjects(): Promise<void> {
    const { store, identity } = this.#options
    const objects = await listObjects(store, identity.flow).catch(() => [])
    await deleteObjects(store, identity.flow, objects)
  }
}

/** All are checked before the first is copied, so that a refusal leaves no copy behind. */
const readChanges = (entries: Readonly<Partial<Record<EntryName, CheckpointValue>>>): Change[] =>
  Object.entries(entries)
    .map(([claimedName, value]) => {
      const name = parseEntryName(claimedName)
      if (value === undefined) throw new KeyriseError('ERR_VALUE_UNSUPPORTED', { detail: name })
      const [bytes, direct] = value instanceof Uint8Array ? [value, false] : [value.bytes, true]
      if (direct && bytes.length > DIRECT_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: name })
      return { name, bytes, direct }
    })
    .map(({ name, bytes, direct }) => ({ name, value: { bytes: Secret.own(copyBytes(bytes)), direct } }))
