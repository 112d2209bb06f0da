import { copyBytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { STORE_COPY_COUNT_MAX } from '../protocol/limits.js'
import type { Store } from '../protocol/ports.js'

/** A call that one copy failed, while the others may have done it. */
export interface MirrorFailure {
  /** Which of the stores, from 0. */
  readonly copy: number
  readonly operation: 'put' | 'get' | 'read' | 'list' | 'delete'
  /** The name, or the prefix. */
  readonly name: string
  readonly error: unknown
}

export interface MirrorStoreOptions {
  /** How many copies must be durable before a put resolves; all of them unless told. */
  readonly required?: number
  /** Told of each failure, also where the call as a whole succeeds: from then on there are fewer copies than it seems. */
  readonly onFailure?: (failure: MirrorFailure) => void
}

/**
 * A store that keeps a copy of everything in each of several. Any of them can be lost, damaged or out of reach, as long as an
 * acknowledged object is left in one: an enclave asks for another copy where one is missing or not what it sealed, and writes it
 * back. What is missing everywhere is said to be missing only by so many copies that none of the others alone can have it.
 */
export class MirrorStore implements Store {
  readonly #stores: readonly Store[]
  readonly #required: number
  readonly #onFailure: (failure: MirrorFailure) => void

  /** @param stores - in the order in which they are read. @throws {KeyriseError} ERR_CONFIG_INVALID. */
  constructor(stores: readonly Store[], { required = stores.length, onFailure }: MirrorStoreOptions = {}) {
    if (stores.length === 0 || stores.length > STORE_COPY_COUNT_MAX || new Set(stores).size !== stores.length)
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `1 to ${STORE_COPY_COUNT_MAX} stores, each of them once` })
    if (!Number.isSafeInteger(required) || required < 1 || required > stores.length)
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `required: 1 to ${stores.length}` })
    this.#stores = [...stores]
    this.#required = required
    this.#onFailure = onFailure ?? (() => undefined)
  }

  /** Resolves when `required` copies are durable, and goes on with the others; rejects when all have settled. */
  put(name: string, bytes: Uint8Array): Promise<void> {
    // Those that are not waited for read it later.
    const own = this.#required < this.#stores.length ? copyBytes(bytes) : bytes
    return this.#write('put', name, (store) => store.put(name, own))
  }

  delete(name: string): Promise<void> {
    return this.#write('delete', name, (store) => store.delete(name))
  }

  get(name: string): Promise<Uint8Array | undefined> {
    return this.#find('get', name, (store) => store.get(name))
  }

  read(name: string, offset: number, sizeBytes: number): Promise<Uint8Array | undefined> {
    return this.#find('read', name, (store) => store.read(name, offset, sizeBytes))
  }

  /** What any of the copies lists. */
  async list(prefix: string): Promise<string[]> {
    const names = new Set<string>()
    const failures: unknown[] = []
    await Promise.all(
      this.#stores.map(async (store, copy) => {
        try {
          for (const name of await store.list(prefix)) names.add(name)
        } catch (error) {
          failures.push(error)
          this.#onFailure({ copy, operation: 'list', name: prefix, error })
        }
      }),
    )
    if (this.#mayHideSome(failures.length)) throw asFailure(failures[0])
    return [...names].sort()
  }

  copies(): Promise<readonly Store[]> {
    return Promise.resolve(this.#stores)
  }

  #write(operation: 'put' | 'delete', name: string, work: (store: Store) => Promise<void>): Promise<void> {
    let doneCount = 0
    const failures: unknown[] = []
    return new Promise((resolve, reject) => {
      const settled = (): void => {
        if (doneCount >= this.#required) resolve()
        else if (doneCount + failures.length === this.#stores.length) reject(asFailure(failures[0]))
      }
      for (const [copy, store] of this.#stores.entries()) {
        const attempt = async (): Promise<void> => {
          try {
            await work(store)
            doneCount++
          } catch (error) {
            failures.push(error)
            this.#onFailure({ copy, operation, name, error })
          }
          settled()
        }
        void attempt()
      }
    })
  }

  /** The first copy’s that has it. */
  async #find(
    operation: 'get' | 'read',
    name: string,
    work: (store: Store) => Promise<Uint8Array | undefined>,
  ): Promise<Uint8Array | undefined> {
    const failures: unknown[] = []
    for (const [copy, store] of this.#stores.entries()) {
      try {
        const found = await work(store)
        if (found !== undefined) return found
      } catch (error) {
        failures.push(error)
        this.#onFailure({ copy, operation, name, error })
      }
    }
    if (this.#mayHideSome(failures.length)) throw asFailure(failures[0])
    return undefined
  }

  /** True when so many copies did not answer that an acknowledged object may be in them alone. */
  #mayHideSome(failureCount: number): boolean {
    return failureCount >= this.#required
  }
}

const asFailure = (error: unknown): KeyriseError =>
  isKeyriseError(error) ? error : new KeyriseError('ERR_STORE_IO', { cause: error })
