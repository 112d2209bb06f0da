import { basename, dirname, join } from 'node:path'
import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FileSystem } from '../protocol/ports.js'
import { discard, publish, readWhole, syncDirectory } from '../storage/index.js'
import { CUSTODIANS_SIZE_BYTES_MAX, decodeCustodians, type CustodianSet } from './custodians.js'
import { KEYRING_SIZE_BYTES_MAX } from './keyring.js'

/**
 * The files of custody: the keyring, and beside it who shares its passphrase. They belong together, and are replaced together: what
 * is to be said of the next keyring is written first, with that keyring’s digest, and counts as soon as the keyring is there.
 */

/** Where a KMS keeps what must survive it. */
export interface KmsPlace {
  /** The ledger’s. */
  readonly directory: string
  /** The keyring’s file in a third place; its directory must exist. */
  readonly custody?: string
}

export interface CustodyDisk {
  readonly place: KmsPlace
  readonly fs: FileSystem
}

/** As the files have it. */
export interface CustodyFiles {
  /** Sealed. */
  readonly keyring: Bytes
  /** Undefined where nobody shares its passphrase. */
  readonly custodians: Bytes | undefined
}

/** The keyring’s file in the KMS’s directory, where no other custody is named. */
const KEYRING_NAME = 'keyring.age'
/** Behind the keyring’s own name, where custodians share its passphrase. */
const CUSTODIANS_SUFFIX = '.custodians'
/** The same of the keyring that comes next, until it is there. */
const NEXT_SUFFIX = '.custodians-next'
const NEXT_TAG = 'keyrise/v1/custodians-next'
const NEXT_SIZE_BYTES_MAX = CUSTODIANS_SIZE_BYTES_MAX + 256

/** The keyring’s file. */
export const keyringPath = ({ directory, custody }: KmsPlace): string => custody ?? join(directory, KEYRING_NAME)
const custodiansPath = (place: KmsPlace): string => `${keyringPath(place)}${CUSTODIANS_SUFFIX}`
const nextPath = (place: KmsPlace): string => `${keyringPath(place)}${NEXT_SUFFIX}`

/** The keyring’s file, sealed as it is. @throws {KeyriseError} ERR_KEYRING_MISSING, ERR_STORE_*. */
export const readKeyringFile = async (disk: CustodyDisk): Promise<Bytes> => {
  const file = await readKeyring(disk)
  if (file === undefined) throw new KeyriseError('ERR_KEYRING_MISSING', { detail: keyringPath(disk.place) })
  return file
}

/** True where a keyring, whole or damaged, is in its place. */
export const hasKeyring = async (place: KmsPlace, fs: FileSystem): Promise<boolean> =>
  (await readKeyring({ place, fs })) !== undefined

/** Who the custodians of a place’s keyring are; undefined where nobody shares its passphrase. @throws {KeyriseError} ERR_CUSTODIANS_INVALID, ERR_STORE_*. */
export const readCustodians = async (place: KmsPlace, fs: FileSystem): Promise<CustodianSet | undefined> => {
  const file = await readCustodiansOf({ place, fs }, await readKeyring({ place, fs }))
  return file && decodeCustodians(file)
}

/** Both files as they belong together, whoever replaces them meanwhile. @throws {KeyriseError} as `readKeyringFile`; ERR_CUSTODIANS_INVALID. */
export const readCustody = async (disk: CustodyDisk): Promise<CustodyFiles> => {
  for (;;) {
    const keyring = await readKeyringFile(disk)
    const custodians = await readCustodiansOf(disk, keyring)
    if (equalPublicBytes(await readKeyringFile(disk), keyring)) return { keyring, custodians }
  }
}

/**
 * Replaces both files. @throws {KeyriseError} ERR_STORE_*.
 * Crash: both as before or as after; a keyring that is there is the mark that all is done.
 */
export const replaceCustody = async (disk: CustodyDisk, { keyring, custodians }: CustodyFiles): Promise<void> => {
  const { place } = disk
  if (custodians !== undefined || (await readCustodiansFile(disk)) !== undefined)
    await put(disk, nextPath(place), encodeNext(keyring, custodians))
  await put(disk, keyringPath(place), keyring)
  await settleCustody(disk)
}

/**
 * Puts in its place what is said of the keyring that is there, where a crash has left that undone: a keyring that is replaced alone
 * has the custodians of the one before. @throws {KeyriseError} ERR_CUSTODIANS_INVALID, ERR_STORE_*.
 */
export const settleCustody = async (disk: CustodyDisk): Promise<void> => {
  const { place } = disk
  const next = await readNext(disk, await readKeyring(disk))
  if (next === undefined) return
  if (next.custodians === undefined) await remove(disk, custodiansPath(place))
  else await put(disk, custodiansPath(place), next.custodians)
  await remove(disk, nextPath(place))
}

const readKeyring = ({ place, fs }: CustodyDisk): Promise<Bytes | undefined> =>
  readWhole(fs, keyringPath(place), KEYRING_SIZE_BYTES_MAX)

const readCustodiansOf = async (disk: CustodyDisk, keyring: Bytes | undefined): Promise<Bytes | undefined> => {
  const next = await readNext(disk, keyring)
  return next === undefined ? readCustodiansFile(disk) : next.custodians
}

const readCustodiansFile = ({ place, fs }: CustodyDisk): Promise<Bytes | undefined> =>
  readWhole(fs, custodiansPath(place), CUSTODIANS_SIZE_BYTES_MAX)

interface Next {
  /** SHA-256 of the keyring’s file that it is said of, 32 bytes. */
  readonly keyring: Bytes
  readonly custodians: Bytes | undefined
}

/** What was written of `keyring` before it came; undefined where that is of another, or settled. */
const readNext = async ({ place, fs }: CustodyDisk, keyring: Bytes | undefined): Promise<Next | undefined> => {
  const file = await readWhole(fs, nextPath(place), NEXT_SIZE_BYTES_MAX)
  if (file === undefined || keyring === undefined) return undefined
  const next = decodeNext(file)
  return equalPublicBytes(next.keyring, sha256(keyring)) ? next : undefined
}

const encodeNext = (keyring: Bytes, custodians: Bytes | undefined): Bytes =>
  encodeCbor([NEXT_TAG, { keyring: sha256(keyring), ...(custodians === undefined ? {} : { custodians }) }])

const decodeNext = (claimed: Uint8Array): Next => {
  const code = 'ERR_CUSTODIANS_INVALID'
  try {
    const value = decodeCbor(claimed)
    if (!Array.isArray(value) || value.length !== 2 || value[0] !== NEXT_TAG) throw new KeyriseError(code)
    const f = new FieldReader(value[1], ['keyring', 'custodians'], code)
    const custodians = f.has('custodians') ? f.bytes('custodians', 1, CUSTODIANS_SIZE_BYTES_MAX) : undefined
    return { keyring: f.bytes('keyring', 32), custodians }
  } catch (error) {
    throw new KeyriseError(code, { detail: NEXT_SUFFIX.slice(1), cause: error })
  }
}

const put = ({ fs }: CustodyDisk, path: string, bytes: Bytes): Promise<void> =>
  publish(fs, dirname(path), basename(path), bytes)

const remove = async ({ fs }: CustodyDisk, path: string): Promise<void> => {
  await discard(fs, dirname(path), basename(path))
  await syncDirectory(fs, dirname(path))
}
