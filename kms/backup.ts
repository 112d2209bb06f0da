import { basename, dirname, join } from 'node:path'
import { equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem } from '../protocol/ports.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { publish, readWhole, storeError } from '../storage/index.js'
import { decodeBackup, encodeBackup, type BackupFile, type BackupPart } from './backup-file.js'
import { decodeCustodians, type CustodianSet } from './custodians.js'
import { FileLedger, LEDGER_NAME, type Inspected } from './file-ledger.js'
import { Keyring, KEYRING_SIZE_BYTES_MAX } from './keyring.js'
import { LOG_SIZE_BYTES_MAX } from './log.js'
import { identify, openKeyringFile, type PlaceOptions } from './place.js'
import type { Policy } from './policy.js'
import { parsePolicy } from './policy-file.js'
import { Receipts } from './receipts.js'
import { readCustody } from './custody-files.js'

/** Of a policy, and of the approvals beside it. */
export const POLICY_SIZE_BYTES_MAX = 4 * 1024 * 1024
/** The three large parts, and room for the rest. */
export const BACKUP_SIZE_BYTES_MAX = LOG_SIZE_BYTES_MAX + 16 * 1024 * 1024

/** A key version as people compare it. */
export interface KeySummary {
  /** `root@1` */
  readonly key: string
  readonly state: string
  /** The first eight bytes of the SHA-256 of its recipient’s text, in hex. */
  readonly fingerprint: string
}

/** What a backup has, all of it opened or verified. */
export interface BackupContents extends Disposable {
  readonly file: BackupFile
  /** SHA-256 of the whole file. */
  readonly digest: Bytes
  readonly keyring: Keyring
  readonly keys: readonly KeySummary[]
  readonly ledger: Inspected
  readonly policy: Policy
  readonly custodians: CustodianSet | undefined
}

export interface BackupOptions extends PlaceOptions {
  readonly clock: Clock
  /** The policy’s file as it is, and the approvals beside it where there are any. */
  readonly policy: Bytes
  readonly approvals?: Bytes
  /** Where the backup goes; its directory must exist. */
  readonly path: string
  /** A file of the name is replaced. */
  readonly isForced?: boolean
  /**
   * Has the KMS that runs in the place leave the receipt of the backup with this digest; false where none has the ledger open.
   * Without it, or then, the ledger is taken to write the receipt, and a KMS that runs here all the same answers nothing more.
   */
  readonly recordRunning?: (digest: Bytes) => Promise<boolean>
}

/**
 * Puts keyring, log and policy into one file, which is there whole or not at all. A KMS may run meanwhile: what it has acknowledged
 * by now is in it. The log is read before the keyring, so that no flow in it is sealed to a key that is not. The receipt, which has the
 * digest, is durable before the file is there.
 * @returns the file’s bytes, as they were written. @throws {KeyriseError} as `openKeyring`; ERR_LEDGER_MISSING,
 * ERR_LEDGER_DAMAGED, ERR_CONFIG_INVALID: the policy; ERR_FILE_EXISTS, ERR_STORE_*; what `recordRunning` throws.
 * Crash: there may be a receipt of a backup that nobody has; never the other way round.
 */
export const createBackup = async (options: BackupOptions): Promise<Bytes> => {
  const { place, fs, clock, path, policy, approvals, isForced = false } = options
  if (!isForced && (await isThere(fs, path))) throw new KeyriseError('ERR_FILE_EXISTS', { detail: path })
  parsePolicy(new TextDecoder().decode(policy))
  const log = await readWhole(fs, join(place.directory, LEDGER_NAME), LOG_SIZE_BYTES_MAX)
  if (log === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: place.directory })
  const ledger = FileLedger.inspectCopy(log)
  const { keyring: file, custodians } = await readCustody(options)
  using keyring = await openKeyringFile(options, file)
  if (!equalPublicBytes(ledger.identity, keyring.identity))
    throw new KeyriseError('ERR_LEDGER_DAMAGED', { detail: 'it belongs to another KMS identity' })
  const parts = new Map<BackupPart, Bytes>([
    ['keyring', file],
    ['ledger', ledger.whole],
    ['policy', policy],
  ])
  if (approvals !== undefined) parts.set('approvals', approvals)
  if (custodians !== undefined) parts.set('custodians', custodians)
  const timeMs = Math.max(0, Math.trunc(clock.nowMs()))
  const bytes = encodeBackup({ identity: keyring.identity, timeMs, parts }, (message) => keyring.sign(message))
  await recordBackup(options, keyring, sha256(bytes))
  await publish(fs, dirname(path), basename(path), bytes)
  return bytes
}

