import { concatBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { envelopeDigest } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError } from '../protocol/errors.js'
import type { EntryName } from '../protocol/names.js'
import { DirectObjects, type DirectHeader, type Place } from './direct-objects.js'
import { isOfItem, lost, mismatch } from './entry-failures.js'
import { dataOffset, type EpochState, type Location, type StoredObject } from './epoch-file.js'
import { FileKeys } from './file-keys.js'
import type { FlowKeys } from './flow-keys.js'
import type { KmsClient } from './kms-client.js'
import { ObjectCache } from './object-cache.js'
import { formatObjectName, storeName } from './object-names.js'

const CACHE_SIZE_BYTES_MAX = 64 * 1024 * 1024

/** Reads entries out of the objects that hold them, each verified against the digest that the flow's state lists. */
export class EntryReader implements Disposable {
  readonly #place: Place
  readonly #directs: DirectObjects
  readonly #keys: FlowKeys
  readonly #cache = new ObjectCache(CACHE_SIZE_BYTES_MAX)
  readonly #fileKeys: FileKeys
  readonly #loading = new Map<string, Promise<void>>()

  constructor({ keys, kms, ...place }: Place & { readonly keys: FlowKeys; readonly kms: KmsClient }) {
    this.#place = place
    this.#directs = new DirectObjects(place)
    this.#keys = keys
    const isOpen = ({ name }: StoredObject): boolean => this.#cache.has(formatObjectName(name))
    this.#fileKeys = new FileKeys({ objects: this.#directs, kms, isOpen })
  }

  /**
   * A copy of the entry `entry`, at `location`.
   * @param state - the keys of what else it lists may be fetched along.
   * @throws {KeyriseError} ERR_STATE_LOST: its object is missing; ERR_DIGEST_MISMATCH: it is another; ERR_STORE_*, ERR_KMS_*.
   */
  async read(entry: EntryName, { object, offset, sizeBytes }: Location, state: EpochState): Promise<Bytes> {
    const name = formatObjectName(object.name)
    for (;;) {
      // Again after each load: with the cache full, another load may have displaced the object before this turn.
      const bytes = this.#cache.read(name, offset, sizeBytes)
      if (bytes !== undefined) return bytes
      await this.#load(object, () =>
        object.name.kind === 'direct' ? this.#openDirect(entry, object, state) : this.#openEpoch(object),
      )
    }
  }

  /** Keeps what has just been sealed. Takes `plaintext` over. */
  hold(object: StoredObject, plaintext: Secret): void {
    const start = object.name.kind === 'epoch' ? plaintext.expose(dataOffset) : 0
    this.#cache.hold(formatObjectName(object.name), plaintext, start)
  }

  forget(objects: Iterable<StoredObject>): void {
    for (const object of objects) {
      this.#cache.forget(formatObjectName(object.name))
      this.#fileKeys.forget(object)
    }
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]()
    this.#fileKeys[Symbol.dispose]()
  }

  /** Single-flight: readers of one object share one opening. */
  #load(object: StoredObject, open: () => Promise<Bytes>): Promise<void> {
    const name = formatObjectName(object.name)
    const running = this.#loading.get(name)
    if (running !== undefined) return running
    const load = open()
      .then((plaintext) => this.hold(object, Secret.take(plaintext)))
      .finally(() => this.#loading.delete(name))
    this.#loading.set(name, load)
    return load
  }

  async #openEpoch(object: StoredObject): Promise<Bytes> {
    const { store, flow } = this.#place
    const envelope = await store.get(storeName(flow, object.name))
    if (envelope === undefined) throw lost(object)
    if (!hasDigest(envelope, object)) throw mismatch(object)
    return this.#keys.openEpoch(envelope).plaintext
  }

  /** The KMS unwraps the header, no more: what the object is, and that it is the one, is verified here. */
  async #openDirect(entry: EntryName, object: StoredObject, state: EpochState): Promise<Bytes> {
    const [headers, payload] = await Promise.all([this.#directs.getHeaders(object), this.#directs.getPayload(object)])
    const joined = headers.map((header): Candidate => ({ header, envelope: concatBytes(header.bytes, payload) }))
    const listed = joined.filter(({ envelope }) => hasDigest(envelope, object))
    if (listed.length === 0) throw mismatch(object)
    let refusal: unknown
    // Then each alone: a key at hand may be of a header that the store has replaced since, or of a generation that is damaged.
    for (const candidates of [listed, ...listed.map((candidate) => [candidate])]) {
      try {
        const wrapping = candidates.map(({ header }) => header)
        using fileKey = await this.#fileKeys.get(object, wrapping, state)
        return this.#openWith(fileKey, { entry, object, candidates })
      } catch (error) {
        if (!isOfItem(error)) throw error
        refusal ??= error
        this.#fileKeys.forget(object)
      }
    }
    throw refusal
  }

  #openWith(fileKey: Secret, { entry, object, candidates }: Direct): Bytes {
    let refusal: unknown
    for (const { envelope } of candidates) {
      try {
        return this.#keys.openDirect(entry, envelope, object.name, fileKey)
      } catch (error) {
        refusal ??= error
      }
    }
    throw refusal
  }
}

/** A generation of the header, and the file that it makes with the payload. */
interface Candidate {
  readonly header: DirectHeader
  readonly envelope: Bytes
}

interface Direct {
  readonly entry: EntryName
  readonly object: StoredObject
  /** Of its digest, newest first. */
  readonly candidates: readonly Candidate[]
}

/** True when `claimed` is an envelope with the digest that `object` has; false for damage. */
const hasDigest = (claimed: Uint8Array, { digest }: StoredObject): boolean => {
  try {
    return equalPublicBytes(envelopeDigest(claimed), digest)
  } catch (error) {
    if (isKeyriseError(error)) return false
    throw error
  }
}
