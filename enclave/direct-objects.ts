import { parseHeader } from '../protocol/age-header.js'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { findContextStanza } from '../protocol/crypto/origin.js'
import { PAYLOAD_NONCE_SIZE } from '../protocol/crypto/payload.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { FIRST_GENERATION, getHeaders, payloadName } from '../protocol/sealed-pair.js'
import type { StoredObject } from './epoch-file.js'
import { formatObjectName, pairName } from './object-names.js'
import { orUndefined } from './root.js'

/** What the store holds of an entry that was sealed straight to the KMS: a header, of one generation or another, and a payload. */

/** A generation of an object's header. */
export interface DirectHeader {
  readonly bytes: Bytes
  /** The context stanza's body, which the object's digest covers. */
  readonly context: Bytes
}

/** Where a flow's objects are. */
export interface Place {
  readonly store: Store
  readonly flow: FlowId
}

/** Newest first, and at least one. @throws {KeyriseError} ERR_STATE_LOST, ERR_STORE_*. */
export const getDirectHeaders = async ({ store, flow }: Place, object: StoredObject): Promise<DirectHeader[]> => {
  const stored = await getHeaders(store, pairName(flow, object.name), [FIRST_GENERATION])
  const headers = stored.flatMap(({ bytes }) => {
    const context = orUndefined(() => findContextStanza(parseHeader(bytes))?.body)
    return context === undefined ? [] : [{ bytes, context }]
  })
  if (headers.length === 0) throw lost(object)
  return headers
}

/** 16 bytes, unverified: the object's digest covers them. @throws {KeyriseError} ERR_STATE_LOST, ERR_DIGEST_MISMATCH, ERR_STORE_*. */
export const getDirectNonce = async ({ store, flow }: Place, object: StoredObject): Promise<Bytes> => {
  const nonce = await store.read(payloadName(pairName(flow, object.name)), 0, PAYLOAD_NONCE_SIZE)
  if (nonce === undefined) throw lost(object)
  if (nonce.length !== PAYLOAD_NONCE_SIZE) throw mismatch(object)
  return copyBytes(nonce)
}

/** Nonce and chunks, unverified. @throws {KeyriseError} ERR_STATE_LOST, ERR_STORE_*. */
export const getDirectPayload = async ({ store, flow }: Place, object: StoredObject): Promise<Uint8Array> => {
  const payload = await store.get(payloadName(pairName(flow, object.name)))
  if (payload === undefined) throw lost(object)
  return payload
}

export const lost = ({ name }: StoredObject): KeyriseError =>
  new KeyriseError('ERR_STATE_LOST', { detail: formatObjectName(name) })

export const mismatch = ({ name }: StoredObject): KeyriseError =>
  new KeyriseError('ERR_DIGEST_MISMATCH', { detail: formatObjectName(name) })
