import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { isKeyriseError, type ErrorCode } from '../protocol/errors.js'
import { statusRoute } from '../kms/admin-control.js'
import { fingerprintOf } from '../kms/custodians.js'
import { FileLedger } from '../kms/file-ledger.js'
import { hasKeyring, readCustodians } from '../kms/custody-files.js'
import { placeOf } from '../kms/place.js'
import { throttleWaitMs } from '../kms/throttle.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { askRunning } from './admin-client.js'
import { EXIT, printResult, table } from './terminal.js'

interface StatusFlags {
  readonly directory: string
  readonly custody?: string
  readonly adminSocket?: string
  readonly json?: boolean
}

/** `keyrise kms status` */
export const addStatusCommand = (kms: Command): void => {
  kms
    .command('status')
    .description('what is there of a KMS; needs no passphrase, and changes nothing')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--custody <file>', 'the keyring’s file in a third place')
    .option('--admin-socket <path>', 'of the KMS that runs there, where it is not in the directory')
    .option('--json', 'print one JSON object')
    .action(status)
}

const status = async (flags: StatusFlags): Promise<void> => {
  const found = await look(flags)
  const { identity, keyring, state, submitted, custodians, ledger, waitMs } = found
  const rows = [
    ['identity', identity ?? 'unknown'],
    ...(identity === undefined ? [] : [['fingerprint', fingerprintOf(Buffer.from(identity, 'hex'))]]),
    ['keyring', keyring],
    ['state', state ?? 'no KMS runs here'],
    [
      'custodians',
      custodians === undefined
        ? 'none: a passphrase'
        : typeof custodians === 'string'
          ? custodians
          : `${String(custodians.threshold)} of ${String(custodians.count)}`,
    ],
    ...(submitted.length === 0 ? [] : [['shares', `of ${submitted.join(', ')}; others are needed`]]),
    [
      'ledger',
      typeof ledger === 'string' ? ledger : `${String(ledger.flows)} flows, ${String(ledger.receipts)} receipts`,
    ],
    ...(waitMs === 0 ? [] : [['passphrase', `wait ${String(Math.ceil(waitMs / 1000))} s: wrong ones were tried`]]),
  ] as [string, string][]
  printResult(flags.json === true, found, table(rows))
  if (keyring === 'missing' && typeof ledger === 'string') process.exitCode = EXIT.failed
}

interface Found {
  readonly identity: string | undefined
  readonly keyring: 'there' | 'missing'
  /** Of the KMS that runs there; undefined where none does. */
  readonly state: 'sealed' | 'unlocked' | undefined
  /** Whose shares it has, while it waits for others. */
  readonly submitted: readonly number[]
  readonly custodians: { readonly threshold: number; readonly count: number } | ErrorCode | undefined
  readonly ledger: { readonly flows: number; readonly receipts: number } | ErrorCode
  /** How long no passphrase is tried, since wrong ones were. */
  readonly waitMs: number
}

const look = async (flags: StatusFlags): Promise<Found> => {
  const place = placeOf(flags)
  const fs = nodeFileSystem
  const [ledger, custodians] = await Promise.all([
    coded(() => FileLedger.inspect(fs, place.directory)),
    coded(() => readCustodians(place, fs)),
  ])
  const running = await askRunning(flags, statusRoute, undefined)
  return {
    identity: typeof ledger === 'object' ? toHex(ledger.identity) : undefined,
    keyring: (await hasKeyring(place, fs)) ? 'there' : 'missing',
    state: running?.state,
    submitted: running?.submitted ?? [],
    custodians:
      typeof custodians === 'object'
        ? { threshold: custodians.threshold, count: custodians.commitments.length }
        : custodians,
    ledger:
      typeof ledger === 'object'
        ? { flows: ledger.flowCount, receipts: ledger.receipts.length }
        : (ledger ?? 'ERR_LEDGER_MISSING'),
    waitMs: await throttleWaitMs({ fs, directory: place.directory, clock: nodeClock }),
  }
}

/** What `read` finds, or the code that it fails with. */
const coded = async <T>(read: () => Promise<T>): Promise<T | ErrorCode> => {
  try {
    return await read()
  } catch (error) {
    if (isKeyriseError(error)) return error.code
    throw error
  }
}
