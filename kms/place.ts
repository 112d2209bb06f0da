import { dirname, resolve } from 'node:path'
import type { Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem, Random } from '../protocol/ports.js'
import type { ReceiptFields } from '../protocol/receipts.js'
import type { RootSuite } from '../protocol/statements.js'
import { makeRootSecrets } from '../protocol/crypto/root-private.js'
import { encodeRootRecipient } from '../protocol/crypto/root-public.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, storeError, syncDirectory } from '../storage/index.js'
import { FileLedger } from './file-ledger.js'
import { draftReceipt } from './receipts.js'
import { Keyring } from './keyring.js'
import { throttled } from './throttle.js'
import type { RootKey } from './root-keys.js'
import { withCustody, type Custody } from './custody.js'
import { hasKeyring, keyringPath, readKeyringFile, replaceCustody, type KmsPlace } from './custody-files.js'

/** Who a KMS is: all public. */
export interface KmsIdentity {
  /** Ed25519, 32 bytes: what a launch trusts. */
  readonly identity: Bytes
  /** Root keys as `age` recipients, newest first, but for destroyed ones. */
  readonly keys: readonly {
    readonly key: string
    readonly suite: RootSuite
    readonly state: RootKey['state']
    readonly recipient: string
  }[]
}

/** The place that options name, which leave custody out where it is not apart. */
export const placeOf = ({
  directory,
  custody,
}: {
  readonly directory: string
  readonly custody?: string | undefined
}) => ({
  directory,
  ...(custody === undefined ? {} : { custody }),
})

export interface PlaceOptions {
  readonly place: KmsPlace
  /** Borrowed. */
  readonly passphrase: Secret
  readonly fs: FileSystem
  /** By which wrong passphrases are throttled; the machine’s unless told. */
  readonly clock?: Clock
}

/**
 * @throws {KeyriseError} ERR_KEYRING_MISSING, ERR_PASSPHRASE_WRONG, ERR_PASSPHRASE_THROTTLED, ERR_KEYRING_INVALID,
 * ERR_STORE_*.
 */
export const openKeyring = async (options: PlaceOptions): Promise<Keyring> =>
  openKeyringFile(options, await readKeyringFile(options))

/** Opens `file`, a keyring of this place; wrong passphrases are counted there. @throws {KeyriseError} as `openKeyring`. */
export const openKeyringFile = (options: PlaceOptions, file: Bytes): Promise<Keyring> => {
  const { place, fs, passphrase, clock = nodeClock } = options
  return throttled({ fs, directory: place.directory, clock }, () => Keyring.open(file, passphrase))
}

/** Where a KMS is made, and what opens its keyring. */
export type CreateOptions = Pick<PlaceOptions, 'place' | 'fs' | 'clock'> &
  Custody & {
    readonly random: Random
    /** scrypt’s work factor. */
    readonly logN?: number
    /** Of the first root key; x25519 unless told. */
    readonly suite?: RootSuite
  }

/**
 * Makes a KMS: its keys, its keyring, its ledger. The keyring comes last, as the mark that all is done; until then nothing
 * can have been sealed to it, so a repeat after a crash starts afresh, with other shares where custodians have them.
 * @throws {KeyriseError} ERR_KEYRING_EXISTS; ERR_KEYRING_MISSING: the ledger knows of flows, whose keys a new keyring would
 * not have; ERR_CONFIG_INVALID: no such splitting; ERR_STORE_*; what `deliver` throws.
 */
export const createKms = async (options: CreateOptions): Promise<KmsIdentity> => {
  const { place, fs, random, suite = 'x25519', logN } = options
  if (await hasKeyring(place, fs)) throw new KeyriseError('ERR_KEYRING_EXISTS', { detail: keyringPath(place) })
  const ledger = await FileLedger.inspect(fs, place.directory)
  if (ledger !== undefined && ledger.flowCount > 0)
    throw new KeyriseError('ERR_KEYRING_MISSING', {
      detail: `${keyringPath(place)}; flows of its own are in the ledger`,
    })
  using keyring = Keyring.create(random, await makeRootSecrets(suite, random))
  await withCustody(options, { identity: keyring.identity, random }, async ({ passphrase, custodians, words }) => {
    const file = keyring.seal({ passphrase, random, ...(logN === undefined ? {} : { logN }) })
    const [{ key, state }] = keyring.rootKeys
    await beginLedger(options, keyring, 'init', { key, state, reason: `opened by ${words}` })
    await replaceCustody({ place, fs }, { keyring: file, custodians })
  })
  return identify(keyring)
}

/** A ledger whose first receipt says why there is one. */
const beginLedger = (
  { place, fs, clock = nodeClock }: Pick<PlaceOptions, 'place' | 'fs' | 'clock'>,
  keyring: Keyring,
  kind: 'init' | 'restore',
  fields: ReceiptFields,
): Promise<void> => {
  const { make } = draftReceipt({ signer: keyring, clock }, kind, fields)
  return FileLedger.create(fs, place.directory, keyring.identity, make)
}

/** What a KMS that can start again has. */
export interface RestoredKms extends KmsIdentity {
  readonly ledger: 'kept' | 'new'
  /** Flows that the ledger knows. */
  readonly flowCount: number
}

/**
 * Checks that a KMS can start from what is in its place, and where the ledger is lost for good begins a new one.
 * @param options.newLedger - the operator’s word that it is lost: with it goes all knowledge of which state is the newest.
 * @throws {KeyriseError} as `openKeyring` and `FileLedger.open`.
 */
export const restoreKms = async (options: PlaceOptions & { readonly newLedger: boolean }): Promise<RestoredKms> => {
  const { place, fs, newLedger } = options
  using keyring = await openKeyring(options)
  const known = await FileLedger.inspect(fs, place.directory)
  if (known === undefined) {
    if (!newLedger) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: place.directory })
    await beginLedger(options, keyring, 'restore', { reason: 'the ledger was lost: a new one was begun' })
  }
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  await ledger.close()
  return { ...identify(keyring), ledger: known === undefined ? 'new' : 'kept', flowCount: known?.flowCount ?? 0 }
}

/** Who the KMS is that a passphrase opens. @throws {KeyriseError} as `openKeyring`. */
export const identityOf = async (options: PlaceOptions): Promise<Bytes> => {
  using keyring = await openKeyring(options)
  return keyring.identity
}

/** Who a KMS with this keyring is. */
export const identify = (keyring: Keyring): KmsIdentity => ({
  identity: keyring.identity,
  keys: keyring.rootKeys.map(({ key, suite, state, certificate }) => ({
    key,
    suite,
    state,
    recipient: encodeRootRecipient(certificate),
  })),
})

/**
 * Makes the KMS’s directory where it is missing, and its name durable: a crash may have come between the two before. Apart from
 * `createKms`, because an embedded KMS’s worker may touch nothing above the directory.
 */
export const prepareDirectory = async (fs: FileSystem, directory: string): Promise<void> => {
  const path = resolve(directory)
  try {
    await fs.makeDirectory(path)
    await syncDirectory(fs, dirname(path))
  } catch (error) {
    throw storeError(error, path)
  }
}
