import { concatBytes } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { deletePair, getHeaders, pairsAmong, payloadName, putPair, type StoredHeader } from '../protocol/sealed-pair.js'
import type { Parts } from './copies.js'
import type { Candidate } from './gathered-pair.js'
import { isPair, pairName, parseStoreNames, storeName, storePrefix, type ObjectName } from './object-names.js'

/** A flow's objects in its store: an epoch file is one object there, what is sealed straight to the KMS is a pair. */

/** What the store lists of `flow`: an object of which it has a half is one too. */
export const listObjects = async (store: Store, flow: FlowId): Promise<ObjectName[]> =>
  parseStoreNames(flow, await store.list(storePrefix(flow)))

/** @throws {KeyriseError} ERR_STORE_*. Crash: perhaps a half of it, which no state lists. */
export const putObject = (store: Store, flow: FlowId, object: ObjectName, envelope: Uint8Array): Promise<void> =>
  isPair(object) ? putPair(store, pairName(flow, object), envelope) : store.put(storeName(flow, object), envelope)

/**
 * What stands under the name: of a pair an envelope for each generation of its header, newest first. Nothing where the object
 * or a half of it is missing.
 */
export const getEnvelopes = async (store: Store, flow: FlowId, object: ObjectName): Promise<Iterable<Uint8Array>> => {
  if (!isPair(object)) {
    const envelope = await store.get(storeName(flow, object))
    return envelope === undefined ? [] : [envelope]
  }
  const { headers, payload } = await getHalves(store, flow, object)
  // Joined one at a time: the payload may be large, and the first is nearly always the one.
  return payload === undefined
    ? []
    : (function* () {
        for (const { bytes } of headers) yield concatBytes(bytes, payload)
      })()
}

/** The halves of a pair in one copy, headers newest first. @throws {KeyriseError} ERR_STORE_*. */
export const getHalves = async (
  store: Store,
  flow: FlowId,
  object: ObjectName,
): Promise<{ headers: StoredHeader[]; payload: Uint8Array | undefined }> => {
  const name = pairName(flow, object)
  const [headers, payload] = await Promise.all([getHeaders(store, name), store.get(payloadName(name))])
  return { headers, payload }
}

/** What a copy must hold of a pair: the payload, then the header that opened. */
export const partsOfPair = (flow: FlowId, object: ObjectName, { header, payload }: Candidate): Parts => {
  return [
    [payloadName(pairName(flow, object)), payload],
    [header.name, header.bytes],
  ]
}

/** Deletes all halves and generations of `objects`. What fails to go stays. Fine where there are none. */
export const deleteObjects = async (store: Store, flow: FlowId, objects: readonly ObjectName[]): Promise<void> => {
  const singles = objects.filter((object) => !isPair(object))
  await Promise.allSettled(singles.map((object) => store.delete(storeName(flow, object))))
  const pairs = objects.filter(isPair).map((object) => pairName(flow, object))
  // Twice: a rewrap may have written a header after the first list. One that it writes after the second it takes back, because
  // it then finds no payload.
  if (pairs.length > 0) for (const _list of [1, 2]) await deletePairs(store, flow, pairs)
}

const deletePairs = async (store: Store, flow: FlowId, pairs: readonly string[]): Promise<void> => {
  // Only a list tells which generations there are.
  const listed = pairsAmong(await store.list(storePrefix(flow)).catch(() => []))
  await Promise.allSettled(
    pairs.map(async (name) => {
      const halves = listed.get(name)
      if (halves !== undefined) await deletePair(store, name, halves)
    }),
  )
}
