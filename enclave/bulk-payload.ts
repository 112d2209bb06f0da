import type { Bytes } from '../protocol/bytes.js'
import type { KeyriseError } from '../protocol/errors.js'
import type { DirectHeader } from './direct-objects.js'
import { mismatch } from './entry-failures.js'
import type { StoredObject } from './epoch-file.js'
import type { PayloadStream } from './kms-client.js'
import { PayloadAssembly } from './payload-assembly.js'

/** What became of a payload: its bytes, or why it alone has none. */
export type Outcome = { readonly bytes: Bytes } | { readonly error: KeyriseError }

/** One payload of a bulk read, from its plan until its bytes are handed over or zero-filled. */
export class BulkPayload implements Disposable {
  readonly object: StoredObject
  readonly sizeBytes: number
  readonly assembly: PayloadAssembly
  /** Undefined where it was given up. */
  readonly settled: Promise<Outcome | undefined>
  /** The first segment that nobody has asked for. */
  nextIndex = 0
  /** 16 bytes, as the store has it: the digest covers it. */
  nonce: Bytes | undefined
  /** Generations that may open, newest first. */
  headers: readonly DirectHeader[] = []
  /** The store has several generations: one that opens may still not be this payload’s. */
  isAmbiguous = false
  /** While the KMS has one. */
  stream: PayloadStream | undefined
  #settle!: (outcome: Outcome | undefined) => void
  #isSettled = false
  /** Until they are handed over. */
  #bytes: Bytes | undefined

  constructor(object: StoredObject, sizeBytes: number) {
    this.object = object
    this.sizeBytes = sizeBytes
    this.assembly = new PayloadAssembly(sizeBytes)
    this.settled = new Promise((resolve) => (this.#settle = resolve))
  }

  get isSettled(): boolean {
    return this.#isSettled
  }

  /** True while there are segments to ask for. */
  get isPullable(): boolean {
    return !this.#isSettled && this.stream !== undefined && this.nextIndex < this.assembly.segmentCount
  }

  /** Once all segments are there: the bytes, where they are what the epoch lists. */
  finish(): void {
    const [header] = this.headers
    const bytes = header && this.nonce && this.assembly.take(header.context, this.nonce, this.object.digest)
    this.settle(bytes === undefined ? { error: mismatch(this.object) } : { bytes })
  }

  /** The first outcome counts. What has arrived, and is not part of it, is zero-filled. */
  settle(outcome: Outcome | undefined): void {
    if (this.#isSettled) return
    this.#isSettled = true
    this.#bytes = outcome && 'bytes' in outcome ? outcome.bytes : undefined
    this.assembly[Symbol.dispose]()
    this.#settle(outcome)
  }

  /** The bytes are the caller’s now. */
  handOver(): void {
    this.#bytes = undefined
  }

  /** Zero-fills everything that was not handed over. Safe to repeat. */
  [Symbol.dispose](): void {
    this.settle(undefined)
    this.#bytes?.fill(0)
    this.#bytes = undefined
  }
}
