import { concatBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { StoredHeader } from '../protocol/sealed-pair.js'

/** A generation of a pair's header, a payload, and the envelope that they make. */
export interface Candidate<H extends StoredHeader = StoredHeader> {
  readonly header: H
  readonly payload: Uint8Array
  readonly envelope: Bytes
}

/**
 * The halves of one pair, gathered from copy after copy: where each copy lacks another half, or has it damaged, the whole is
 * still among their combinations.
 */
export class GatheredPair<H extends StoredHeader = StoredHeader> {
  readonly #headers: H[] = []
  readonly #payloads: Uint8Array[] = []

  /** @param headers - of one more copy, newest first. @returns the combinations that are new, newest first. */
  add(headers: readonly H[], payload: Uint8Array | undefined): Candidate<H>[] {
    const newHeaders = headers.filter(
      ({ bytes }) => !this.#headers.some((known) => equalPublicBytes(known.bytes, bytes)),
    )
    const isNew = payload !== undefined && !this.#payloads.some((known) => equalPublicBytes(known, payload))
    const joined = this.#payloads.flatMap((known) => newHeaders.map((header) => join(header, known)))
    this.#headers.push(...newHeaders)
    if (isNew) {
      this.#payloads.push(payload)
      joined.push(...this.#headers.map((header) => join(header, payload)))
    }
    return joined.sort((a, b) => b.header.generation - a.header.generation)
  }
}

const join = <H extends StoredHeader>(header: H, payload: Uint8Array): Candidate<H> => ({
  header,
  payload,
  envelope: concatBytes(header.bytes, payload),
})
