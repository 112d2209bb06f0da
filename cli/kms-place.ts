import { Option, type Command } from 'commander'
import { toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { CustodianSet } from '../kms/custodians.js'
import type { KmsIdentity } from '../kms/index.js'
import { readCustodians } from '../kms/custody-files.js'
import { placeOf } from '../kms/place.js'
import { nodeFileSystem } from '../storage/index.js'
import { each, wholeNumber } from './arguments.js'
import { readShares } from './custody-shares.js'
import { readPassphrase } from './passphrase.js'
import { printResult, table } from './terminal.js'

/** What the commands of a KMS have in common: where it keeps its things, and how its keyring opens. */
export interface PlaceFlags {
  readonly directory: string
  readonly custody?: string
  readonly passphraseFd?: number
  readonly passphraseCredential?: string
  readonly share?: readonly string[]
  readonly json?: boolean
  /** Of commands that ask a KMS that runs first. */
  readonly adminSocket?: string
}

/** Where a passphrase is that is not to be asked for. */
export const withGiven = (command: Command): Command =>
  command
    .option(
      '--passphrase-fd <n>',
      'read the passphrase from this file descriptor; otherwise it is asked for',
      wholeNumber(0, 1023),
    )
    .option('--passphrase-credential <name>', 'read it from this systemd credential, in $CREDENTIALS_DIRECTORY')

export const withPlace = (command: Command): Command =>
  withGiven(
    command
      .requiredOption('--directory <path>', 'the KMS’s directory: its ledger and, without --custody, its keyring')
      .option('--custody <file>', 'the keyring’s file in a third place, whose directory exists'),
  )
    .option(
      '--share <file>',
      'a custodian’s share, where custodians have the passphrase; may be repeated. Otherwise they are asked for',
      each,
    )
    .option('--json', 'print JSON')

export const workFactorOption = (): Option =>
  new Option('--work-factor <n>', 'scrypt’s work factor for the passphrase, as a power of two').argParser(
    wholeNumber(10, 20),
  )

/** Of what a KMS that runs does by itself, and what is done to its files where none runs. */
export const withEither = (command: Command): Command =>
  withPlace(command).option('--admin-socket <path>', 'of the KMS that runs there, where it is not in the directory')

export const withPassphrase = async <T>(
  flags: PlaceFlags,
  isNew: boolean,
  use: (passphrase: Bytes) => Promise<T>,
): Promise<T> => {
  const custodians = isNew || isGiven(flags) ? undefined : await readCustodians(placeOf(flags), nodeFileSystem)
  return withPassphraseOf(custodians, flags, isNew, use)
}

/** @param custodians - whose shares make the passphrase, unless the flags say where it is; undefined where nobody shares it. */
export const withPassphraseOf = async <T>(
  custodians: CustodianSet | undefined,
  flags: PlaceFlags,
  isNew: boolean,
  use: (passphrase: Bytes) => Promise<T>,
): Promise<T> => {
  const { passphraseFd: descriptor, passphraseCredential: credential, share = [] } = flags
  if (share.length > 0 && custodians === undefined)
    throw new KeyriseError('ERR_CUSTODIANS_INVALID', { detail: 'there are shares, and no file beside the keyring' })
  const passphrase =
    custodians === undefined || isGiven(flags)
      ? await readPassphrase({ descriptor, credential, isNew })
      : await readShares(custodians, share)
  try {
    return await use(passphrase)
  } finally {
    passphrase.fill(0)
  }
}

/** True where the command line says where the passphrase is. */
export const isGiven = ({
  passphraseFd,
  passphraseCredential,
}: Pick<PlaceFlags, 'passphraseFd' | 'passphraseCredential'>): boolean =>
  passphraseFd !== undefined || passphraseCredential !== undefined

export const printIdentity = (
  { json }: { readonly json?: boolean },
  { identity: key, keys }: KmsIdentity,
  rows: readonly (readonly [name: string, value: string])[],
  fields: object = {},
): void => {
  const keyRows = keys.map(({ key: id, recipient }) => [id, recipient] as const)
  printResult(
    json === true,
    { ...fields, identity: toHex(key), keys },
    table([['identity', toHex(key)], ...keyRows, ...rows]),
  )
}
