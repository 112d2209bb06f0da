import { concatBytes, type Bytes } from '../protocol/bytes.js'
import type { UnsealTask } from './unseal.js'

/** A part of a request, as it goes to a thread: its headers in one buffer, since each buffer that crosses costs several µs. */
export interface UnsealPart extends Omit<UnsealTask, 'items'> {
  readonly headers: Bytes
  readonly sizes: Uint32Array
}

/** A part keeps a worker busy for tens of milliseconds: long against its dispatch, short for those who wait. */
const PART_COUNT_MAX = 256
const PART_SIZE_BYTES_MAX = 4 * 1024 * 1024

/** Parts of a task, in order. */
export const split = ({ items, ...rest }: UnsealTask): UnsealPart[] => {
  const parts: Bytes[][] = []
  let sizeBytes = 0
  for (const item of items) {
    const last = parts.at(-1)
    if (last === undefined || last.length >= PART_COUNT_MAX || sizeBytes + item.length > PART_SIZE_BYTES_MAX) {
      parts.push([item])
      sizeBytes = item.length
    } else {
      last.push(item)
      sizeBytes += item.length
    }
  }
  return parts.map((part) => ({
    ...rest,
    headers: concatBytes(...part),
    sizes: Uint32Array.from(part, ({ length }) => length),
  }))
}

/** The headers of a part, where they lie. */
export const headersOf = ({ headers, sizes }: UnsealPart): Uint8Array[] => {
  let end = 0
  return Array.from(sizes, (size) => headers.subarray(end, (end += size)))
}
