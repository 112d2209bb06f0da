import type { Command } from 'commander'
import { KeyriseError } from '../protocol/errors.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
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
import { wholeNumber } from './arguments.js'
import { withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
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
  withPlace(keys.command('list').description('list every version, the newest first')).action(list)
  const versioned = (name: string, description: string): Command =>
    withPlace(keys.command(name).argument('<key>', 'the version, as in root@1').description(description))
  versioned('disable', 'let a version open nothing; its secret halves are kept').action(changeTo('disable'))
  versioned('enable', 'let a disabled version open again').action(changeTo('enable'))
  versioned('cancel', 'cancel a destruction that waits; the version stays disabled').action(
    changeTo('cancel-destruction'),
  )
  versioned('destroy', 'list what needs a version, and with --yes let it be destroyed after a time')
    .option('--store <dir>', 'a store to look through; may be repeated', (dir, all: string[]) => [...all, dir], [])
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
  const keys = await withKeys(flags, (known) => Promise.resolve(describeKeys(known)))
  print(flags, keys)
}

const changeTo =
  (kind: Exclude<KeyChange['kind'], 'destroy'>) =>
  async (key: string, flags: PlaceFlags): Promise<void> => {
    print(flags, await change(flags, key, { kind }))
  }

const destroy = async (key: string, flags: DestroyFlags): Promise<void> => {
  for (const path of flags.store) await checkStore(path)
  const names = await withKeys(flags, async (keys) => {
    const found: string[] = []
    for (const path of flags.store)
      for await (const name of dependentsOf({ keys, key, store: new DirectoryStore(path) }))
        found.push(`${path}: ${name}`)
    return found
  })
  if (flags.json !== true) printText(names.map((name) => `unreadable without ${key}  ${name}\n`).join(''))
  if (flags.yes !== true) {
    const looked =
      flags.store.length === 0 ? 'no store was looked through: name them with --store' : `${names.length} need it`
    printResult(flags.json === true, { key, dependents: names }, [`${key}: ${looked}; --yes destroys it`])
    process.exitCode = EXIT.failed
    return
  }
  print(flags, await change(flags, key, { kind: 'destroy', atMs: nodeClock.nowMs() + flags.waitingDays * DAY_MS }), {
    dependents: names,
  })
}

/** Changes the keyring of a KMS that does not run. */
const change = (flags: PlaceFlags, key: string, to: KeyChange): Promise<readonly KeyDescription[]> =>
  withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    let changed: RootKeys | undefined
    await changeKeyring(
      { place: placeOf(flags), passphrase, fs: nodeFileSystem, random: nodeRandom },
      (keys) => (changed = withChange(keys, key, to)),
    )
    if (changed === undefined) throw new KeyriseError('ERR_KEY_UNKNOWN', { detail: key })
    return describeKeys(changed)
  })

const withKeys = <T>(flags: PlaceFlags, use: (keys: RootKeys) => Promise<T>): Promise<T> =>
  withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    using keyring = await openKeyring({ place: placeOf(flags), passphrase, fs: nodeFileSystem })
    return await use(keyring.keys)
  })

const print = ({ json }: PlaceFlags, keys: readonly KeyDescription[], fields: object = {}): void => {
  const rows = keys.map(({ key, suite, state, at }) => [key, [suite, state, at].filter(Boolean).join('  ')] as const)
  printResult(json === true, { ...fields, keys }, table(rows))
}
