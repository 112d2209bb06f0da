import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { FlowId, StoreId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { parseHalfName } from '../protocol/sealed-pair.js'
import type { HeaderReference } from '../protocol/session.js'
import { sha256 } from '../protocol/crypto/primitives.js'

/** Where a KMS may read headers, and whom it tells of a store that fails. */
export interface HeaderSource {
  /** Those that the operator registered, by id. */
  readonly stores: ReadonlyMap<string, Store>
  readonly failed: (error: unknown) => void
}

/**
 * The headers that an enclave of `flow` refers to, out of a store that the operator registered (M13); undefined for each that the
 * store does not have, has other bytes of, or cannot read now. An id is all that can be said of a place, a name is of the flow’s
 * own, and with the digest nothing is learned of what lies there.
 * @throws {KeyriseError} ERR_STORE_UNKNOWN; ERR_REQUEST_INVALID: a name is no header’s, or another flow’s.
 */
export const readStoredHeaders = async (
  { stores, failed }: HeaderSource,
  asked: { readonly flow: FlowId; readonly store: StoreId; readonly headers: readonly HeaderReference[] },
): Promise<(Bytes | undefined)[]> => {
  const store = stores.get(asked.store)
  if (store === undefined) throw new KeyriseError('ERR_STORE_UNKNOWN', { detail: asked.store })
  for (const { name } of asked.headers)
    if (!name.startsWith(`${asked.flow}/`) || parseHalfName(name)?.generation === undefined)
      throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'the name of a header' })
  return Promise.all(
    asked.headers.map(async ({ name, digest }) => {
      try {
        const claimed = await store.read(name, 0, HEADER_SIZE_BYTES_MAX + 1)
        // A copy first: whoever shares the memory of a store could change what was checked.
        const bytes = claimed && copyBytes(claimed)
        return bytes && equalPublicBytes(sha256(bytes), digest) ? bytes : undefined
      } catch (error) {
        failed(error)
        return undefined
      }
    }),
  )
}
