import { allocate, copyBytes, type Bytes } from '../protocol/bytes.js'
import { SEGMENT_DIGEST_SIZE } from '../protocol/crypto/payload.js'

const PAGE_COUNT = 256

/** Digests of the segments of one payload by their index, in pages that are made when they are needed. */
export class SegmentDigests {
  readonly #count: number
  readonly #pages = new Map<number, Bytes>()
  sizeBytes = 0

  /** @param count - of segments. */
  constructor(count: number) {
    this.#count = count
  }

  /** Zeroes are no digest of anything. */
  get(index: number): Bytes | undefined {
    const digest = this.#pages.get(pageOf(index))?.subarray(...placeOf(index))
    return digest?.some((byte) => byte !== 0) === true ? copyBytes(digest) : undefined
  }

  /** @returns by how many bytes this has grown. */
  set(index: number, digest: Bytes): number {
    const sizeBefore = this.sizeBytes
    this.#page(pageOf(index)).set(digest, placeOf(index)[0])
    return this.sizeBytes - sizeBefore
  }

  #page(number: number): Bytes {
    const known = this.#pages.get(number)
    if (known !== undefined) return known
    const page = allocate(Math.min(PAGE_COUNT, this.#count - number * PAGE_COUNT) * SEGMENT_DIGEST_SIZE)
    this.#pages.set(number, page)
    this.sizeBytes += page.length
    return page
  }
}

const pageOf = (index: number): number => Math.floor(index / PAGE_COUNT)
const placeOf = (index: number): [start: number, end: number] => {
  const start = (index % PAGE_COUNT) * SEGMENT_DIGEST_SIZE
  return [start, start + SEGMENT_DIGEST_SIZE]
}
