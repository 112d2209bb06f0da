import { basename, dirname } from 'node:path'
import type { Random } from '../protocol/ports.js'
import type { ReceiptFields, ReceiptKind } from '../protocol/receipts.js'
import type { RootSuite } from '../protocol/statements.js'
import { makeRootSecrets } from '../protocol/crypto/root-private.js'
import { nodeClock, publish } from '../storage/index.js'
import { FileLedger } from './file-ledger.js'
import { Keyring } from './keyring.js'
import { keyringPath, readKeyringFile } from './custody-files.js'
import { identify, identityOf, openKeyring, type KmsIdentity, type PlaceOptions } from './place.js'
import { Receipts } from './receipts.js'
import { newestSuite, parseKeyId, ROOT_ID, withNext, withoutDue, type RootKeys } from './root-keys.js'
import { settleCustody } from './custody-files.js'

/**
 * What root keys are to become (root-keys.ts). It changes nothing itself, and may be asked again.
 * @throws {KeyriseError} why they cannot.
 */
export type Change = (keys: RootKeys) => RootKeys

export interface ChangeOptions extends PlaceOptions {
  readonly random: Random
}

/**
 * Changes the root keys of a KMS that does not run, and ends those whose time has come: one durable publish of the keyring, under
 * the same passphrase and work factor. Takes the ledger first, as a start does, so that a KMS that still runs here answers nothing
 * more: it would not know the change. Nor are two changes both acknowledged where one overwrote the other, unless the second fits
 * between a check and the rename after it. A copy of the keyring that was made before does not have the change.
 * A receipt of each key that is changed comes first. @throws {KeyriseError} as `openKeyring`, `FileLedger.open` and `change`; ERR_LEDGER_TAKEN: another process took the place meanwhile.
 * Crash: the keyring before or after, whole.
 */
export const changeKeyring = async (options: ChangeOptions, change: Change): Promise<KmsIdentity> => {
  const { place, clock = nodeClock } = options
  const ledger = await FileLedger.open(options.fs, place.directory, await identityOf(options))
  try {
    // Now that the place is this process’s: what it read before may be outdated.
    using keyring = await openKeyring(options)
    const receipts = new Receipts({ ledger, signer: keyring, clock })
    const keys = change(withoutDue(keyring.keys, clock.nowMs()))
    await writeKeys(options, { keyring, ledger, receipts }, keys)
    keyring.change(keys)
    return identify(keyring)
  } finally {
    await ledger.close()
  }
}

/**
 * Makes `keys` those of a keyring’s file, after a receipt of each that is new or in another state. What is in memory stays as it is.
 * @throws {KeyriseError} ERR_LEDGER_TAKEN: another process took the place; ERR_STORE_*, ERR_KEYRING_*.
 * Crash: the file before or after, whole.
 */
export const writeKeys = async (
  { place, passphrase, fs, random }: ChangeOptions,
  of: { readonly keyring: Keyring; readonly ledger: Pick<FileLedger, 'confirm'>; readonly receipts: Receipts },
  keys: RootKeys,
): Promise<void> => {
  const { keyring, ledger, receipts } = of
  const logN = Keyring.workFactor(await readKeyringFile({ place, fs }))
  const file = keyring.seal({ passphrase, random, logN, keys })
  for (const [kind, fields] of receiptsOf(keyring.keys, keys)) await receipts.record(kind, fields)
  await ledger.confirm()
  await settleCustody({ place, fs })
  const path = keyringPath(place)
  await publish(fs, dirname(path), basename(path), file)
  await ledger.confirm()
}

/** Which root key gets a next version, and of what suite; that of the newest version unless told. */
export interface NextKey {
  readonly id?: string
  readonly suite?: RootSuite | undefined
}

/** Makes the next version of a root key, or the first of one. @throws {KeyriseError} as `changeKeyring`; ERR_NAME_INVALID, ERR_SIZE_LIMIT. */
export const rotateKeyring = async (options: ChangeOptions & NextKey): Promise<KmsIdentity> => {
  const { id = ROOT_ID, random } = options
  const suite = options.suite ?? newestSuite(await keysOf(options), id)
  return withNextKey({ id, suite }, random, (change) => changeKeyring(options, change))
}

const keysOf = async (options: PlaceOptions): Promise<KmsIdentity['keys']> => {
  using keyring = await openKeyring(options)
  return identify(keyring).keys
}

/** Makes the secrets of a next version, and wipes them where the change that takes them over does not come about. */
export const withNextKey = async <T>(
  { id: claimed, suite }: { readonly id: string; readonly suite: RootSuite },
  random: Random,
  apply: (change: Change) => Promise<T>,
): Promise<T> => {
  const id = parseKeyId(claimed)
  const secrets = await makeRootSecrets(suite, random)
  try {
    return await apply((keys) => withNext(keys, id, secrets))
  } catch (error) {
    secrets.privateKey[Symbol.dispose]()
    secrets.originKey[Symbol.dispose]()
    throw error
  }
}

const receiptsOf = (before: RootKeys, after: RootKeys): readonly (readonly [ReceiptKind, ReceiptFields])[] => {
  const known = new Map(before.live.map((key) => [key.key, key]))
  const made = after.live.filter(({ key }) => !known.has(key))
  const ended = after.destroyed.filter(({ key }) => known.has(key))
  const changed = after.live.filter(({ key, state, destroyAtMs }) => {
    const older = known.get(key)
    return older !== undefined && (older.state !== state || older.destroyAtMs !== destroyAtMs)
  })
  return [
    ...made.map(({ key, state, suite }) => ['rotation', { key, state, reason: suite }] as const),
    ...changed.map(({ key, state, destroyAtMs }) => {
      const reason = destroyAtMs === null ? {} : { reason: `to be destroyed at ${new Date(destroyAtMs).toISOString()}` }
      return ['key-state', { key, state, ...reason }] as const
    }),
    ...ended.map(({ key }) => ['key-state', { key, state: 'destroyed' }] as const),
  ]
}
