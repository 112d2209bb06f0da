import type { Command } from 'commander'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { dependentsRoute, keysRoute, keyStateRoute } from '../kms/admin-keys.js'
import type { ReplyOf } from '../kms/admin-route.js'
import { changeKeyring } from '../kms/change-keys.js'
import { dependentsOf } from '../kms/dependents.js'
import { openKeyring, placeOf } from '../kms/place.js'
import {
  describeKeys,
  WAITING_MS,
  withChange,
  type KeyChange,
  type KeyDescription,
  type RootKeys,
} from '../kms/root-keys.js'
import { DirectoryStore, nodeClock, nodeFileSystem } from '../storage/index.js'
import { each, wholeNumber } from './arguments.js'
import { askKms, askRunning } from './admin-client.js'
import { withEither, withPassphrase, type PlaceFlags } from './kms-place.js'
import { checkStore } from './rotation-commands.js'
import { EXIT, printResult, printText, table } from './terminal.js'

interface DestroyFlags extends PlaceFlags {
  readonly store: readonly string[]
  readonly waitingDays: number
  readonly yes?: boolean
}

const DAY_MS = 24 * 60 * 60 * 1000

/** `keyrise kms keys …`: the versions of root keys, and what state each is in. */
export const addKeyCommands = (kms: Command): void => {
  const keys = kms.command('keys').description('versions of root keys and their states')
  withEither(keys.command('list').description('list every version, the newest first')).action(list)
  const versioned = (name: string, description: string): Command =>
    withEither(keys.command(name).argument('<key>', 'the version, as in root@1').description(description))
  versioned('disable', 'let a version open nothing; its secret halves are kept').action(changeTo('disable'))
  versioned('enable', 'let a disabled version open again').action(changeTo('enable'))
  versioned('cancel', 'cancel a destruction that waits; the version stays disabled').action(
    changeTo('cancel-destruction'),
  )
  versioned('destroy', 'list what needs a version, and with --yes let it be destroyed after a time')
    .option('--store <dir>', 'a store to look through; may be repeated', each, [])
    .option(
      '--waiting-days <n>',
      'until then it is disabled, and can be cancelled',
      wholeNumber(1, 365),
      WAITING_MS / DAY_MS,
    )
    .option('--yes', 'destroy it, whatever needs it')
    .action(destroy)
}

const list = async (flags: PlaceFlags): Promise<void> => {
  const running = await askRunning(flags, keysRoute, undefined)
  if (running !== undefined) return print(flags, describedOf(running))
  await withSecret(flags, async (passphrase) => print(flags, describeKeys(await readKeys(flags, passphrase))))
}

const changeTo =
  (kind: Exclude<KeyChange['kind'], 'destroy'>) =>
  async (key: string, flags: PlaceFlags): Promise<void> => {
    const running = await askRunning(flags, keyStateRoute, { key, change: kind })
    if (running !== undefined) return print(flags, describedOf(running))
    await withSecret(flags, async (passphrase) => print(flags, await change(flags, passphrase, key, { kind })))
  }

const destroy = async (key: string, flags: DestroyFlags): Promise<void> => {
  for (const path of flags.store) await checkStore(path)
  const registered = await askRunning(flags, dependentsRoute, { key })
  if (registered !== undefined) return destroyRunning(key, flags, registered)
  await withSecret(flags, async (passphrase) => {
    const dependents = await namesOf(flags, passphrase, key)
    if (!isAgreed(key, flags, dependents, flags.store.length)) return
    const atMs = nodeClock.nowMs() + flags.waitingDays * DAY_MS
    print(flags, await change(flags, passphrase, key, { kind: 'destroy', atMs }), { dependents })
  })
}

/** Looks through the stores that are registered with the KMS that runs, and with its passphrase through those that are named. */
const destroyRunning = async (
  key: string,
  flags: DestroyFlags,
  { stores, names, count }: ReplyOf<typeof dependentsRoute.reply>,
): Promise<void> => {
  const dependents = names.map(({ store, name }) => `${store}: ${name}`)
  if (count > names.length) dependents.push(`${String(count - names.length)} more`)
  if (flags.store.length > 0)
    await withSecret(flags, async (passphrase) => void dependents.push(...(await namesOf(flags, passphrase, key))))
  if (!isAgreed(key, flags, dependents, stores + flags.store.length)) return
  const request = { key, change: 'destroy', waitingDays: flags.waitingDays } as const
  print(flags, describedOf(await askKms(flags, keyStateRoute, request)), { dependents })
}

/** Says what needs a version; true where it is to be destroyed nevertheless. */
const isAgreed = (key: string, flags: DestroyFlags, dependents: readonly string[], storeCount: number): boolean => {
  if (flags.json !== true) printText(dependents.map((name) => `unreadable without ${key}  ${name}\n`).join(''))
  if (flags.yes !== true) refuseToDestroy(key, flags, dependents, storeCount)
  return flags.yes === true
}

const describedOf = ({ keys }: ReplyOf<typeof keysRoute.reply>): readonly Described[] =>
  keys.map(({ key, suite, state, at = null }) => ({ key, suite, state, at }))

const refuseToDestroy = (
  key: string,
  { json }: DestroyFlags,
  dependents: readonly string[],
  storeCount: number,
): void => {
  const found =
    storeCount === 0
      ? 'no store was looked through: name them with --store, or register them with the KMS'
      : `${String(dependents.length)} need it in ${String(storeCount)} stores`
  printResult(json === true, { key, stores: storeCount, dependents }, [`${key}: ${found}; --yes destroys it`])
  process.exitCode = EXIT.failed
}

/** What needs the version, of all stores that were named. */
const namesOf = async (flags: DestroyFlags, passphrase: Secret, key: string): Promise<readonly string[]> => {
  using keyring = await openKeyring({ place: placeOf(flags), passphrase, fs: nodeFileSystem })
  const found: string[] = []
  for (const path of flags.store) {
    const store = new DirectoryStore(path)
    for await (const name of dependentsOf({ keys: keyring.keys, key, store })) found.push(`${path}: ${name}`)
  }
  return found
}

/** Changes the keyring of a KMS that does not run. */
const change = async (
  flags: PlaceFlags,
  passphrase: Secret,
  key: string,
  to: KeyChange,
): Promise<readonly KeyDescription[]> => {
  const options = { place: placeOf(flags), passphrase, fs: nodeFileSystem, random: nodeRandom }
  await changeKeyring(options, (keys) => withChange(keys, key, to))
  return describeKeys(await readKeys(flags, passphrase))
}

/** All that is public of it: the secret halves are wiped when this resolves. */
const readKeys = async (flags: PlaceFlags, passphrase: Secret): Promise<RootKeys> => {
  using keyring = await openKeyring({ place: placeOf(flags), passphrase, fs: nodeFileSystem })
  return keyring.keys
}

/** Read once: a descriptor has nothing more to give. */
const withSecret = (flags: PlaceFlags, use: (passphrase: Secret) => Promise<void>): Promise<void> =>
  withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    await use(passphrase)
  })

/** A version as the files have it, or as the KMS tells. */
type Described = Readonly<Record<'key' | 'suite' | 'state', string>> & Pick<KeyDescription, 'at'>

const print = ({ json }: PlaceFlags, keys: readonly Described[], fields: object = {}): void => {
  const rows = keys.map(({ key, suite, state, at }) => [key, [suite, state, at].filter(Boolean).join('  ')] as const)
  printResult(json === true, { ...fields, keys }, table(rows))
}
