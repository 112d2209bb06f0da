import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { parsePath } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'

/** A store that lives as long as its object: for tests, and for flows that need no more. */
export class MemoryStore implements Store {
  readonly #objects = new Map<string, Bytes>()

  put(claimedName: string, bytes: Uint8Array): Promise<void> {
    return promised(() => {
      const name = parsePath(claimedName)
      const present = this.#objects.get(name)
      if (present !== undefined && !equalPublicBytes(present, bytes))
        throw new KeyriseError('ERR_STORE_CONFLICT', { detail: name })
      this.#objects.set(name, copyBytes(bytes))
    })
  }

  get(claimedName: string): Promise<Bytes | undefined> {
    return promised(() => {
      const bytes = this.#objects.get(parsePath(claimedName))
      return bytes === undefined ? undefined : copyBytes(bytes)
    })
  }

  read(claimedName: string, offset: number, sizeBytes: number): Promise<Bytes | undefined> {
    return promised(() => {
      const bytes = this.#objects.get(parsePath(claimedName))
      return bytes === undefined ? undefined : copyBytes(bytes.subarray(offset, offset + sizeBytes))
    })
  }

  list(prefix: string): Promise<string[]> {
    return promised(() => [...this.#objects.keys()].filter((name) => name.startsWith(prefix)).sort())
  }

  delete(claimedName: string): Promise<void> {
    return promised(() => {
      this.#objects.delete(parsePath(claimedName))
    })
  }
}

/** Does `work` now; what it throws rejects. */
const promised = <T>(work: () => T): Promise<T> =>
  new Promise((resolve) => {
    resolve(work())
  })
