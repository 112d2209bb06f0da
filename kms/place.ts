import { basename, dirname, join, resolve } from 'node:path'
import type { Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem, Random } from '../protocol/ports.js'
import type { ReceiptFields } from '../protocol/receipts.js'
import type { RootSuite } from '../protocol/statements.js'
import { makeRootSecrets } from '../protocol/crypto/root-private.js'
import { encodeRootRecipient } from '../protocol/crypto/root-public.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, publish, readWhole, storeError, syncDirectory } from '../storage/index.js'
import {
  checkCustodians,
  CUSTODIANS_SIZE_BYTES_MAX,
  decodeCustodians,
  encodeCustodians,
  splitPassphrase,
  type CustodianSet,
  type Share,
} from './custodians.js'
import { FileLedger } from './file-ledger.js'
import { draftReceipt } from './receipts.js'
import { Keyring, KEYRING_SIZE_BYTES_MAX } from './keyring.js'
import { throttled } from './throttle.js'
import type { RootKey } from './root-keys.js'

/** The keyring’s file in the KMS’s directory, where no other custody is named. */
const KEYRING_NAME = 'keyring.age'
/** Behind the keyring’s own name, where custodians share its passphrase. */
const CUSTODIANS_SUFFIX = '.custodians'

/** Where a KMS keeps what must survive it. */
export interface KmsPlace {
  /** The ledger’s. */
  readonly directory: string
  /** The keyring’s file in a third place; its directory must exist. */
  readonly custody?: string
}

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

/** The keyring’s file, sealed as it is: what changes it replaces it as a whole. */
export const readKeyringFile = async ({ place, fs }: Pick<PlaceOptions, 'place' | 'fs'>): Promise<Bytes> => {
  const path = keyringPath(place)
  const file = await readWhole(fs, path, KEYRING_SIZE_BYTES_MAX)
  if (file === undefined) throw new KeyriseError('ERR_KEYRING_MISSING', { detail: path })
  return file
}

/** True where a keyring, whole or damaged, is in its place. */
export const hasKeyring = async (place: KmsPlace, fs: FileSystem): Promise<boolean> =>
  (await readWhole(fs, keyringPath(place), KEYRING_SIZE_BYTES_MAX)) !== undefined

/** Who the custodians of a place’s keyring are; undefined where nobody shares its passphrase. @throws {KeyriseError} ERR_CUSTODIANS_INVALID, ERR_STORE_*. */
export const readCustodians = async (place: KmsPlace, fs: FileSystem): Promise<CustodianSet | undefined> => {
  const file = await readWhole(fs, custodiansPath(place), CUSTODIANS_SIZE_BYTES_MAX)
  return file && decodeCustodians(file)
}

export interface CreateOptions extends Pick<PlaceOptions, 'place' | 'fs' | 'clock'> {
  readonly random: Random
  /** scrypt’s work factor. */
  readonly logN?: number
  /** Of the first root key; x25519 unless told. */
  readonly suite?: RootSuite
}

/**
 * Makes a KMS: its keys, its keyring, its ledger. The keyring comes last, as the mark that all is done; until then nothing
 * can have been sealed to it, so a repeat after a crash starts afresh.
 * @throws {KeyriseError} ERR_KEYRING_EXISTS; ERR_KEYRING_MISSING: the ledger knows of flows, whose keys a new keyring would
 * not have; ERR_STORE_*.
 */
export const createKms = (options: CreateOptions & Pick<PlaceOptions, 'passphrase'>): Promise<KmsIdentity> =>
  create(options, (keyring) => writeKms(options, keyring, options.passphrase, 'one passphrase'))

export interface SharedKmsOptions extends CreateOptions {
  /** How many custodians there are, and how many of them it takes. */
  readonly count: number
  readonly threshold: number
  /** Hands each custodian a share, for good when it resolves; nothing else has been written by then. Shares are borrowed. */
  readonly deliver: (shares: readonly Share[], custodians: CustodianSet) => Promise<void>
}

/**
 * The same where custodians share the passphrase, which nobody is told. A repeat after a crash makes other shares: those of
 * before are told apart by it.
 * @throws {KeyriseError} as `createKms`; ERR_CONFIG_INVALID; what `deliver` throws.
 */
export const createSharedKms = (options: SharedKmsOptions): Promise<KmsIdentity> => {
  const { place, fs, random, count, threshold, deliver } = options
  checkCustodians(count, threshold)
  return create(options, async (keyring) => {
    const { passphrase, shares, set } = await splitPassphrase({ identity: keyring.identity, count, threshold, random })
    try {
      await deliver(shares, set)
      const path = custodiansPath(place)
      await publish(fs, dirname(path), basename(path), encodeCustodians(set))
      await writeKms(options, keyring, passphrase, `${threshold} of ${count} custodians`)
    } finally {
      passphrase[Symbol.dispose]()
      for (const { text } of shares) text[Symbol.dispose]()
    }
  })
}

const create = async (
  { place, fs, random, suite = 'x25519' }: CreateOptions,
  write: (keyring: Keyring) => Promise<void>,
): Promise<KmsIdentity> => {
  const path = keyringPath(place)
  if (await hasKeyring(place, fs)) throw new KeyriseError('ERR_KEYRING_EXISTS', { detail: path })
  const ledger = await FileLedger.inspect(fs, place.directory)
  if (ledger !== undefined && ledger.flowCount > 0)
    throw new KeyriseError('ERR_KEYRING_MISSING', { detail: `${path}; flows of its own are in the ledger` })
  using keyring = Keyring.create(random, await makeRootSecrets(suite, random))
  await write(keyring)
  return identify(keyring)
}

/** @param openedBy - what opens the keyring, for the receipt. */
const writeKms = async (
  options: CreateOptions,
  keyring: Keyring,
  passphrase: Secret,
  openedBy: string,
): Promise<void> => {
  const { place, fs, random, logN } = options
  const path = keyringPath(place)
  const file = keyring.seal({ passphrase, random, ...(logN === undefined ? {} : { logN }) })
  const [{ key, state }] = keyring.rootKeys
  await beginLedger(options, keyring, 'init', { key, state, reason: `opened by ${openedBy}` })
  await publish(fs, dirname(path), basename(path), file)
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

/** The keyring’s file. */
export const keyringPath = ({ directory, custody }: KmsPlace): string => custody ?? join(directory, KEYRING_NAME)
export const custodiansPath = (place: KmsPlace): string => `${keyringPath(place)}${CUSTODIANS_SUFFIX}`

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
