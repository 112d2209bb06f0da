import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { KeyriseError } from './errors.js'
import type { EntryKind, EntryName, FlowId } from './names.js'
import type { CancelSignal } from './ports.js'

/** What an author declares once; the host's types, the gate's table and the limits all come from it. Types only. */

/** A limit that is not declared is the launch configuration's (`messageSizeBytesMax`), or the cap in protocol/limits.ts. */
interface CallLimits {
  /** Bytes of the argument, and of each item that the called side receives: 1…MESSAGE_SIZE_BYTES_MAX. */
  readonly inputSizeBytesMax?: number
  /** Bytes of the reply, and of each item that the called side yields: 1…MESSAGE_SIZE_BYTES_MAX. */
  readonly outputSizeBytesMax?: number
}

export interface EcallLimits extends CallLimits {
  /** Calls of this ECALL that may be in flight at once: 1…CALLS_IN_FLIGHT_MAX. */
  readonly inFlightMax?: number
}

export interface OcallLimits extends CallLimits {
  /** Calls of this OCALL in one second, on average and at once: 1…OCALLS_PER_SECOND_MAX. None by default. */
  readonly perSecondMax?: number
  /** From the call to its reply; of a stream, from one item to the next. 1…OCALL_DEADLINE_MS_MAX. */
  readonly deadlineMs?: number
}

/** A checked, bounded call into the enclave. It has an `output`, or `yields` items; never both. */
export interface EcallDeclaration {
  readonly input: StandardSchemaV1
  readonly output?: StandardSchemaV1 | undefined
  /** The items that the host streams in. */
  readonly receives?: StandardSchemaV1 | undefined
  /** The items that the handler streams out. */
  readonly yields?: StandardSchemaV1 | undefined
  /** The host may also call it synchronously: the handler returns at once, makes no OCALLs and has no streams. */
  readonly switchless?: boolean | undefined
  readonly limits?: EcallLimits | undefined
  /** The OCALLs that its handler may make. */
  readonly ocalls?: Readonly<Record<string, OcallDeclaration>>
  readonly handle: (context: never, input: never) => unknown
}

/** A checked, bounded call out of the enclave; the host implements it and its answer is hostile. */
export interface OcallDeclaration {
  readonly input: StandardSchemaV1
  readonly output?: StandardSchemaV1 | undefined
  /** The items that the host streams in. */
  readonly yields?: StandardSchemaV1 | undefined
  readonly limits?: OcallLimits | undefined
}

export interface EnclaveDefinition<
  Ecalls extends Record<string, EcallDeclaration> = Record<string, EcallDeclaration>,
  Ocalls extends Record<string, OcallDeclaration> = Record<string, OcallDeclaration>,
> {
  readonly name: string
  readonly svn: number
  readonly ecalls: Ecalls
  readonly ocalls: Ocalls
  /** Refusals of the author's own: reason → fixed text. They reach the host as ERR_APPLICATION. */
  readonly refusals: Readonly<Record<string, string>>
  /** Runs once, when this image takes over a flow of an older one; without it everything is kept as it is. */
  readonly migrate?: Migrate
}

/** What a schema takes, and what it gives, by the field `Key` of a declaration; never where there is no such field. */
type TakenBy<D, Key extends string> =
  D extends Readonly<Record<Key, StandardSchemaV1<infer Taken, unknown>>> ? Taken : never
type GivenBy<D, Key extends string> =
  D extends Readonly<Record<Key, StandardSchemaV1<unknown, infer Given>>> ? Given : never
type Has<D, Key extends string> = D extends Readonly<Record<Key, StandardSchemaV1>> ? true : false

/** What a host may add to any call. */
export interface CallOptions {
  /** Gives the call up: it rejects at once with the signal's reason, and the enclave hears of it. The outcome is unknown. */
  readonly signal?: CancelSignal
  /** Milliseconds from the call to its answer, or from one item to the next; the launch's `callDeadlineMs` unless told. */
  readonly deadlineMs?: number
}

