import type { Command } from 'commander'
import { toHex, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { MemoryFileSystem } from '../faults/memory-file-system.js'
import {
  BACKUP_SIZE_BYTES_MAX,
  createBackup,
  custodiansOf,
  POLICY_SIZE_BYTES_MAX,
  type BackupContents,
} from '../kms/backup.js'
import { backupRoute } from '../kms/admin-custody.js'
import { fingerprintOf } from '../kms/custodians.js'
import { placeOf, prepareDirectory, restoreKms } from '../kms/place.js'
import { planRestore } from '../kms/restore.js'
import { nodeClock, nodeFileSystem, readWhole } from '../storage/index.js'
import { askRunning, demandSealed } from './admin-client.js'
import { printIdentity, withEither, withPassphrase, withPassphraseOf, type PlaceFlags } from './kms-place.js'
import { askWord, hasTerminal } from './passphrase.js'
import { printResult, table } from './terminal.js'

interface BackupFlags extends PlaceFlags {
  readonly policy: string
  readonly out: string
  readonly force?: boolean
}

interface RestoreFlags extends PlaceFlags {
  readonly newLedger?: boolean
  readonly policy?: string
  readonly yes?: boolean
  readonly allowDowngrade?: boolean
}

/** `keyrise kms backup` and `keyrise kms restore` */
export const addBackupCommands = (kms: Command): void => {
  withEither(kms.command('backup').description('put keyring, log and policy into one file, and try it'))
    .requiredOption('--policy <file>', 'the policy that the KMS is served with')
    .requiredOption('--out <file>', 'the backup’s file')
    .option('--force', 'replace a file of the name')
    .action(backup)
  withEither(
    kms
      .command('restore')
      .argument('[backup]', 'a file of `kms backup`; without one, only what is there is checked')
      .description('bring a KMS back from a backup, or check that it can start from its keyring and ledger'),
  )
    .option('--policy <file>', 'where the backup’s policy goes')
    .option('--yes', 'do not ask, once it is shown what is restored')
    .option('--allow-downgrade', 'what is newer here than in the backup may be lost for good')
    .option('--new-ledger', 'begin a new ledger: the old one, and with it which state is the newest, is lost for good')
    .action(restore)
}

const backup = async (flags: BackupFlags): Promise<void> => {
  const policy = await readRequired(flags.policy, POLICY_SIZE_BYTES_MAX)
  const [bytes, text] = await withPassphrase(flags, false, async (secret) => {
    using passphrase = Secret.take(secret)
    const options = { place: placeOf(flags), passphrase, fs: nodeFileSystem, clock: nodeClock }
    await createBackup({
      ...options,
      policy,
      path: flags.out,
      isForced: flags.force === true,
      recordRunning: (digest) => recordRunning(flags, digest),
    })
    // What the disk has now, and not what was meant for it.
    const written = await readRequired(flags.out, BACKUP_SIZE_BYTES_MAX)
    return [written, await rehearse(written, passphrase)] as const
  })
  const digest = toHex(sha256(bytes))
  printResult(flags.json === true, { file: flags.out, digest, restoreTest: 'passed', ...text.fields }, [
    ...table([['file', flags.out], ['digest', digest], ...text.rows, ['restore test', 'passed: a KMS opened from it']]),
  ])
}

/** A KMS that runs sealed has not opened its ledger. */
const recordRunning = async (flags: BackupFlags, digest: Bytes): Promise<boolean> => {
  try {
    return (await askRunning(flags, backupRoute, { digest: toHex(digest) })) !== undefined
  } catch (error) {
    if (isKeyriseError(error, 'ERR_KMS_SEALED')) return false
    throw error
  }
}

const readRequired = async (path: string, sizeBytesMax: number): Promise<Bytes> => {
  const bytes = await readWhole(nodeFileSystem, path, sizeBytesMax).catch((error: unknown) => {
    if (isKeyriseError(error, 'ERR_SIZE_LIMIT')) throw error
    throw new KeyriseError('ERR_FILE_UNREADABLE', { detail: path, cause: error })
  })
  if (bytes === undefined) throw new KeyriseError('ERR_FILE_UNREADABLE', { detail: path })
  return bytes
}

/** Restores it to a disk in memory, by the code that a restore runs, and opens the KMS that is there then. */
const rehearse = async (bytes: Bytes, passphrase: Secret): Promise<Described> => {
  const fs = new MemoryFileSystem()
  const place = { directory: '/kms', custody: '/custody/keyring.age' }
  await prepareDirectory(fs, '/kms')
  await prepareDirectory(fs, '/custody')
  using plan = await planRestore({ place, passphrase, fs, clock: nodeClock, backup: bytes, policyPath: '/kms/policy' })
  await plan.commit({ isDowngrade: false })
  const opened = await restoreKms({ place, passphrase, fs, newLedger: false })
  if (toHex(opened.identity) !== toHex(plan.contents.keyring.identity))
    throw new KeyriseError('ERR_BACKUP_INVALID', { detail: 'the restore test' })
  return describe(plan.contents)
}

interface Described {
  readonly rows: readonly (readonly [name: string, value: string])[]
  readonly fields: object
}

/** Fingerprints, and what they cover. */
const describe = ({ file, keyring, keys, ledger, custodians, policy }: BackupContents): Described => {
  const time = new Date(file.timeMs).toISOString()
  const identity = toHex(keyring.identity)
  const flows = [...ledger.flows].map(([flow, { head, incarnation, destroyed }]) => ({
    flow,
    epoch: head?.epoch ?? 0,
    incarnation,
    destroyed,
  }))
  const shared = custodians && { threshold: custodians.threshold, count: custodians.commitments.length }
  const receipts = ledger.receipts.length
  return {
    rows: [
      ['made', time],
      ['identity', identity],
      ['fingerprint', fingerprintOf(keyring.identity)],
      ...keys.map(({ key, state, fingerprint }) => [key, `${fingerprint}  ${state}`] as const),
      ...(shared === undefined
        ? []
        : [['custodians', `${String(shared.threshold)} of ${String(shared.count)}`] as const]),
      ...flows.map(
        ({ flow, epoch, destroyed }) =>
          ['flow', `${flow}  ${destroyed ? 'destroyed' : `epoch ${String(epoch)}`}`] as const,
      ),
      ['receipts', String(receipts)],
      ['policy', `${String(policy.images.length)} images`],
    ],
    fields: { time, identity, keys, flows, receipts, ...(shared === undefined ? {} : { custodians: shared }) },
  }
}

const restore = async (path: string | undefined, flags: RestoreFlags): Promise<void> => {
  if (path === undefined) return check(flags)
  if (flags.newLedger === true)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'a backup has its ledger: leave out --new-ledger' })
  const bytes = await readRequired(path, BACKUP_SIZE_BYTES_MAX)
  await demandSealed(flags)
  await prepareDirectory(nodeFileSystem, flags.directory)
  await withPassphraseOf(custodiansOf(bytes), flags, false, async (secret) => {
    using passphrase = Secret.take(secret)
    const options = { place: placeOf(flags), passphrase, fs: nodeFileSystem, clock: nodeClock }
    using plan = await planRestore({ ...options, backup: bytes, policyPath: flags.policy })
    const { rows, fields } = describe(plan.contents)
    const { downgrades } = plan
    const lost = downgrades.map((sentence) => ['LOST', sentence] as const)
    const isDowngrade = flags.allowDowngrade === true
    if (flags.yes !== true && (downgrades.length === 0 || isDowngrade))
      await confirm([...rows, ...lost], flags.json === true)
    await plan.commit({ isDowngrade })
    const next = 'start the KMS; flows that went on after the backup was made are refused until `kms accept-stale`'
    const policyWent = ['policy file', flags.policy ?? 'not written: give --policy FILE'] as const
    printResult(
      flags.json === true,
      { ...fields, downgrades, policy: flags.policy ?? null },
      table([...rows, ...lost, policyWent, ['next', next]]),
    )
  })
}

const confirm = async (rows: readonly (readonly [string, string])[], isJson: boolean): Promise<void> => {
  if (!isJson || hasTerminal()) process.stderr.write(`${table(rows).join('\n')}\n`)
  if (!hasTerminal()) throw new KeyriseError('ERR_NOT_CONFIRMED', { detail: 'no terminal to ask on: give --yes' })
  if ((await askWord('Restore this? Type yes: ')) !== 'yes') throw new KeyriseError('ERR_NOT_CONFIRMED')
}

/** Without a backup: whether a KMS could start from what is there. */
const check = async (flags: RestoreFlags): Promise<void> => {
  const newLedger = flags.newLedger === true
  const found = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    if (newLedger) await prepareDirectory(nodeFileSystem, flags.directory)
    return await restoreKms({ place: placeOf(flags), passphrase, fs: nodeFileSystem, newLedger })
  })
  printIdentity(flags, found, [['ledger', `${found.ledger}, ${found.flowCount} flows`]], {
    ledger: found.ledger,
    flows: found.flowCount,
  })
}
