import { basename, dirname, join } from 'node:path'
import { equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { REASON_LENGTH_MAX } from '../protocol/limits.js'
import type { Clock } from '../protocol/ports.js'
import { decodeReceiptBody, splitReceipt } from '../protocol/receipts.js'
import { isAhead } from '../protocol/statements.js'
import { publish, readWhole } from '../storage/index.js'
import { openBackup, POLICY_SIZE_BYTES_MAX, type BackupContents } from './backup.js'
import { FileLedger, LEDGER_NAME, type Inspected } from './file-ledger.js'
import type { Keyring } from './keyring.js'
import type { FlowState } from './ledger.js'
import { hasKeyring } from './custody-files.js'
import { openKeyring, openKeyringFile, type PlaceOptions } from './place.js'
import { Receipts } from './receipts.js'
import { KEYRING_SIZE_BYTES_MAX } from './keyring.js'
import { partOf } from './backup.js'
import { replaceCustody } from './custody-files.js'

export interface RestoreOptions extends PlaceOptions {
  readonly clock: Clock
  /** The whole file. */
  readonly backup: Bytes
  /** Where its policy goes; nowhere unless told. */
  readonly policyPath?: string | undefined
}

/** What a restore would do, of which nothing has been done. */
export interface RestorePlan extends Disposable {
  readonly contents: BackupContents
  /** What is newer in the place than in the backup, a sentence each: it would be lost for good. */
  readonly downgrades: readonly string[]
  /**
   * Does it: keyring, then log, then policy, each whole. Until the last of them is there a KMS refuses to start, or starts with a
   * ledger of before; a repeat after a crash finishes. A KMS that runs in the place answers nothing more.
   * @param options.isDowngrade - the operator’s word that what is newer may be lost.
   * @throws {KeyriseError} ERR_DOWNGRADE, ERR_STORE_*.
   */
  commit(options: { readonly isDowngrade: boolean }): Promise<void>
}

/**
 * Opens a backup, and looks at the place that it would be restored to. Nothing is changed.
 * @throws {KeyriseError} as `openBackup`; ERR_KEYRING_EXISTS: the place is another KMS’s; ERR_FILE_EXISTS: another policy.
 */
export const planRestore = async (options: RestoreOptions): Promise<RestorePlan> => {
  const contents = await openBackup(options.backup, (file) => openKeyringFile(options, file))
  try {
    await checkPolicyPath(options, contents)
    const downgrades = [...(await compareKeyrings(options, contents)), ...(await compareLedgers(options, contents))]
    return {
      contents,
      downgrades,
      commit: async ({ isDowngrade }) => {
        if (downgrades.length > 0 && !isDowngrade)
          throw new KeyriseError('ERR_DOWNGRADE', { detail: downgrades.slice(0, 3).join('; ') })
        await commit(options, contents, downgrades)
      },
      [Symbol.dispose]: () => contents[Symbol.dispose](),
    }
  } catch (error) {
    contents[Symbol.dispose]()
    throw error
  }
}

const checkPolicyPath = async (
  { fs, policyPath }: RestoreOptions,
  { file: { parts } }: BackupContents,
): Promise<void> => {
  if (policyPath === undefined) return
  const present = await readWhole(fs, policyPath, POLICY_SIZE_BYTES_MAX)
  if (present !== undefined && !equalPublicBytes(present, parts.get('policy') ?? present))
    throw new KeyriseError('ERR_FILE_EXISTS', { detail: `${policyPath}, another policy` })
}

/** What the keyring in the place has that the backup’s has not. A damaged one has nothing. */
const compareKeyrings = async (options: RestoreOptions, { keyring }: BackupContents): Promise<string[]> => {
  if (!(await hasKeyring(options.place, options.fs))) return []
  let present: Keyring
  try {
    present = await openKeyring(options)
  } catch (error) {
    if (isKeyriseError(error, 'ERR_KEYRING_INVALID')) return []
    if (!isKeyriseError(error, 'ERR_PASSPHRASE_WRONG')) throw error
    return ['the keyring here opens by another passphrase, so that the two cannot be compared']
  }
  using here = present
  if (!equalPublicBytes(here.identity, keyring.identity))
    throw new KeyriseError('ERR_KEYRING_EXISTS', { detail: `the place is another KMS’s, ${toHex(here.identity)}` })
  const lost = compareKeys(here, keyring)
  // What has changed and changed back is seen by this alone.
  return lost.length > 0 || here.revision <= keyring.revision
    ? lost
    : [`the keyring here has changed ${here.revision - keyring.revision} times since`]
}

const compareKeys = (here: Keyring, keyring: Keyring): string[] => {
  const states = new Map(keyring.rootKeys.map(({ key, state }) => [key, state] as const))
  const known = [...here.rootKeys, ...here.destroyedKeys.map(({ key }) => ({ key, state: 'destroyed' }))]
  return known.flatMap(({ key, state }) => {
    const backed = states.get(key)
    if (backed === undefined && state === 'destroyed') return []
    if (backed === undefined) return [`the keyring here has ${key}, the backup’s has not`]
    return STATES.indexOf(state) > STATES.indexOf(backed) ? [`${key} is ${state} here, ${backed} in the backup`] : []
  })
}

/** In this order a key grows old. */
const STATES: readonly string[] = ['enabled', 'decrypt-only', 'disabled', 'destroyed']

/** What the ledger in the place knows and the backup’s does not. A damaged one knows nothing. */
const compareLedgers = async (
  { place, fs }: RestoreOptions,
  { ledger, keyring, digest }: BackupContents,
): Promise<string[]> => {
  const here = await inspectIntact(fs, place.directory)
  if (here === undefined) return []
  if (!equalPublicBytes(here.identity, keyring.identity))
    throw new KeyriseError('ERR_KEYRING_EXISTS', { detail: `the ledger is another KMS’s, ${toHex(here.identity)}` })
  // That this very backup was made, or restored before, says nothing that the restore’s own receipt does not.
  const lost = here.receipts.slice(ledger.receipts.length).filter((receipt) => !isOfBackup(receipt, digest)).length
  return [
    ...[...here.flows].flatMap(([flow, state]) => compareFlow(flow, state, ledger.flows.get(flow))),
    ...(lost > 0 ? [`the ledger here has ${String(lost)} receipts more`] : []),
  ]
}

const isOfBackup = (signed: Bytes, backup: Bytes): boolean => {
  const { kind, digest } = decodeReceiptBody(splitReceipt(signed).body)
  return (kind === 'backup' || kind === 'restore') && digest !== undefined && equalPublicBytes(digest, backup)
}

const inspectIntact = async (fs: PlaceOptions['fs'], directory: string): Promise<Inspected | undefined> => {
  try {
    return await FileLedger.inspect(fs, directory)
  } catch (error) {
    if (isKeyriseError(error, 'ERR_LEDGER_DAMAGED')) return undefined
    throw error
  }
}

const compareFlow = (flow: string, here: FlowState, backed: FlowState | undefined): string[] => {
  if (backed === undefined) return [`the backup does not know flow ${flow}`]
  if (here.destroyed && !backed.destroyed) return [`flow ${flow} is destroyed here, and is not in the backup`]
  if (!isAhead(here, backed)) return []
  const told = ({ head, incarnation }: FlowState): string =>
    `epoch ${String(head?.epoch ?? 0)} of incarnation ${String(incarnation)}`
  return [`flow ${flow} is at ${told(here)} here, at ${told(backed)} in the backup`]
}

const commit = async (
  { place, fs, clock, policyPath }: RestoreOptions,
  { file, keyring, digest }: BackupContents,
  downgrades: readonly string[],
): Promise<void> => {
  const put = async (path: string, bytes: Bytes | undefined): Promise<void> => {
    if (bytes !== undefined) await publish(fs, dirname(path), basename(path), bytes)
  }
  await stopOthers(fs, place.directory, keyring)
  const { parts } = file
  const sealed = partOf(file, 'keyring', KEYRING_SIZE_BYTES_MAX)
  await replaceCustody({ place, fs }, { keyring: sealed, custodians: parts.get('custodians') })
  await put(join(place.directory, LEDGER_NAME), parts.get('ledger'))
  if (policyPath !== undefined) await put(policyPath, parts.get('policy'))
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  try {
    const receipts = new Receipts({ ledger, signer: keyring, clock })
    const reason = downgrades.join('; ').slice(0, REASON_LENGTH_MAX)
    await receipts.record('restore', { digest, ...(reason === '' ? {} : { reason }) })
  } finally {
    await ledger.close()
  }
}

/** Takes the ledger that is replaced, so that a KMS that still has it open answers nothing more from it. */
const stopOthers = async (fs: PlaceOptions['fs'], directory: string, keyring: Keyring): Promise<void> => {
  if ((await inspectIntact(fs, directory)) === undefined) return
  const ledger = await FileLedger.open(fs, directory, keyring.identity)
  await ledger.close()
}
