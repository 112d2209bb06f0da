import type { Command } from 'commander'
import { setTimeout } from 'node:timers/promises'
import { statusRoute } from '../kms/admin-control.js'
import { rewrapProgressRoute, rewrapRoute, rotateRoute } from '../kms/admin-keys.js'
import type { ReplyOf } from '../kms/admin-route.js'
import { KeyriseError } from '../protocol/errors.js'
import type { RewrappedPair } from '../kms/rewrap.js'
import { rewrapStore, rotateKms } from '../kms/rotation.js'
import { placeOf } from '../kms/place.js'
import { ROOT_ID } from '../kms/root-keys.js'
import type { RootSuite } from '../protocol/statements.js'
import { DirectoryStore, nodeFileSystem } from '../storage/index.js'
import { suiteOption } from './arguments.js'
import { askKms, askRunning } from './admin-client.js'
import { printIdentity, withEither, withPassphrase, type PlaceFlags } from './kms-place.js'
import { EXIT, printResult, printText, table } from './terminal.js'

interface RotateFlags extends PlaceFlags {
  readonly key: string
  readonly suite?: RootSuite
}

interface RewrapFlags extends PlaceFlags {
  readonly store?: string
  readonly flow?: string
}

type StoreProgress = ReplyOf<typeof rewrapProgressRoute.reply>['stores'][number]

/** Between two looks at a rewrap that another process does. */
const POLL_MS = 300

/** `keyrise kms rotate` and `rewrap`: a new root key, and what was sealed to the older ones. */
export const addRotationCommands = (kms: Command): void => {
  withEither(kms.command('rotate').description('make a new version of a root key; the older ones stay, to open'))
    .addOption(suiteOption().default(undefined, 'as the newest version'))
    .option('--key <id>', 'the root key; one that there is not is made', ROOT_ID)
    .action(rotate)
  withEither(kms.command('rewrap').description('rewrap what was sealed to older versions: headers, not payloads'))
    .option('--store <dir>', 'a store’s directory; those that are registered with the KMS that runs unless told')
    .option('--flow <id>', 'what is this flow’s only')
    .action(rewrap)
}

const rotate = async (flags: RotateFlags): Promise<void> => {
  const { key: id, suite } = flags
  const running = await askRunning(flags, rotateRoute, { key: id, ...(suite === undefined ? {} : { suite }) })
  if (running !== undefined) return printRotated(flags, running.key)
  const rotated = await withPassphrase(flags, false, (passphrase) =>
    rotateKms({ ...placeOf(flags), passphrase, id, suite }),
  )
  const newest = rotated.keys[0]?.key ?? ''
  printIdentity(flags, rotated, [
    ['backups', backupsLack(newest)],
    ['next', 'start the KMS again; then `keyrise kms rewrap` for each store'],
  ])
}

/** It serves on: enclaves seal to the new version from their next session on. */
const printRotated = async (flags: RotateFlags, key: string): Promise<void> => {
  const { identity, keys } = await askKms(flags, statusRoute, undefined)
  const { state, stores } = await askKms(flags, rewrapProgressRoute, undefined)
  const next =
    state === 'idle'
      ? 'no store is registered with the KMS: `keyrise kms rewrap --store …` for each'
      : `${stores.map(({ store }) => store).join(', ')}: being rewrapped; \`keyrise kms rewrap\` shows how far`
  const rows = [
    ...keys.map(({ key: one, recipient }) => [one, recipient] as const),
    ['backups', backupsLack(key)] as const,
  ]
  printResult(flags.json === true, { identity, keys, rewrap: { state, stores } }, [
    ...table([['identity', identity], ...rows, ['next', next]]),
  ])
}

const backupsLack = (key: string): string => `copies of the keyring made before do not hold ${key}: make new ones`

/** Has the KMS that runs rewrap what is registered with it, or follows what it is doing already; exits with 1 where a pair failed. */
const rewrapRegistered = async (flags: RewrapFlags): Promise<void> => {
  if (flags.flow !== undefined) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--flow: with --store only' })
  const before = await askRunning(flags, rewrapProgressRoute, undefined)
  if (before === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--store: it is needed where no KMS runs in the directory' })
  let progress = before.state === 'running' ? before : await askKms(flags, rewrapRoute, undefined)
  if (progress.state === 'idle')
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: 'stores: none is registered with this KMS; name one with --store',
    })
  const showProgress = flags.json !== true && process.stderr.isTTY
  while (progress.state === 'running') {
    if (showProgress) process.stderr.write(`\r\x1b[K${progress.stores.map(describeStore).join('; ')}`)
    await setTimeout(POLL_MS)
    progress = await askKms(flags, rewrapProgressRoute, undefined)
  }
  if (showProgress) process.stderr.write('\r\x1b[K')
  const failures = progress.failures.map(({ store, name, code }) => `${store}: ${name}  ${code}`)
  printResult(flags.json === true, progress, [...failures, ...progress.stores.map(describeStore)])
  if (progress.state === 'failed' || failures.length > 0) process.exitCode = EXIT.failed
}

const describeStore = ({ store, total, rewrapped, current, failed, code }: StoreProgress): string =>
  `${store}: ${code ?? `${String(rewrapped)} rewrapped, ${String(current)} current, ${String(failed)} failed of ${String(total)}`}`

/** A line for each pair that failed, or with --json for each; then how many of each there are. Exits with 1 where one failed. */
const rewrap = async (flags: RewrapFlags): Promise<void> => {
  const { store, flow } = flags
  if (store === undefined) return rewrapRegistered(flags)
  await checkStore(store)
  const counts: Record<RewrappedPair['status'], number> = { rewrapped: 0, current: 0, failed: 0 }
  const showProgress = flags.json !== true && process.stderr.isTTY
  await withPassphrase(flags, false, async (passphrase) => {
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