/** What a host may add to a call that has one argument and one reply. */
export interface PlainCallOptions extends CallOptions {
  /**
   * Makes the call safe to repeat, with the same input, after ERR_ENCLAVE_LOST, ERR_DEADLINE or an abort: it has its effect
   * once, and every repetition gets the same reply. 1…128 printable ASCII characters, chosen by the host, one for each effect.
   */
  readonly idempotencyKey?: string
}

/** What a call takes into which items are streamed. */
export interface StreamingCallOptions<Item = unknown> extends CallOptions {
  readonly items: AsyncIterable<Item> | Iterable<Item>
}

/** One argument, which may be left out where the schema takes undefined, and options. */
type Arguments<Input, Options> = undefined extends Input
  ? [input?: Input, options?: Options]
  : [input: Input, options?: Options]

/** Items have to come from somewhere, so options are no option there. */
type EcallArguments<D> =
  Has<D, 'receives'> extends true
    ? [input: TakenBy<D, 'input'>, options: StreamingCallOptions<TakenBy<D, 'receives'>>]
    : Arguments<TakenBy<D, 'input'>, Has<D, 'yields'> extends true ? CallOptions : PlainCallOptions>

type EcallReply<D> =
  Has<D, 'yields'> extends true ? AsyncIterableIterator<GivenBy<D, 'yields'>> : Promise<GivenBy<D, 'output'>>

/** The host's view of an enclave's ECALLs. */
export type EcallsOf<Definition> = Definition extends { readonly ecalls: infer Ecalls }
  ? { readonly [Name in keyof Ecalls]: (...call: EcallArguments<Ecalls[Name]>) => EcallReply<Ecalls[Name]> }
  : never

type SwitchlessNames<Ecalls> = {
  [Name in keyof Ecalls]: Ecalls[Name] extends { readonly switchless: true } ? Name : never
}[keyof Ecalls]

/** The host's view of the ECALLs that it may also call synchronously: each blocks its thread until the answer is there. */
export type SwitchlessOf<Definition> = Definition extends { readonly ecalls: infer Ecalls }
  ? {
      readonly [Name in SwitchlessNames<Ecalls>]: (
        ...input: undefined extends TakenBy<Ecalls[Name], 'input'>
          ? [input?: TakenBy<Ecalls[Name], 'input'>]
          : [input: TakenBy<Ecalls[Name], 'input'>]
      ) => GivenBy<Ecalls[Name], 'output'>
    }
  : never

/** What a host's implementation of an OCALL gets beside its input. */
export interface OcallContext {
  /** Aborted when the enclave gives the OCALL up, or is gone. */
  readonly signal: CancelSignal
}

type OcallReply<D> =
  Has<D, 'yields'> extends true
    ? AsyncIterable<TakenBy<D, 'yields'>> | Iterable<TakenBy<D, 'yields'>>
    : TakenBy<D, 'output'> | Promise<TakenBy<D, 'output'>>

/**
 * The functions that a host must supply for an enclave's OCALLs. The enclave parses on its own side both ways: a host gets
 * the input as its schema gave it, and answers what the output schema takes.
 */
export type OcallsOf<Definition> = Definition extends { readonly ocalls: infer Ocalls }
  ? {
      readonly [Name in keyof Ocalls]: (
        input: GivenBy<Ocalls[Name], 'input'>,
        context: OcallContext,
      ) => OcallReply<Ocalls[Name]>
    }
  : never

/** What one checkpoint stores. `to: 'kms'` seals the bytes straight to the KMS, as its own object, for bulk recovery; the default seals them under a sub key. */
export type CheckpointValue = Uint8Array | { readonly to: 'kms'; readonly bytes: Uint8Array }

export interface FlowEntry {
  readonly name: EntryName
  readonly kind: EntryKind
  /** The epoch that wrote it. */
  readonly epoch: number
  readonly sizeBytes: number
}

/** An entry of a bulk read: its bytes, or why this one has none. */
export type BulkItem =
  | { readonly name: EntryName; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly name: EntryName; readonly error: KeyriseError }

