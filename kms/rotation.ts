import { copyBytes } from '../protocol/bytes.js'
import { parseFlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import type { RootSuite } from '../protocol/statements.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeFileSystem } from '../storage/index.js'
import { rotateKeyring } from './change-keys.js'
import { FileLedger } from './file-ledger.js'
import { keyIdOfName } from './policy.js'
import { parsePolicy } from './policy-file.js'
import { openKeyring, placeOf, type KmsIdentity } from './place.js'
import { rewrapPairs, type RewrappedPair } from './rewrap.js'
import { ROOT_ID } from './root-keys.js'

/** Which KMS, and how to open its keyring. */
export interface RotateOptions {
  /** Where the KMS keeps its ledger and, unless `custody` is given, its keyring. */
  readonly directory: string
  /** The keyring’s file in a third place. */
  readonly custody?: string
  /** Of the keyring; borrowed: zero-fill it when the work is done. */
  readonly passphrase: Uint8Array
}

export interface RotateKeyOptions extends RotateOptions {
  /** Of the root key that gets a next version; one that there is not gets its first. `root` unless told. */
  readonly id?: string
  /** What the new version is made of; the same as the newest of its id unless told, x25519 where there is none. RSA’s takes seconds to make. */
  readonly suite?: RootSuite | undefined
}

export interface RewrapStoreOptions extends RotateOptions {
  readonly store: Store
  /** Only what is this flow’s. */
  readonly flow?: string
  /** Stops between two pairs. */
  readonly signal?: AbortSignal
}

/**
 * Gives a KMS a new newest root key, to which enclaves seal from its next start on; the older ones stay, to open. A KMS that is
 * running in the directory stops answering: start it again. Copies of the keyring made before don't hold the new key.
 * @throws {KeyriseError} ERR_KEYRING_*, ERR_PASSPHRASE_WRONG, ERR_LEDGER_*, ERR_STORE_*, ERR_SIZE_LIMIT: 64 root keys.
 * Crash: the keyring before or after, whole.
 */
export const rotateKms = async (options: RotateKeyOptions): Promise<KmsIdentity> => {
  const { id = ROOT_ID, suite } = options
  using passphrase = Secret.take(copyBytes(options.passphrase))
  const place = placeOf(options)
  return await rotateKeyring({ place, passphrase, fs: nodeFileSystem, random: nodeRandom, id, suite })
}

/**
 * Rewraps all of a store, or of one flow in it, for the newest root key alone: headers only, payloads are not touched. It needs
 * the keyring and no KMS that runs; enclaves may use the store meanwhile.
 * @returns one status for each pair, in order of names; to stop early, leave the loop.
 * @throws {KeyriseError} ERR_KEYRING_*, ERR_PASSPHRASE_WRONG, ERR_STORE_*, ERR_NAME_INVALID. The signal’s reason.
 * Crash: at any point each pair opens as before; a second run finishes.
 */
export async function* rewrapStore(options: RewrapStoreOptions): AsyncGenerator<RewrappedPair, void, undefined> {
  const { store, flow, signal } = options
  const prefix = flow === undefined ? '' : `${parseFlowId(flow)}/`
  using passphrase = Secret.take(copyBytes(options.passphrase))
  using keyring = await openKeyring({ place: placeOf(options), passphrase, fs: nodeFileSystem })
  const text = (await FileLedger.inspect(nodeFileSystem, options.directory))?.policy
  const policy = text === undefined ? undefined : parsePolicy(text)
  yield* rewrapPairs({
    keyring,
    store,
    prefix,
    random: nodeRandom,
    ...(policy === undefined ? {} : { keyIdOf: (name: string) => keyIdOfName(policy, name) }),
    ...(signal === undefined ? {} : { signal }),
  })
}
