import type { Bytes } from '../protocol/bytes.js'
import { envelopeDigest } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { CHECKPOINT_SIZE_BYTES_MAX, ENTRY_COUNT_MAX } from '../protocol/limits.js'
import type { EntryName, FlowId } from '../protocol/names.js'
import { STORE_ERROR_CODES, type Store } from '../protocol/ports.js'
import { packEpoch, stateOf, type EpochIndex, type EpochState, type StoredObject } from './epoch-file.js'
import type { EntryReader } from './entry-reader.js'
import type { FlowKeys } from './flow-keys.js'
import type { KmsClient } from './kms-client.js'
import type { ObjectFirst } from './kms-session.js'
import { formatObjectName, storeName, type ObjectName } from './object-names.js'
import { Garbage } from './garbage.js'
import { deleteObjects, putObject } from './stored-objects.js'
import { equalHeads, type Head } from '../protocol/session.js'

/** What a checkpoint changes. The values are its own. */
export interface Change {
  readonly name: EntryName
  /** Null removes the entry. */
  readonly value: { readonly bytes: Secret; readonly direct: boolean } | null
}

export interface CheckpointsOptions {
  readonly flow: FlowId
  readonly store: Store
  readonly keys: FlowKeys
  readonly kms: KmsClient
  readonly reader: EntryReader
  /** That the claim gave this instance. */
  readonly incarnation: number
  readonly state: EpochState
  /** What an earlier instance left and the state doesn't list. */
  readonly garbage: readonly ObjectName[]
}

/** The next epoch, from when it is sealed until it is known what became of it. */
interface Draft {
  readonly next: EpochState
  readonly file: ObjectFirst
  /** What the store may hold of it. */
  readonly written: readonly StoredObject[]
  /** The store failed: its file may have become durable all the same, and a recovery might adopt it. */
  isAbandoned: boolean
}

/** After these the ledger will never again take a commit of this instance. */
const FINAL = ['ERR_FENCED', 'ERR_LEDGER_CONFLICT', 'ERR_LEDGER_ROLLED_BACK', 'ERR_FLOW_DESTROYED'] as const
/** How many superfluous objects are deleted along with one checkpoint. */
const COLLECTED_COUNT_MAX = 64

/**
 * Moves a flow from one epoch to the next: payloads → epoch file → ledger → acknowledge, one checkpoint at a time.
 * Every crash and lost answer: docs/adr/0003-commit-order.md.
 */
export class Checkpoints {
  readonly #options: CheckpointsOptions
  #state: EpochState
  /** What the next call must settle first. */
  #draft: Draft | undefined
  #incarnation: number
  readonly #garbage: Garbage
  #serial = 0
  #turn: Promise<unknown> = Promise.resolve()
  #ended: KeyriseError | undefined

  constructor(options: CheckpointsOptions) {
    this.#options = options
    this.#state = options.state
    this.#incarnation = options.incarnation
    this.#garbage = new Garbage(options.garbage)
  }

  /** The last state that this instance knows to be committed. */
  get state(): EpochState {
    return this.#state
  }

  /** Under which this instance holds the flow. */
  get incarnation(): number {
    return this.#incarnation
  }