/** What became of an entry: the epoch that holds it now, or why it stays where it was. */
export type ResealedEntry =
  { readonly name: EntryName; readonly epoch: number } | { readonly name: EntryName; readonly error: KeyriseError }

/** What an enclave may find out about an object that its state needs, or about one copy of it. */
export const FOUND_STATUSES = ['repaired', 'missing', 'damaged', 'unreadable'] as const
/**
 * `repaired`: it was missing or damaged, and was written again from another copy. `unreadable`: the store failed, so that nobody
 * can say.
 */
export type FoundStatus = (typeof FOUND_STATUSES)[number]
export type ObjectStatus = 'intact' | FoundStatus

/** What `flow.verify()` found out about one object in the store. */
export interface VerifiedObject {
  /** Its name, as in `epoch-0000000002-0000000001-000001`: an epoch file, the root key, or an entry sealed straight to the KMS. */
  readonly object: string
  /** `intact` or `repaired` where it can be read. */
  readonly status: ObjectStatus
  /** Of each copy, in the order of the store’s: what it is now. */
  readonly copies: readonly ObjectStatus[]
  /** What is lost where it cannot be read; where it is the root key, all of the flow is. */
  readonly entries: readonly EntryName[]
}

/** A member of a task, as the KMS vouches for it. */
export interface RosterMember {
  readonly flow: FlowId
  /** The name that the KMS's policy gives to the image's measurement. */
  readonly image: string
  readonly measurement: Uint8Array
  /** Ed25519, 32 bytes: verifies what `flow.sign` made. */
  readonly signingKey: Uint8Array
  /** What the member published, by name; each at most ROSTER_VALUE_SIZE_BYTES_MAX. */
  readonly published: Readonly<Record<string, Uint8Array>>
}

/** A flow that a newer image takes over, as the older one left it. */
export interface Migration {
  /** The older image: its measurement, 32 bytes, and its SVN, 0 where the KMS’s ledger is too old to know. */
  readonly from: { readonly svn: number; readonly measurement: Uint8Array }
  readonly list: () => readonly FlowEntry[]
  /** A private copy. @throws {KeyriseError} ERR_ENTRY_MISSING, ERR_STATE_LOST, … */
  readonly read: (name: EntryName) => Promise<Uint8Array<ArrayBuffer>>
}

/** All that the flow is to hold from now on: new values, and `keep` for an entry that stays as it is. */
export type Migrated = Readonly<Partial<Record<EntryName, CheckpointValue | 'keep'>>>

/** Says what of an older image’s flow the newer one goes on with: docs/upgrading.md. */
export type Migrate = (migration: Migration) => Migrated | Promise<Migrated>