const recordBackup = async (
  { place, fs, clock, recordRunning }: BackupOptions,
  keyring: Keyring,
  digest: Bytes,
): Promise<void> => {
  if ((await recordRunning?.(digest)) === true) return
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  try {
    await new Receipts({ ledger, signer: keyring, clock }).record('backup', { digest })
  } finally {
    await ledger.close()
  }
}

const isThere = async (fs: FileSystem, path: string): Promise<boolean> => {
  const listed = await fs.list(dirname(path)).catch((error: unknown) => {
    throw storeError(error, path)
  })
  return listed.some(({ name }) => name === basename(path))
}

/**
 * Opens a backup and everything in it.
 * @param open - opens the keyring’s file. @throws {KeyriseError} ERR_BACKUP_INVALID; as `Keyring.open`.
 */
export const openBackup = async (
  claimed: Bytes,
  open: (file: Bytes) => Promise<Keyring> | Keyring,
): Promise<BackupContents> => {
  const file = decodeBackup(claimed)
  const { ledger: log, policy, custodians } = readParts(file)
  const keyring = await open(partOf(file, 'keyring', KEYRING_SIZE_BYTES_MAX))
  const identities = [file.identity, log.identity, ...(custodians === undefined ? [] : [custodians.identity])]
  if (!identities.every((identity) => equalPublicBytes(identity, keyring.identity))) {
    keyring[Symbol.dispose]()
    throw new KeyriseError('ERR_BACKUP_INVALID', { detail: 'its parts are of several KMSs' })
  }
  return {
    file,
    digest: sha256(claimed),
    keyring,
    keys: summariseKeys(keyring),
    ledger: log,
    policy,
    custodians,
    [Symbol.dispose]: () => keyring[Symbol.dispose](),
  }
}

/** Opens it with a passphrase; there is nothing where wrong ones could be counted. */
export const openBackupBy = (claimed: Bytes, passphrase: Secret): Promise<BackupContents> =>
  openBackup(claimed, (file) => Keyring.open(file, passphrase))

/** The custodians of a backup’s keyring; undefined where it opens by a passphrase. @throws {KeyriseError} ERR_BACKUP_INVALID. */
export const custodiansOf = (claimed: Bytes): CustodianSet | undefined => readParts(decodeBackup(claimed)).custodians

const readParts = (file: BackupFile): { ledger: Inspected; policy: Policy; custodians: CustodianSet | undefined } => {
  const custodians = file.parts.get('custodians')
  try {
    return {
      ledger: FileLedger.inspectCopy(partOf(file, 'ledger', LOG_SIZE_BYTES_MAX)),
      policy: parsePolicy(new TextDecoder().decode(partOf(file, 'policy', POLICY_SIZE_BYTES_MAX))),
      custodians: custodians && decodeCustodians(custodians),
    }
  } catch (error) {
    const detail = error instanceof KeyriseError ? (error.detail ?? error.code) : 'a part'
    throw new KeyriseError('ERR_BACKUP_INVALID', { detail, cause: error })
  }
}

/** @throws {KeyriseError} ERR_BACKUP_INVALID: it is missing, or too large. */
export const partOf = ({ parts }: BackupFile, name: BackupPart, sizeBytesMax: number): Bytes => {
  const part = parts.get(name)
  if (part === undefined || part.length > sizeBytesMax) throw new KeyriseError('ERR_BACKUP_INVALID', { detail: name })
  return part
}

const summariseKeys = (keyring: Keyring): KeySummary[] =>
  identify(keyring).keys.map(({ key, recipient }, index) => ({
    key,
    state: keyring.rootKeys[index]?.state ?? 'enabled',
    fingerprint: toHex(sha256(new TextEncoder().encode(recipient)).subarray(0, 8)),
  }))