  /** @throws {KeyriseError} why this instance has ended, if it has. */
  assertLive(): void {
    if (this.#ended !== undefined) throw this.#ended
  }

  /** From now on every call is refused with `reason`; the first reason stays. */
  end(reason: KeyriseError): void {
    this.#ended ??= reason
  }

  /** The committed state, after what is in doubt was settled. @throws {KeyriseError} ERR_KMS_UNREACHABLE, ERR_FENCED, … */
  async settled(): Promise<EpochState> {
    this.assertLive()
    if (this.#draft !== undefined) await this.inTurn(() => this.#settle())
    return this.#state
  }

  /**
   * All of `changes`, or none.
   * @param changes - or what makes them of the committed state, while no other checkpoint runs.
   * @returns the epoch that holds them, once it is durable and in the ledger.
   */
  commit(changes: readonly Change[] | ((state: EpochState) => Promise<readonly Change[]>)): Promise<number> {
    return this.inTurn(async () => {
      await this.#settle()
      const made = typeof changes === 'function' ? await changes(this.#state) : changes
      if (made.length > 0) await this.#checkpoint(made)
      return this.#state.head.epoch
    })
  }

  /** A checkpoint that changes nothing: the state's entries become those of the next epoch. */
  restate(): Promise<void> {
    return this.inTurn(() => this.#checkpoint([]))
  }

  /** Deletes all of what no state lists any more; a checkpoint deletes some, once there is enough of it. */
  collect(): Promise<void> {
    return this.inTurn(async () => {
      while (!this.#garbage.isEmpty) await this.#collect()
    })
  }

  /** Runs `work` when no other checkpoint is under way. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(() => {
      this.assertLive()
      return work()
    })
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  async #checkpoint(changes: readonly Change[]): Promise<void> {
    // Deleting takes no part in the outcome, so it runs beside.
    const collecting = this.#garbage.isDue ? this.#collect() : undefined
    try {
      this.#draft = await this.#seal(changes)
      await this.#settle()
    } finally {
      await collecting
    }
  }

  async #settle(): Promise<void> {
    try {
      if (this.#draft?.isAbandoned === false) await this.#commitDraft(this.#draft)
      if (this.#draft?.isAbandoned === true) await this.#disown(this.#draft)
    } catch (error) {
      if (isKeyriseError(error, ...FINAL)) this.end(error)
      throw error
    }
  }

  /** The first time, or again, which the ledger takes for the same. */
  async #commitDraft(draft: Draft): Promise<void> {
    try {
      await this.#options.kms.commit(this.#incarnation, this.#state.head, draft.next.head, draft.file)
      this.#advance(draft)
    } catch (error) {
      if (!isKeyriseError(error, ...STORE_ERROR_CODES)) throw error
      draft.isAbandoned = true
      // So that the failure is final when it is told. If it cannot be yet, the next call settles it, or says why not.
      await this.#settle().catch(() => undefined)
      if (this.#state !== draft.next) throw error
    }
  }

  #advance({ next }: Draft): void {
    const kept = new Set(objectsOf(next).keys())
    const dropped = [...objectsOf(this.#state).values()].filter(({ name }) => !kept.has(formatObjectName(name)))
    this.#state = next
    this.#draft = undefined
    this.#options.reader.forget(dropped)
    this.#garbage.add(dropped.map(({ name }) => name))
  }

  /** Takes the flow over from itself: what the old incarnation may have left is then adopted by nobody. */
  async #disown(draft: Draft): Promise<void> {
    const { kms } = this.#options
    const ledger = await kms.open()
    const isMine = (head: Head): boolean =>
      ledger.incarnation === this.#incarnation && ledger.head !== null && equalHeads(ledger.head, head)
    // An earlier attempt went all the way, and its answer was lost.
    if (isMine(draft.next.head)) return this.#advance(draft)
    if (!isMine(this.#state.head)) throw new KeyriseError('ERR_FENCED')
    this.#incarnation = await kms.claim(ledger, null)
    this.#drop(draft)
  }

  /** No commit names what was written for it, and none will: the next attempt has serials of its own. */
  #drop({ written }: Pick<Draft, 'written'>): void {
    this.#draft = undefined
    this.#options.reader.forget(written)
    this.#garbage.add(written.map(({ name }) => name))
  }

  /** The next epoch's file, of what is sealed straight to the KMS when that is durable. */
  async #seal(changes: readonly Change[]): Promise<Draft> {
    const written: StoredObject[] = []
    try {
      const directs = await this.#writeDirects(changes, written)
      return this.#sealEpoch(changes, directs, written)
    } catch (error) {
      this.#drop({ written })
      throw error
    }
  }

  async #writeDirects(changes: readonly Change[], written: StoredObject[]): Promise<Map<EntryName, StoredObject>> {
    const { keys, kms, store, flow, reader } = this.#options
    const directs = changes.flatMap(({ name, value }) => {
      if (value?.direct !== true) return []
      const place = this.#place('direct')
      const envelope = value.bytes.expose((bytes) => keys.sealDirect(name, bytes, place, kms.rootKey))
      const object = { name: place, digest: envelopeDigest(envelope) }
      this.#garbage.weigh(place, envelope.length)
      written.push(object)
      reader.hold(object, value.bytes.clone())
      return [{ name, envelope, object }]
    })
    await allSettled(directs.map(({ envelope, object }) => putObject(store, flow, object.name, envelope)))
    return new Map(directs.map(({ name, object }) => [name, object]))
  }

  #sealEpoch(
    changes: readonly Change[],
    directs: ReadonlyMap<EntryName, StoredObject>,
    written: StoredObject[],
  ): Draft {
    const { keys, flow, reader } = this.#options
    const { index, values } = this.#indexOf(changes, directs)
    const place = this.#place('epoch')
    const plaintext = Secret.own(packEpoch(index, values))
    const envelope = sealedOrDisposed(plaintext, (bytes) => keys.sealEpoch(bytes, place))
    const object = { name: place, digest: envelopeDigest(envelope) }
    this.#garbage.weigh(place, envelope.length)
    written.push(object)
    reader.hold(object, plaintext)
    const file = {
      name: storeName(flow, place),
      bytes: envelope,
      isDurable: false,
      meanwhile: () => prepareNext(keys, place),
    }
    return { next: stateOf(index, object), file, written, isAbandoned: false }
  }

  /** The next epoch's index, and the values that its file holds, in order. */
  #indexOf(
    changes: readonly Change[],
    directs: ReadonlyMap<EntryName, StoredObject>,
  ): { index: EpochIndex; values: Secret[] } {
    const entries = new Map<EntryName, { object: StoredObject | null; offset: number; sizeBytes: number }>(
      this.#state.entries,
    )
    const values: Secret[] = []
    let offset = 0
    for (const { name, value } of changes) {
      const object = directs.get(name)
      if (value === null) {
        entries.delete(name)
      } else if (object !== undefined) {
        entries.set(name, { object, offset: 0, sizeBytes: value.bytes.size })
      } else {
        entries.set(name, { object: null, offset, sizeBytes: value.bytes.size })
        values.push(value.bytes)
        offset += value.bytes.size
      }
    }
    if (entries.size > ENTRY_COUNT_MAX)
      throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${ENTRY_COUNT_MAX} entries` })
    if (offset > CHECKPOINT_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a checkpoint' })
    const { acknowledgement } = this.#options.kms
    return { index: { parent: this.#state.head, acknowledgement, entries }, values }
  }

  #place(kind: 'epoch' | 'direct'): ObjectName {
    return { kind, epoch: this.#state.head.epoch + 1, incarnation: this.#incarnation, serial: ++this.#serial }
  }

  /** Deletes some of what no state lists any more. What fails to go stays for the next recovery to sweep. */
  async #collect(): Promise<void> {
    const { store, flow } = this.#options
    await deleteObjects(store, flow, this.#garbage.take(COLLECTED_COUNT_MAX))
  }
}

/** The next epoch’s header, while there is time for it; an instance that was wiped meanwhile has no next epoch. */
const prepareNext = (keys: FlowKeys, { epoch, incarnation }: ObjectName): void => {
  try {
    keys.prepareEpoch({ epoch: epoch + 1, incarnation })
  } catch {
    // Whoever seals next says what is wrong.
  }
}

/** `plaintext` sealed; where that fails, as it does in an instance that was wiped meanwhile, nobody else will dispose of it. */
const sealedOrDisposed = (plaintext: Secret, seal: (bytes: Bytes) => Bytes): Bytes => {
  try {
    return plaintext.expose(seal)
  } catch (error) {
    plaintext[Symbol.dispose]()
    throw error
  }
}

/** Every object that `state` needs, by name. The root is among them at epoch 1 only: it is never dropped. */
const objectsOf = ({ object, entries }: EpochState): Map<string, StoredObject> => {
  const objects = new Map([...entries.values()].map((entry) => [formatObjectName(entry.object.name), entry.object]))
  if (object.name.kind !== 'root') objects.set(formatObjectName(object.name), object)
  return objects
}

/** Waits for all, also when one fails: nothing of a failed checkpoint is still being written when the next one starts. */
const allSettled = async (promises: readonly Promise<unknown>[]): Promise<void> => {
  await Promise.allSettled(promises)
  await Promise.all(promises)
}