/** A flow as its author sees it: the whole vocabulary of secrets that survive. */
export interface Flow {
  readonly id: FlowId
  readonly task: FlowId
  /** The last committed epoch. A flow is born with epoch 1, its root key; the first checkpoint is epoch 2. */
  readonly epoch: number
  /**
   * Stores all of `entries`, or none, and returns the new epoch once it is durable and the ledger has it.
   * @throws {KeyriseError} ERR_FENCED; ERR_KMS_UNREACHABLE: outcome unknown, settled by the next call; ERR_STORE_*: not stored (unknown if the KMS is away too).
   */
  checkpoint(entries: Readonly<Partial<Record<EntryName, CheckpointValue>>>): Promise<number>
  /** A private copy of the newest committed value, or undefined. @throws {KeyriseError} ERR_STATE_LOST, ERR_ENVELOPE_INVALID, … */
  read(name: EntryName): Promise<Uint8Array<ArrayBuffer> | undefined>
  /**
   * Reads many large entries: each in turn, in the order of `names`, as a private copy that is whole and verified. The payloads
   * of `{ to: 'kms' }` stream through the KMS's pool; nothing is fetched while the caller is busy with an item, and besides that
   * item's and the next one's bytes, about 8 MiB are held, however many there are. A lost session or a restarted KMS is got over
   * where the read stands.
   *
   * What one entry fails with is its item's `error`: ERR_ENTRY_MISSING, ERR_STATE_LOST, ERR_DIGEST_MISMATCH, ERR_ENVELOPE_INVALID,
   * ERR_STORE_*. To stop, `break`, or abort the signal; what has not been handed over is zero-filled.
   * @throws {KeyriseError} ERR_KMS_*, ERR_CALLS_LIMIT, ERR_FENCED: the read as a whole cannot go on; the signal's reason; ERR_NAME_INVALID.
   */
  readBulk(names: readonly EntryName[], options?: { readonly signal?: CancelSignal }): AsyncIterable<BulkItem>
  /** What is committed, as far as this instance knows: an outcome that is unknown is settled by the next `read` or `checkpoint`. */
  list(): readonly FlowEntry[]
  /** Removes entries, as a checkpoint of its own. */
  delete(names: readonly EntryName[]): Promise<number>
  /**
   * Stores every entry again as it is, under new file keys: after a key of the KMS, or a co-recipient's, may have been stolen, and
   * the KMS has a new one. Each batch is a checkpoint. The business root key stays: docs/adr/0004-rewrap-and-reseal.md.
   * @param options.since - entries of this epoch and later are done; `flow.epoch + 1` unless told. To go on where an earlier
   * call was cut short, pass what that one had: keep it in an entry.
   * @param options.signal - heeded between two batches.
   * @returns a status for each entry, in batches; to stop early, leave the loop.
   * @throws RangeError: `since` lies ahead. {KeyriseError} as `checkpoint`; what was said to be resealed, is.
   */
  reseal(options?: { readonly since?: number; readonly signal?: CancelSignal }): AsyncIterable<ResealedEntry>
  /**
   * Reads every object that the flow needs, in every copy that the store keeps, and opens it; what is missing or damaged in one
   * copy and whole in another is written again. The root key comes first, then the objects by age.
   * @param options.after - goes on behind this object, the last that an earlier call told of.
   * @param options.signal - heeded between two objects.
   * @returns a status for each object. To stop early, leave the loop. What a checkpoint drops meanwhile is left out.
   * @throws {KeyriseError} ERR_KMS_*, ERR_POLICY_DENIED, …: what says nothing of an object. The signal's reason.
   */
  verify(options?: { readonly after?: string; readonly signal?: CancelSignal }): AsyncIterable<VerifiedObject>
  /** Seals under the sub key of `step` for data kept outside the store: an envelope that `open` of the same flow and step opens. */
  seal(step: string, bytes: Uint8Array): Uint8Array<ArrayBuffer>
  open(step: string, envelope: Uint8Array): Uint8Array<ArrayBuffer>
  /** Ed25519 over `message`, with the flow's own signing key, the same in every incarnation. 64 bytes. */
  sign(message: Uint8Array): Uint8Array<ArrayBuffer>
  /** 32 bytes that only this flow can agree with the holder of `peerKey` (X25519, from a roster), bound to `step`. */
  agree(peerKey: Uint8Array, step: string): Uint8Array<ArrayBuffer>
  /** X25519, 32 bytes: what peers pass to `agree`. */
  readonly agreementKey: Uint8Array<ArrayBuffer>
  /** Makes values known to the other members of the task through the KMS's roster. */
  publish(values: Readonly<Record<string, Uint8Array>>): Promise<void>
  /** The members of the task, signed by the KMS. @throws {KeyriseError} ERR_ROSTER_INVALID. */
  roster(): Promise<readonly RosterMember[]>
  /**
   * The KMS’s newest receipts of what this instance was given and has changed, oldest first, 16 at most: each a body and a signature,
   * as `keyrise receipts verify` reads them. Whoever is given one can tell whether the KMS’s log still holds it.
   */
  readonly receipts: readonly Uint8Array<ArrayBuffer>[]
  /** Ends the flow: a tombstone in the ledger, then nothing of it opens again. */
  destroy(): Promise<void>
}
