import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem, KmsChannel, Random, Store } from '../protocol/ports.js'
import type { Secret } from '../protocol/crypto/secret.js'
import type { Approved } from './approvals.js'
import type { Change } from './change-keys.js'
import type { Shown } from './console-view.js'
import { FileLedger } from './file-ledger.js'
import { readKeyringFile } from './custody-files.js'
import { openKeyringFile, type KmsIdentity, type PlaceOptions } from './place.js'
import { checkPolicy } from './policy-file.js'
import { putInForce } from './policy-in-force.js'
import type { Policy } from './policy.js'
import { UnsealPool } from './pool.js'
import type { Receipts } from './receipts.js'
import type { RequestNote } from './request-note.js'
import { checkKeysOf, type KeyDescription } from './root-keys.js'
import { RunningKms } from './running-kms.js'
import type { KmsEvent } from './service.js'
import type { StoreRewraps } from './store-rewraps.js'
import type { Unsealer, UnsealKeys } from './unseal.js'
import { unsealKeys } from './unseal-keys.js'
import type { Verifier } from './verifier.js'

/** Starts what opens envelopes with these keys. */
export type StartUnsealer = (keys: UnsealKeys) => Promise<Unsealer>

export interface OpenKmsOptions extends PlaceOptions {
  readonly fs: FileSystem
  readonly policy: Policy
  readonly clock: Clock
  readonly random: Random
  /** Of formats that the policy may list beside `simulated` and `nitro`, or in their place. */
  readonly verifiers?: readonly Verifier[]
  /** Stores that the operator registered, by id: rewrapped after a rotation, and read for enclaves that name one. */
  readonly stores?: ReadonlyMap<string, Store>
  readonly onEvent?: (event: KmsEvent) => void
  /** Told how long each append to the ledger took, in seconds. */
  readonly onLedgerAppend?: (seconds: number) => void
  /** What opens envelopes; a pool of threads unless told. */
  readonly startUnsealer?: StartUnsealer
}

export interface Gauges {
  /** Attested sessions that have not expired. */
  readonly sessionCount: number
  /** Since the KMS was made. */
  readonly receiptCount: number
  readonly ledgerSizeBytes: number
  /** Parts of requests that wait for a thread. */
  readonly queueCount: number
}

/** A running KMS: keyring open, ledger open, pool started. */
export interface OpenKms extends KmsIdentity, KmsChannel {
  /** @param note - what the request was is written into it. */
  exchange(frame: Uint8Array, note?: RequestNote): Promise<Bytes>
  /** Of what it does, and of what its operators do with it. */
  readonly receipts: Receipts
  /**
   * Keeps what approvers signed, durably; whether it counts is decided when it is made use of.
   * @returns the policy’s approvers among them, by name.
   */
  approve(approved: Approved): Promise<readonly string[]>
  /**
   * Changes its root keys while it runs: the keyring's file first, then what it opens with and certifies. One change at a time.
   * @param passphrase - of the keyring; borrowed. @returns the keys that there are now.
   * @throws {KeyriseError} what `change` throws; ERR_STORE_*, ERR_LEDGER_TAKEN: another process took the place. Then nothing of
   * it is in use here.
   * Crash: the keyring before or after, whole.
   */
  changeKeys(passphrase: Secret, change: Change): Promise<KmsIdentity['keys']>
  /**
   * Puts another policy in force while it runs, durably, and ends every session.
   * @returns its digest. @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_KEY_UNKNOWN, ERR_APPROVAL_NEEDED: the one before stays.
   */
  changePolicy(policy: Policy): Promise<Bytes>
  /** False from when its ledger is lost to it: it answers no enclave until it is started again. */
  readonly isServing: boolean
  /** How much there is of what it holds. */
  gauges(): Gauges
  /** Every version of its root keys, the newest first. */
  readonly rootKeys: readonly KeyDescription[]
  /** When the next of them is to be destroyed, since the epoch: `changeKeys` ends what is due. Undefined where none is. */
  readonly nextDueMs: number | undefined
  /** Of the stores that the operator registered. */
  readonly rewraps: Pick<StoreRewraps, 'progress' | 'start'>
  /** What of those stores nothing else would open: `dependentsOf`, each with its store’s id. @throws {KeyriseError} as that. */
  dependentsOf(key: string): AsyncGenerator<{ readonly store: string; readonly name: string }, void, undefined>
  /** What it is like now, for operators to look at. */
  look(): Shown
  /** Answers what is under way, then zero-fills every key. */
  close(): Promise<void>
  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void
}

/** @throws {KeyriseError} ERR_CONFIG_INVALID, and as `openKeyring` and `FileLedger.open`. */
export const openKms = async (options: OpenKmsOptions): Promise<OpenKms> => {
  const { fs, place, startUnsealer = (keys: UnsealKeys) => UnsealPool.start(keys) } = options
  const policy = checkPolicy(options.policy)
  const file = await readKeyringFile(options)
  const keyring = await openKeyringFile(options, file)
  /** What is to be undone where it does not open, the last first. */
  const opened = [() => Promise.resolve(keyring[Symbol.dispose]())]
  try {
    checkKeysOf(policy, keyring.keys)
    const unsealer = await startUnsealer(unsealKeys(keyring))
    opened.unshift(() => unsealer.close())
    // Last, because it takes the ledger from whoever has it open.
    const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
    opened.unshift(() => ledger.close())
    ledger.onAppend = options.onLedgerAppend
    // A rotation may have come between: this KMS would not open what is sealed to its key.
    if (!equalPublicBytes(await readKeyringFile(options), file))
      throw new KeyriseError('ERR_KMS_FAILED', { detail: 'its keyring was rotated while it started: start it again' })
    const kms = new RunningKms(options, { policy, keyring, unsealer, ledger, startUnsealer })
    await putInForce(policy, { ledger, receipts: kms.receipts, identity: keyring.identity })
    if ((kms.nextDueMs ?? Infinity) <= options.clock.nowMs()) await kms.changeKeys(options.passphrase, (keys) => keys)
    await kms.rewraps.resume()
    return kms
  } catch (error) {
    for (const undo of opened) await undo()
    throw error
  }
}
