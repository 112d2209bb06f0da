import type { ErrorCode, KeyriseError } from './errors.js'
import type { ValueLimits } from './values.js'

/** Everything that touches the world comes in through one of these, by constructor: real ones in `storage/` and `platform/`, simulated ones in `faults/`. */

/**
 * What a port hands over. `sizeBytes` comes from ports that read bytes, and says two things: the message is made of plain
 * values (protocol/values.ts) in memory that nobody else can reach, and so many bytes its value counts, as `admitValue` counts.
 * Without it, the message is a structured clone, of anything.
 */
export type Listen = (message: unknown, sizeBytes?: number) => void
/** Called with bytes that are no message: the id of the call that they were, where it could be read. */
export type RefusedBytes = (id: CallId | undefined, error: KeyriseError) => void

/** Which of the calls in flight: a number below 2³² in what is ours, text of 1 to 64 characters in Comlink’s. */
export type CallId = number | string

export interface ClaimedCall {
  readonly id: CallId
  readonly name: string
  /** Undefined where the call has none. Not checked in any way. */
  readonly claimedArgument: unknown
  /** The caller blocks its thread until the answer is there. */
  readonly isSwitchless?: true
  /** The caller may repeat the call: 1…128 printable ASCII characters. */
  readonly key?: string
}

/**
 * Takes what a port that reads bytes has read already, in place of a message to be parsed. Values are as private as `Listen` says
 * of messages with a size, and are not checked otherwise.
 */
export interface ListenDirectly {
  /** A call without a key. `sizeBytes` is what its argument counts. */
  call?(call: ClaimedCall, sizeBytes: number): void
  reply?(id: CallId, claimedValue: unknown): void
}

export interface CallPosting {
  readonly limits?: ValueLimits | undefined
  /** The caller blocks its thread until the answer is there. */
  readonly isSwitchless?: boolean
  /** An idempotency key. */
  readonly key?: string | undefined
}

/** One end of a message channel. Messages arrive in order, at most once. */
export interface Port {
  /** Any message. What it carries must have been released (`releaseValue`), unless the port writes bytes. */
  post(message: unknown, transfer?: readonly ArrayBuffer[]): void
  /** One listener; setting it starts delivery. */
  onMessage(listen: Listen, refused?: RefusedBytes, directly?: ListenDirectly): void
  close(): void
  /**
   * A call, of which the port copies the argument itself. Ports without it are served by `encodeCall` and `post`
   * (`postCall` in protocol/calls.ts).
   * @throws {KeyriseError} as `releaseValue`.
   */
  postCall?(id: CallId, name: string, argument: unknown, options?: CallPosting): void
  /** The same for a reply. */
  postReply?(id: CallId, value: unknown, limits?: ValueLimits): void
  /**
   * Blocks the thread until messages came, and delivers them to the listener; at most `timeoutMs`, and less where it likes:
   * 'nothing' came then. 'closed': nothing will ever come, since the other end is gone. For synchronous calls: a ring port
   * sleeps on shared memory, a port on a socket would read it in blocking mode. Ports without it cannot make such calls.
   */
  wait?(timeoutMs: number): 'delivered' | 'nothing' | 'closed'
}

export interface Clock {
  /** Milliseconds since the epoch. It may jump. */
  nowMs(): number
  /** Runs `elapsed` once after `delayMs`; dispose to cancel. */
  timer(delayMs: number, elapsed: () => void): Disposable
}

export interface Random {
  /** Fills `bytes` from a cryptographic source and returns them. */
  fill<T extends Uint8Array>(bytes: T): T
}

export interface OpenFile {
  /** Reads up to `into.length` bytes at `position`; 0 at the end. */
  read(into: Uint8Array, position: number): Promise<number>
  /** Writes some bytes of `from` at `position` and returns how many: perhaps fewer than given. */
  write(from: Uint8Array, position: number): Promise<number>
  /** fsync(2). After a failure the file's content is unknown for good: never retry and trust. */
  sync(): Promise<void>
  /** Size in bytes. */
  size(): Promise<number>
  truncate(sizeBytes: number): Promise<void>
  close(): Promise<void>
}

/** The calls of a POSIX file system that durable storage is made of. Failures carry `code` as Node's do: ENOENT, ENOSPC, … */
export interface FileSystem {
  /** `read`: must exist. `create`: must not exist (O_EXCL, no symbolic link followed). `update`: read and write, made where missing. */
  open(path: string, mode: 'read' | 'create' | 'update'): Promise<OpenFile>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** Makes the directory and its parents, mode 0700. */
  makeDirectory(path: string): Promise<void>
  /** Names in the directory, files (`kind: 'file'`), directories, and anything else, a symbolic link say, as `other`. */
  list(path: string): Promise<readonly { name: string; kind: 'file' | 'directory' | 'other' }[]>
  /** fsync(2) of the directory itself: makes renames and unlinks in it durable. */
  syncDirectory(path: string): Promise<void>
}

