import { KeyriseError } from '../protocol/errors.js'
import { isStoreId } from '../protocol/names.js'
import type { FileSystem, Store } from '../protocol/ports.js'
import { DirectoryStore } from '../storage/index.js'
import { systemCode } from '../storage/failures.js'

/** Stores that an operator registered, by id: what a KMS may read and rewrap by itself, and nothing else. */
export type RegisteredStores = Readonly<Record<string, { readonly directory: string }>>

/** Stores that an operator may register. */
export const STORE_COUNT_MAX = 64

/** @throws {KeyriseError} ERR_CONFIG_INVALID, naming the store: its id is none, or its directory is not there. */
export const openStores = async (stores: RegisteredStores, fs: FileSystem): Promise<ReadonlyMap<string, Store>> => {
  const registered = Object.entries(stores)
  if (registered.length > STORE_COUNT_MAX) refuse(`stores: at most ${String(STORE_COUNT_MAX)}`)
  for (const [id, { directory }] of registered) {
    if (!isStoreId(id)) refuse('stores: an id has 1 to 32 lower-case letters, digits, hyphens')
    // A store makes its directory where there is none; here that would be a mistyped path.
    await fs.list(directory).catch((error: unknown) => {
      refuse(`stores.${id}: ${directory} (${systemCode(error) ?? 'unknown'})`)
    })
  }
  return new Map(registered.map(([id, { directory }]) => [id, new DirectoryStore(directory, fs)]))
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}
