import type { Bytes } from '../protocol/bytes.js'
import type { ObjectStatus } from '../protocol/contract.js'
import { Secret } from '../protocol/crypto/secret.js'
import type { EntryName } from '../protocol/names.js'
import type { Finding } from './copies.js'
import type { Place } from './direct-objects.js'
import { dataOffset, type EpochState, type Location, type StoredObject } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import type { KmsClient } from './kms-client.js'
import { ObjectCache } from './object-cache.js'
import { formatObjectName } from './object-names.js'
import { ObjectOpener, type Wanted } from './object-opener.js'

const CACHE_SIZE_BYTES_MAX = 64 * 1024 * 1024

export interface EntryReaderOptions extends Place {
  readonly keys: FlowKeys
  readonly kms: KmsClient
  readonly found: Finding
}

/** Reads entries out of the objects that hold them, each verified against the digest that the flow's state lists. */
export class EntryReader implements Disposable {
  readonly #cache = new ObjectCache(CACHE_SIZE_BYTES_MAX)
  readonly #opener: ObjectOpener
  readonly #loading = new Map<string, Promise<void>>()

  constructor(options: EntryReaderOptions) {
    const isOpen = ({ name }: StoredObject): boolean => this.#cache.has(formatObjectName(name))
    this.#opener = new ObjectOpener({ ...options, isOpen })
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
      await this.#load({ object, entry, state })
    }
  }

  /** What each of the store's copies of an object is, whatever is cached of it. @throws {KeyriseError} ERR_KMS_*, … */
  inspect(wanted: Wanted): Promise<readonly ObjectStatus[]> {
    return this.#opener.inspect(wanted)
  }

  /** Keeps what has just been sealed. Takes `plaintext` over. */
  hold(object: StoredObject, plaintext: Secret): void {
    const start = object.name.kind === 'epoch' ? plaintext.expose(dataOffset) : 0
    this.#cache.hold(formatObjectName(object.name), plaintext, start)
  }

  forget(objects: Iterable<StoredObject>): void {
    for (const object of objects) {
      this.#cache.forget(formatObjectName(object.name))
      this.#opener.forget(object)
    }
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]()
    this.#opener[Symbol.dispose]()
  }

  /** Single-flight: readers of one object share one opening. */
  #load(wanted: Wanted): Promise<void> {
    const name = formatObjectName(wanted.object.name)
    const running = this.#loading.get(name)
    if (running !== undefined) return running
    const load = this.#opener
      .open(wanted)
      .then((plaintext) => this.hold(wanted.object, Secret.own(plaintext)))
      .finally(() => this.#loading.delete(name))
    this.#loading.set(name, load)
    return load
  }
}
