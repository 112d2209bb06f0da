import type { Command } from 'commander'
import { KeyriseError } from '../protocol/errors.js'
import type { RewrappedPair } from '../kms/rewrap.js'
import { rewrapStore, rotateKms } from '../kms/rotation.js'
import { placeOf } from '../kms/place.js'
import { ROOT_ID } from '../kms/root-keys.js'
import type { RootSuite } from '../protocol/statements.js'
import { DirectoryStore, nodeFileSystem } from '../storage/index.js'
import { suiteOption } from './arguments.js'
import { printIdentity, withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
import { EXIT, printText, table } from './terminal.js'

interface RotateFlags extends PlaceFlags {
  readonly key: string
  readonly suite: RootSuite
}

interface RewrapFlags extends PlaceFlags {
  readonly store: string
  readonly flow?: string
}

/** `keyrise kms rotate` and `rewrap`: a new root key, and what was sealed to the older ones. */
export const addRotationCommands = (kms: Command): void => {
  withPlace(kms.command('rotate').description('make a new version of a root key; the older ones stay, to open'))
    .addOption(suiteOption())
    .option('--key <id>', 'the root key; one that there is not is made', ROOT_ID)
    .action(rotate)
  withPlace(kms.command('rewrap').description('rewrap a store for the newest root key alone: headers, not payloads'))
    .requiredOption('--store <dir>', 'the store’s directory; enclaves may use it meanwhile')
    .option('--flow <id>', 'what is this flow’s only')
    .action(rewrap)
}

const rotate = async (flags: RotateFlags): Promise<void> => {
  const { key: id, suite } = flags
  const rotated = await withPassphrase(flags, false, (passphrase) =>
    rotateKms({ ...placeOf(flags), passphrase, id, suite }),
  )
  const newest = rotated.keys[0]?.key ?? ''
  printIdentity(flags, rotated, [
    ['backups', `copies of the keyring made before do not hold ${newest}: make new ones`],
    ['next', 'start the KMS again; then `keyrise kms rewrap` for each store'],
  ])
}

/** A line for each pair that failed, or with --json for each; then how many of each there are. Exits with 1 where one failed. */
const rewrap = async (flags: RewrapFlags): Promise<void> => {
  await checkStore(flags.store)
  const counts: Record<RewrappedPair['status'], number> = { rewrapped: 0, current: 0, failed: 0 }
  const showProgress = flags.json !== true && process.stderr.isTTY
  await withPassphrase(flags, false, async (passphrase) => {
    const { store, flow } = flags
    const target = { store: new DirectoryStore(store), ...(flow === undefined ? {} : { flow }) }
    for await (const pair of rewrapStore({ ...placeOf(flags), passphrase, ...target })) {
      counts[pair.status]++
      if (showProgress) process.stderr.write(`\r${counts.rewrapped} rewrapped, ${counts.current} current`)
      printPair(flags, pair, showProgress)
    }
  })
  if (showProgress) process.stderr.write('\r\x1b[K')
  const rows = Object.entries(counts).map(([status, count]) => [status, String(count)] as const)
  print(flags.json === true ? [JSON.stringify(counts)] : table(rows))
  if (counts.failed > 0) process.exitCode = EXIT.failed
}

const printPair = ({ json }: RewrapFlags, pair: RewrappedPair, showProgress: boolean): void => {
  const { name, status } = pair
  if (json === true)
    print([JSON.stringify(pair.status === 'failed' ? { name, status, code: pair.error.code } : { name, status })])
  else if (pair.status === 'failed')
    print([`${showProgress ? '\r\x1b[K' : ''}${name}  ${pair.error.code} ${pair.error.message}`])
}

const print = (lines: readonly string[]): void => {
  printText(lines.map((line) => `${line}\n`).join(''))
}

/** A store makes its directory where there is none; here that would be a mistyped path. */
export const checkStore = async (path: string): Promise<void> => {
  try {
    await nodeFileSystem.list(path)
  } catch (cause) {
    const code: unknown = cause instanceof Error && 'code' in cause ? cause.code : 'unknown'
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `--store: ${path} (${String(code)})`, cause })
  }
}