/** What a `Store` may fail with. */
export const STORE_ERROR_CODES: readonly ErrorCode[] = [
  'ERR_STORE_CONFLICT',
  'ERR_STORE_FULL',
  'ERR_STORE_UNWRITABLE',
  'ERR_STORE_IO',
  'ERR_NAME_INVALID',
]

/** The second environment: immutable names, opaque bytes. Whoever runs it may read, lose, swap or roll back all of it. */
export interface Store {
  /**
   * Durable when it resolves. Putting the same bytes again is fine.
   * @throws {KeyriseError} ERR_STORE_CONFLICT, ERR_STORE_FULL, ERR_STORE_UNWRITABLE, ERR_STORE_IO, ERR_NAME_INVALID.
   */
  put(name: string, bytes: Uint8Array): Promise<void>
  /** The bytes, or undefined where there are none. */
  get(name: string): Promise<Uint8Array | undefined>
  /** At most `sizeBytes` bytes from `offset`, fewer or none at the end; undefined where there is no such name. */
  read(name: string, offset: number, sizeBytes: number): Promise<Uint8Array | undefined>
  /** Names that start with `prefix`, sorted. */
  list(prefix: string): Promise<string[]>
  /** Fine where there is none. It may come back after a power cut: whoever deletes it has ceased to need it, and sweeps again. */
  delete(name: string): Promise<void>
  /**
   * Of a store that keeps several copies of everything: the stores that each hold one, in the order in which they are read. Only
   * an enclave can tell a good copy from a damaged one, so it is the enclave that asks for another and writes it back.
   */
  copies?(): Promise<readonly Store[]>
}

/** A way to a KMS: opaque frames, one answer each. The host carries them and can read none that matters. */
export interface KmsChannel {
  /** @throws {KeyriseError} ERR_KMS_UNREACHABLE when no answer came: the outcome is unknown. */
  exchange(frame: Uint8Array): Promise<Uint8Array>
  /**
   * Exchanges a frame that counts from when `durable` resolves: what can be done of its way before is done before, but the KMS has
   * all of it only then, and not at all where that rejects. Channels without it are asked when the time has come.
   * @throws {KeyriseError} ERR_KMS_UNREACHABLE; what `durable` rejects with.
   */
  exchangeAfter?(durable: Promise<void>, frame: Uint8Array): Promise<Uint8Array>
}

/** The way of a checkpoint: what a flow is about to become, into its store and then to its KMS, in one errand of the host's. */
export interface CommitChannel {
  /**
   * Puts an object; once that is durable, and only then, exchanges `frame` with the KMS.
   * @throws {KeyriseError} ERR_STORE_*, ERR_NAME_INVALID: as `Store.put`, and the KMS has not seen the frame; ERR_KMS_UNREACHABLE: the
   * object is durable, and what became of the frame is unknown.
   */
  commit(name: string, bytes: Uint8Array, frame: Uint8Array): Promise<Uint8Array>
}

/** A segment of a payload that a KMS has a stream for, and where it is stored. */
export interface SegmentRequest {
  /** The payload object’s. */
  readonly name: string
  readonly offset: number
  readonly sizeBytes: number
  /** 16 bytes. */
  readonly stream: Uint8Array
  readonly index: number
}

/** A way for payloads from a store through a KMS: what is sealed in the store comes back sealed under the stream’s delivery key. */
export interface SegmentChannel {
  /**
   * @returns undefined where the store has no such object.
   * @throws {KeyriseError} ERR_STORE_*; ERR_ENVELOPE_INVALID: it does not open; ERR_SESSION_INVALID: no such stream;
   * ERR_CALLS_LIMIT: ask again; ERR_KMS_*. None of it is authenticated.
   */
  exchange(request: SegmentRequest): Promise<Uint8Array | undefined>
}

/** What a call, a bulk read or a reseal heeds of an AbortSignal; every AbortSignal is one. */
export interface CancelSignal {
  readonly aborted: boolean
  readonly reason: unknown
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
  /** @throws the signal's reason, when it is aborted. */
  throwIfAborted(): void
}

/** A way to one KMS, whose identity the launch configuration names: by HTTP, or to an embedded one. */
export interface KmsLink extends KmsChannel, AsyncDisposable {
  /** Ed25519, 32 bytes: the identity that an enclave launched with this link trusts. */
  readonly identity: Uint8Array
  /** Pending exchanges reject. Safe to repeat. */
  close(): Promise<void>
}

/** Signs evidence for one running instance. RATS (RFC 9334): the Attesting Environment. */
export interface Attester {
  /**
   * @param claims.nonce - the verifier's challenge.
   * @param claims.confirmationKey - the public key that the evidence binds (RFC 9711 `cnf`), 32 bytes of X25519.
   * @returns an EAT in a COSE_Sign1.
   */
  attest(claims: { nonce: Uint8Array; confirmationKey: Uint8Array }): Promise<Uint8Array>
}
