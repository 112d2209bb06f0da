import { parseHeader } from '../protocol/age-header.js'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { findContextStanza } from '../protocol/crypto/origin.js'
import { PAYLOAD_NONCE_SIZE } from '../protocol/crypto/payload.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import {
  FIRST_GENERATION,
  getHeaders,
  pairsAmong,
  payloadName,
  type PairHalves,
  type StoredHeader,
} from '../protocol/sealed-pair.js'
import { lost, mismatch } from './entry-failures.js'
import type { StoredObject } from './epoch-file.js'
import { pairName, storePrefix } from './object-names.js'
import { orUndefined } from './root.js'

/** A generation of an object's header. */
export interface DirectHeader extends StoredHeader {
  /** The context stanza's body, which the object's digest covers. */
  readonly context: Bytes
}

/** Where a flow's objects are. */
export interface Place {
  readonly store: Store
  readonly flow: FlowId
}

/** What the store holds of entries that were sealed straight to the KMS: headers, of several generations perhaps, and payloads. */
export class DirectObjects {
  readonly #place: Place
  /** One list tells the generations of all: after a rotation, guesses would cost a list each. */
  #listed: Promise<ReadonlyMap<string, PairHalves>> | undefined

  constructor(place: Place) {
    this.#place = place
  }

  /** Newest first, and at least one. @throws {KeyriseError} ERR_STATE_LOST, ERR_STORE_*. */
  async getHeaders(object: StoredObject): Promise<DirectHeader[]> {
    const { store, flow } = this.#place
    const name = pairName(flow, object.name)
    // What is not listed was written since.
    const generations = (await this.#list()).get(name)?.generations ?? [FIRST_GENERATION]
    const headers = (await getHeaders(store, name, generations)).flatMap((header) => {
      const context = orUndefined(() => findContextStanza(parseHeader(header.bytes))?.body)
      return context === undefined ? [] : [{ ...header, context }]
    })
    if (headers.length === 0) throw lost(object)
    return headers
  }

  /** 16 bytes, unverified: the object's digest covers them. @throws {KeyriseError} ERR_STATE_LOST, ERR_DIGEST_MISMATCH, ERR_STORE_*. */
  async getNonce(object: StoredObject): Promise<Bytes> {
    const nonce = await this.#place.store.read(this.payloadNameOf(object), 0, PAYLOAD_NONCE_SIZE)
    if (nonce === undefined) throw lost(object)
    if (nonce.length !== PAYLOAD_NONCE_SIZE) throw mismatch(object)
    return copyBytes(nonce)
  }

  /** Nonce and chunks, unverified. @throws {KeyriseError} ERR_STATE_LOST, ERR_STORE_*. */
  async getPayload(object: StoredObject): Promise<Uint8Array> {
    const payload = await this.#place.store.get(this.payloadNameOf(object))
    if (payload === undefined) throw lost(object)
    return payload
  }

  payloadNameOf({ name }: StoredObject): string {
    return payloadName(pairName(this.#place.flow, name))
  }

  /** What is asked for next is listed anew: a rotation may have gone on. */
  forgetList(): void {
    this.#listed = undefined
  }

  #list(): Promise<ReadonlyMap<string, PairHalves>> {
    const { store, flow } = this.#place
    const listed = (this.#listed ??= store.list(`${storePrefix(flow)}direct-`).then(pairsAmong))
    listed.catch(() => this.forgetList())
    return listed
  }
}
