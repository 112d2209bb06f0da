import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { envelopeDigest } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { KMS_ITEM_COUNT_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { dataOffset, type EpochState, type Location, type StoredObject } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import type { KmsClient } from './kms-client.js'
import { ObjectCache } from './object-cache.js'
import { formatObjectName } from './object-names.js'
import { getEnvelopes } from './stored-objects.js'

const CACHE_SIZE_BYTES_MAX = 64 * 1024 * 1024
/** Of a batch that the KMS opens at once, besides the one object that is wanted now. */
const BATCH_SIZE_BYTES_MAX = 16 * 1024 * 1024

/** An entry that was sealed straight to the KMS: all of its object. */
interface Direct {
  readonly object: StoredObject
  readonly sizeBytes: number
}

/** Reads entries out of the objects that hold them, each verified against the digest that the flow's state lists. */
export class EntryReader implements Disposable {
  readonly #flow: FlowId
  readonly #store: Store
  readonly #keys: FlowKeys
  readonly #kms: KmsClient
  readonly #cache = new ObjectCache(CACHE_SIZE_BYTES_MAX)
  readonly #loading = new Map<string, Promise<void>>()
  #batch: Promise<void> = Promise.resolve()

  constructor(options: { flow: FlowId; store: Store; keys: FlowKeys; kms: KmsClient }) {
    this.#flow = options.flow
    this.#store = options.store
    this.#keys = options.keys
    this.#kms = options.kms
  }

  /**
   * A copy of the entry at `location`.
   * @param state - what else it lists may be fetched along.
   * @throws {KeyriseError} ERR_STATE_LOST: its object is missing; ERR_DIGEST_MISMATCH: it is another; ERR_STORE_*, ERR_KMS_*.
   */
  async read({ object, offset, sizeBytes }: Location, state: EpochState): Promise<Bytes> {
    const name = formatObjectName(object.name)
    for (;;) {
      // Again after each load: with the cache full, another load may have displaced the object before this turn.
      const bytes = this.#cache.read(name, offset, sizeBytes)
      if (bytes !== undefined) return bytes
      await (object.name.kind === 'direct' ? this.#loadBatch({ object, sizeBytes }, state) : this.#loadEpoch(object))
    }
  }

  /** Keeps what has just been sealed. Takes `plaintext` over. */
  hold(object: StoredObject, plaintext: Secret): void {
    const start = object.name.kind === 'epoch' ? plaintext.expose(dataOffset) : 0
    this.#cache.hold(formatObjectName(object.name), plaintext, start)
  }

  forget(objects: Iterable<StoredObject>): void {
    for (const { name } of objects) this.#cache.forget(formatObjectName(name))
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]()
  }

  /** Single-flight: readers of one epoch share one opening. */
  #loadEpoch(object: StoredObject): Promise<void> {
    const name = formatObjectName(object.name)
    const running = this.#loading.get(name)
    if (running !== undefined) return running
    const load = this.#fetch(object)
      .then((envelope) => this.hold(object, Secret.take(this.#keys.openEpoch(envelope).plaintext)))
      .finally(() => this.#loading.delete(name))
    this.#loading.set(name, load)
    return load
  }

  /** One batch at a time, so that a reader finds its object opened by the batch of another. */
  #loadBatch(wanted: Direct, state: EpochState): Promise<void> {
    const load = this.#batch.then(async () => {
      if (!this.#cache.has(formatObjectName(wanted.object.name)))
        await this.#openBatch(this.#chooseBatch(wanted, state))
    })
    this.#batch = load.catch(() => undefined)
    return load
  }

  /** `wanted` first, then what else of the flow isn't open yet: after a restart all of it is wanted soon. */
  #chooseBatch(wanted: Direct, state: EpochState): Direct[] {
    const batch = [wanted]
    let room = BATCH_SIZE_BYTES_MAX - wanted.sizeBytes
    for (const { object, sizeBytes } of state.entries.values()) {
      if (object.name.kind !== 'direct' || sizeBytes > room || batch.length === KMS_ITEM_COUNT_MAX) continue
      const name = formatObjectName(object.name)
      if (name === formatObjectName(wanted.object.name) || this.#cache.has(name)) continue
      batch.push({ object, sizeBytes })
      room -= sizeBytes
    }
    return batch
  }

  /** The first must open; of the others those that don't are left for whoever reads them. */
  async #openBatch(batch: readonly Direct[]): Promise<void> {
    const fetched = await Promise.all(
      batch.map(({ object }, index) => (index === 0 ? this.#fetch(object) : this.#fetchIfSound(object))),
    )
    const sound = batch.flatMap((item, index) => {
      const envelope = fetched[index]
      return envelope === undefined ? [] : [{ ...item, envelope }]
    })
    const opened = await this.#kms.bulk(sound.map(({ envelope }) => envelope))
    const [first] = opened
    // Held from the last to the first, so that the cache, when full, displaces others than the one that is wanted.
    for (const [index, { object }] of [...sound.entries()].reverse()) {
      const plaintext = opened[index]
      if (plaintext instanceof Secret) this.hold(object, plaintext)
    }
    if (first instanceof KeyriseError) throw first
  }

  async #fetch({ name, digest }: StoredObject): Promise<Bytes> {
    const envelopes = [...(await getEnvelopes(this.#store, this.#flow, name))]
    const envelope = envelopes.find((claimed) => hasDigest(claimed, digest))
    if (envelope !== undefined) return envelope as Bytes
    throw new KeyriseError(envelopes.length === 0 ? 'ERR_STATE_LOST' : 'ERR_DIGEST_MISMATCH', {
      detail: formatObjectName(name),
    })
  }

  async #fetchIfSound(object: StoredObject): Promise<Bytes | undefined> {
    try {
      return await this.#fetch(object)
    } catch {
      return undefined
    }
  }
}

/** True when `claimed` is an envelope with this digest; false for damage. */
const hasDigest = (claimed: Uint8Array, digest: Uint8Array): boolean => {
  try {
    return equalPublicBytes(envelopeDigest(claimed), digest)
  } catch (error) {
    if (isKeyriseError(error)) return false
    throw error
  }
}
