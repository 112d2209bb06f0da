import { asciiBytes, equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { openReceipt } from '../protocol/crypto/receipts.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem } from '../protocol/ports.js'
import type { Receipt } from '../protocol/receipts.js'
import { decodeBackup } from '../kms/backup-file.js'
import { createBackup } from '../kms/backup.js'
import { breakGlass } from '../kms/break-glass.js'
import { FileLedger } from '../kms/file-ledger.js'
import type { KmsPlace } from '../kms/custody-files.js'
import { identify, openKeyring, prepareDirectory, restoreKms } from '../kms/place.js'
import { planRestore } from '../kms/restore.js'
import { publish, readWhole } from '../storage/index.js'

/** What the commands of custody do to the files of a simulated KMS, and what must be true of those files at every start. */

export interface CustodyDesk {
  readonly place: KmsPlace
  readonly passphrase: Secret
  readonly fs: FileSystem
  readonly clock: Clock
}

const DIRECTORY = '/kept'
const BACKUP = 'backup'
/** The one that is restored: its log is older than its receipt, so that a start in the midst of it knows nothing of it. */
const RESTORED = 'restored'
/** Stands for the identity file, which is nothing for this disk: a search for leaks would rightly find it. */
const GLASS = 'broken-glass'
const GLASS_TEXT = /^taken by receipt (\d+)$/
const SPARE = { directory: '/spare', custody: '/spare-custody/keyring.age' } as const
const POLICY = asciiBytes(JSON.stringify({ platforms: [], images: [] }))
const SIZE_BYTES_MAX = 1 << 24

export const backUp = async (desk: CustodyDesk, name = BACKUP): Promise<Bytes> => {
  await prepareDirectory(desk.fs, DIRECTORY)
  return createBackup({ ...desk, policy: POLICY, path: `${DIRECTORY}/${name}`, isForced: true })
}

/** Over the place that it was made of. */
export const restoreBackup = async (desk: CustodyDesk): Promise<void> => {
  using plan = await planRestore({ ...desk, backup: await backUp(desk, RESTORED) })
  await plan.commit({ isDowngrade: false })
}

/** To a machine that had nothing, unless a crash came between: a KMS could start there, with every key. */
export const restoreElsewhere = async (desk: CustodyDesk): Promise<void> => {
  const { fs } = desk
  for (const directory of [SPARE.directory, '/spare-custody']) await prepareDirectory(fs, directory)
  const spare = { ...desk, place: SPARE }
  using plan = await planRestore({ ...spare, backup: await backUp(desk, RESTORED) })
  // What a restore of before left there.
  await plan.commit({ isDowngrade: true })
  using keyring = await openKeyring(desk)
  const { keys } = await restoreKms({ ...spare, newLedger: false })
  if (JSON.stringify(keys) !== JSON.stringify(identify(keyring).keys))
    throw new Error('the KMS that was restored has other keys')
}

export const takeKeys = async (desk: CustodyDesk): Promise<void> => {
  await prepareDirectory(desk.fs, DIRECTORY)
  const broken = await breakGlass({ ...desk, reason: 'a drill', confirm: () => Promise.resolve() })
  broken.identities[Symbol.dispose]()
  for (const { pem } of broken.pemFiles) pem[Symbol.dispose]()
  await publish(desk.fs, DIRECTORY, GLASS, asciiBytes(`taken by receipt ${String(broken.receipt.sequence)}`))
}

/**
 * Neither a backup nor an identity file is there without its receipt. One that is damaged is no such file.
 * @throws {KeyriseError} ERR_LEDGER_ROLLED_BACK: the log knows nothing of it; as `FileLedger.inspect`.
 */
export const checkReceipts = async ({ fs, place }: Pick<CustodyDesk, 'fs' | 'place'>): Promise<void> => {
  const read = (name: string) => readWhole(fs, `${DIRECTORY}/${name}`, SIZE_BYTES_MAX)
  const [backup, glass] = [await read(BACKUP), await read(GLASS)]
  if (backup === undefined && glass === undefined) return
  const receipts = await receiptsOf(fs, place.directory)
  const demand = (what: string, isIt: (receipt: Receipt) => boolean): void => {
    if (!receipts.some(isIt)) throw new KeyriseError('ERR_LEDGER_ROLLED_BACK', { detail: `${what} has no receipt` })
  }
  if (backup !== undefined && isBackup(backup)) {
    const digest = sha256(backup)
    const isIt = ({ kind, digest: of }: Receipt): boolean =>
      kind === 'backup' && of !== undefined && equalPublicBytes(of, digest)
    demand(`the backup ${toHex(digest.subarray(0, 4))}`, isIt)
  }
  const number = GLASS_TEXT.exec(new TextDecoder().decode(glass))?.[1]
  if (number !== undefined)
    demand('an identity file', ({ kind, sequence }) => kind === 'break-glass' && sequence === Number(number))
}

const receiptsOf = async (fs: FileSystem, directory: string): Promise<readonly Receipt[]> => {
  const known = await FileLedger.inspect(fs, directory)
  if (known === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: directory })
  return known.receipts.flatMap((signed) => openReceipt(known.identity, signed) ?? [])
}

const isBackup = (bytes: Bytes): boolean => {
  try {
    decodeBackup(bytes)
    return true
  } catch (error) {
    if (isKeyriseError(error, 'ERR_BACKUP_INVALID')) return false
    throw error
  }
}
