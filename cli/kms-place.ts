import type { Command } from 'commander'
import { toHex, type Bytes } from '../protocol/bytes.js'
import type { KmsIdentity } from '../kms/index.js'
import { wholeNumber } from './arguments.js'
import { readPassphrase } from './passphrase.js'
import { printResult, table } from './terminal.js'

/** What the commands of a KMS have in common: where it keeps its things, and how its keyring opens. */
export interface PlaceFlags {
  readonly directory: string
  readonly custody?: string
  readonly passphraseFd?: number
  readonly json?: boolean
}

export const withPlace = (command: Command): Command =>
  command
    .requiredOption('--directory <path>', 'the KMS’s directory: its ledger and, without --custody, its keyring')
    .option('--custody <file>', 'the keyring’s file in a third place, whose directory exists')
    .option(
      '--passphrase-fd <n>',
      'read the passphrase from this file descriptor; otherwise it is asked for',
      wholeNumber(0, 1023),
    )
    .option('--json', 'print JSON')

export const withPassphrase = async <T>(
  flags: PlaceFlags,
  isNew: boolean,
  use: (passphrase: Bytes) => Promise<T>,
): Promise<T> => {
  const passphrase = await readPassphrase({ descriptor: flags.passphraseFd, isNew })
  try {
    return await use(passphrase)
  } finally {
    passphrase.fill(0)
  }
}

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
