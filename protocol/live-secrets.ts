import type { Bytes } from './bytes.js'

/**
 * What a thread holds in secret, so that one call zero-fills it before the thread ends by itself: on the way out nobody knows
 * who else holds something, of a launch that has not finished for instance.
 */

/** A secret’s place in the list of those that live. Linked, since a set costs a secret a third of all that it takes. */
export interface Place {
  /** Zero-fills itself, and leaves the list, on disposal. */
  readonly secret: Disposable
  previous: Place | undefined
  next: Place | undefined
}
let newest: Place | undefined
/** Given away. Weak, because whoever has them may drop them; the buffer, because views of it may outlive the one given. */
let lent: WeakRef<ArrayBuffer>[] = []
const LENT_COUNT_MIN = 256
let sweepAt = LENT_COUNT_MIN

export const enlist = (secret: Disposable): Place => {
  const place: Place = { secret, previous: newest, next: undefined }
  if (newest !== undefined) newest.next = place
  newest = place
  return place
}

/** Once for each place. */
export const dismiss = ({ previous, next }: Place): void => {
  if (previous !== undefined) previous.next = next
  if (next !== undefined) next.previous = previous
  else newest = previous
}

/**
 * Marks bytes that another now owns: zero-filled by `disposeAll` where they are still within somebody's reach. What was dropped
 * before stays in freed memory until that is used again.
 */
export const lend = <T extends Bytes>(bytes: T): T => {
  if (lent.length >= sweepAt) {
    lent = lent.filter((buffer) => buffer.deref() !== undefined)
    sweepAt = Math.max(LENT_COUNT_MIN, 2 * lent.length)
  }
  lent.push(new WeakRef(bytes.buffer))
  return bytes
}

/**
 * Zero-fills everything. Safe to repeat.
 * @returns how many secrets their holders had not disposed of, those that were lent not counted.
 */
export const disposeAll = (): number => {
  let count = 0
  for (let place = newest; place !== undefined; place = place.previous, count++) place.secret[Symbol.dispose]()
  for (const reference of lent) {
    const buffer = reference.deref()
    // A view of none of a buffer that was transferred could not even be made.
    if (buffer !== undefined && buffer.byteLength > 0) new Uint8Array(buffer).fill(0)
  }
  lent = []
  return count
}

/**
 * Holds `bytes` in secret: they are zero-filled when the result is disposed of, and before this enclave ends in any way that runs
 * its code. What keeps them in the V8 heap, as typed arrays of 64 bytes or fewer do unless an ArrayBuffer is made for them, may
 * leave copies behind all the same.
 */
export const wipeAtExit = (bytes: Uint8Array): Disposable => {
  const secret: Disposable = {
    [Symbol.dispose]() {
      if (place !== undefined) dismiss(place)
      place = undefined
      bytes.fill(0)
    },
  }
  let place: Place | undefined = enlist(secret)
  return secret
}
