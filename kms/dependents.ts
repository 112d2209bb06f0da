import { parseHeader } from '../protocol/age-header.js'
import { isKeyriseError } from '../protocol/errors.js'
import type { Store } from '../protocol/ports.js'
import { getHeaders, pairsAmong } from '../protocol/sealed-pair.js'
import { unwrapHeader } from '../protocol/crypto/envelope.js'
import type { Identity } from '../protocol/crypto/recipients.js'
import { rootIdentity, rootKeyObject } from '../protocol/crypto/root-private.js'
import { findKey, type RootKeys } from './root-keys.js'

/**
 * What of a store nobody could read any more if a version of a root key were destroyed: pairs that it opens, and no other version
 * that is to stay. What is read here may change meanwhile; a rewrap makes it less.
 * @param options.prefix - of the names to look at.
 * @returns names, in order. @throws {KeyriseError} ERR_KEY_UNKNOWN, ERR_KEY_STATE; ERR_STORE_*: nobody can say.
 */
export async function* dependentsOf(options: {
  readonly keys: RootKeys
  readonly key: string
  readonly store: Store
  readonly prefix?: string
  readonly signal?: AbortSignal
}): AsyncGenerator<string, void, undefined> {
  const { keys, key, store, prefix = '', signal } = options
  const doomed = findKey(keys, key)
  const kept = keys.live.filter((one) => one !== doomed && one.destroyAtMs === null)
  const [only, ...others] = [doomed, ...kept].map((root) => rootIdentity(root.suite, rootKeyObject(root)))
  try {
    const pairs = [...pairsAmong(await store.list(prefix))].sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [name, { generations }] of pairs) {
      signal?.throwIfAborted()
      const headers = await getHeaders(store, name, generations)
      const isOpenedBy = (identity: Identity): boolean => headers.some(({ bytes }) => opens(bytes, identity))
      if (only !== undefined && isOpenedBy(only) && !others.some(isOpenedBy)) yield name
    }
  } finally {
    for (const identity of [only, ...others]) identity?.[Symbol.dispose]?.()
  }
}

const opens = (claimed: Uint8Array, identity: Identity): boolean => {
  try {
    using fileKey = unwrapHeader(parseHeader(claimed), [identity])
    return fileKey.size > 0
  } catch (error) {
    if (isKeyriseError(error)) return false
    throw error
  }
}
