import { equalPublicBytes } from '../protocol/bytes.js'
import type { FoundStatus, ObjectStatus } from '../protocol/contract.js'
import { isKeyriseError, type ErrorCode, type KeyriseError } from '../protocol/errors.js'
import type { Store } from '../protocol/ports.js'
import { isOfItem } from './entry-failures.js'

/** A store's copies, first the one that is read first. */
export type Copies = readonly [Store, ...Store[]]

/** Told, by names that the host knows, what was found out about an object in the store. */
export type Finding = (object: string, status: FoundStatus) => void

/** The copies that a store keeps of everything; a store that says nothing of copies is its own only one. */
export const copiesOf = async (store: Store): Promise<Copies> => {
  const [first, ...others] = (await store.copies?.()) ?? []
  return first === undefined ? [store] : [first, ...others]
}

/** What an object consists of in a store: names and bytes that were verified, in the order in which they are written. */
export type Parts = readonly (readonly [name: string, bytes: Uint8Array])[]

/**
 * Makes `copy` hold `parts`, which came out of another copy.
 * @returns `intact`: it held them; `missing`, `damaged`: it could not be written; `unreadable`.
 * Crash: perhaps without one of them; a copy that holds them all is never touched.
 */
export const restoreParts = async (copy: Store, parts: Parts): Promise<ObjectStatus> => {
  const found: ('missing' | 'damaged')[] = []
  try {
    for (const [name, bytes] of parts) {
      const present = await copy.get(name)
      if (present !== undefined && equalPublicBytes(present, bytes)) continue
      found.push(present === undefined ? 'missing' : 'damaged')
      if (present !== undefined) await copy.delete(name)
      await copy.put(name, bytes)
    }
    return found.length === 0 ? 'intact' : 'repaired'
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    return found.find((status) => status === 'damaged') ?? found[0] ?? 'unreadable'
  }
}

/** What became of the reading of several copies, none of which was whole. */
export class CopyFailures {
  /** Of each copy, in their order. */
  readonly statuses: FoundStatus[] = []
  #unreadable: KeyriseError | undefined
  #refusal: KeyriseError | undefined

  /** Of one copy. @param error - rethrown where it says nothing of the object. */
  add(error: unknown): void {
    if (!isOfItem(error)) throw error
    const status = statusOf(error)
    this.statuses.push(status)
    if (status === 'unreadable') this.#unreadable ??= error
    else if (status === 'damaged') this.#refusal ??= error
  }

  /** A copy that did not answer may be the good one: then nothing is lost as far as anybody knows. */
  why(missing: KeyriseError): KeyriseError {
    return this.#unreadable ?? this.#refusal ?? missing
  }
}

/** What the failed reading of an object says of it. */
export const statusOf = ({ code }: KeyriseError): FoundStatus => {
  if (UNREADABLE_CODES.includes(code)) return 'unreadable'
  return code === 'ERR_STATE_LOST' ? 'missing' : 'damaged'
}
const UNREADABLE_CODES: readonly ErrorCode[] = [
  'ERR_STORE_IO',
  'ERR_STORE_CONFLICT',
  'ERR_STORE_FULL',
  'ERR_STORE_UNWRITABLE',
]
