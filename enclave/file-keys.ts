import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import type { DirectHeader, DirectObjects } from './direct-objects.js'
import type { EpochState, StoredObject } from './epoch-file.js'
import type { KmsClient } from './kms-client.js'
import { ObjectCache } from './object-cache.js'
import { formatObjectName } from './object-names.js'

const FILE_KEY_SIZE_BYTES = 16
const HELD_COUNT_MAX = 4096
/** Headers that the KMS unwraps at once: those that are likely to be wanted next cost it microseconds each, a request of their own a round trip. */
const BATCH_COUNT_MAX = 256

export interface FileKeysOptions {
  readonly objects: Pick<DirectObjects, 'getHeaders' | 'forgetList'>
  readonly kms: KmsClient
  /** True for an object whose key nobody will ask for soon. */
  readonly isOpen: (object: StoredObject) => boolean
}

/** File keys of entries that were sealed straight to the KMS. Bounded: the least recently used are zero-filled. */
export class FileKeys implements Disposable {
  readonly #options: FileKeysOptions
  readonly #held = new ObjectCache(HELD_COUNT_MAX * FILE_KEY_SIZE_BYTES)
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: FileKeysOptions) {
    this.#options = options
  }

  /**
   * The file key that `headers`, which are generations of `object`'s, wrap. The caller disposes of it.
   * @param state - what else it lists may be unwrapped along.
   * @throws {KeyriseError} ERR_ENVELOPE_INVALID: none of them opens; ERR_KMS_*, ERR_POLICY_DENIED, …
   */
  get(object: StoredObject, headers: readonly DirectHeader[], state: EpochState): Promise<Secret> {
    // One request at a time, so that a reader finds its key in the batch of another.
    const turn = this.#turn.then(() => this.#find(object) ?? this.#unwrap(object, headers, state))
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  forget(object: StoredObject): void {
    this.#held.forget(formatObjectName(object.name))
  }

  [Symbol.dispose](): void {
    this.#held[Symbol.dispose]()
  }

  #find(object: StoredObject): Secret | undefined {
    const key = this.#held.read(formatObjectName(object.name), 0, FILE_KEY_SIZE_BYTES)
    return key && Secret.take(key)
  }

  async #unwrap(object: StoredObject, headers: readonly DirectHeader[], state: EpochState): Promise<Secret> {
    const others = await this.#findOthers(object, state, BATCH_COUNT_MAX - headers.length)
    const batch = [...headers.map((header) => ({ object, header })), ...others]
    const opened = await this.#options.kms.unwrap(batch.map(({ header }) => header))
    this.#options.objects.forgetList()
    let refusal: KeyriseError | undefined
    // From the last to the first: what the cache displaces when it is full is not what is wanted now.
    for (const [index, item] of [...batch.entries()].reverse()) {
      const key = opened[index]
      if (key instanceof Secret) this.#held.hold(formatObjectName(item.object.name), key, 0)
      else if (item.object === object) refusal = key
    }
    const key = this.#find(object)
    if (key === undefined) throw refusal ?? new KeyriseError('ERR_KMS_FAILED')
    return key
  }

  /** The newest headers of what else of the flow isn't open yet: after a restart all of it is wanted soon. */
  async #findOthers(
    wanted: StoredObject,
    state: EpochState,
    countMax: number,
  ): Promise<{ object: StoredObject; header: DirectHeader }[]> {
    const { objects, isOpen } = this.#options
    const chosen: StoredObject[] = []
    for (const { object } of state.entries.values()) {
      if (chosen.length >= countMax) break
      if (object.name.kind !== 'direct' || object === wanted || isOpen(object)) continue
      if (!this.#held.has(formatObjectName(object.name))) chosen.push(object)
    }
    const found = await Promise.all(
      chosen.map(async (object) => {
        // What ails another entry is for its own reader.
        const [header] = await objects.getHeaders(object).catch(() => [])
        return header && { object, header }
      }),
    )
    return found.filter((item) => item !== undefined)
  }
}
