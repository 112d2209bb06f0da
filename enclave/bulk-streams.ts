import type { Bytes } from '../protocol/bytes.js'
import { isKeyriseError, type KeyriseError } from '../protocol/errors.js'
import { STREAM_COUNT_MAX } from '../protocol/limits.js'
import type { Clock } from '../protocol/ports.js'
import type { StreamItem } from '../protocol/session.js'
import type { BulkPayload } from './bulk-payload.js'
import type { DirectObjects } from './direct-objects.js'
import { isOfItem } from './entry-failures.js'
import type { KmsClient, PayloadStream } from './kms-client.js'
import { RETRY_DELAYS_MS, sleep } from './kms-session.js'

/** The streams of one bulk read: opened for several payloads at once, opened anew where the KMS has forgotten them. */
export class BulkStreams {
  readonly #objects: DirectObjects
  readonly #kms: KmsClient
  readonly #clock: Clock
  readonly #open = new Set<BulkPayload>()
  /** Ids for the KMS to forget. */
  readonly #done: Bytes[] = []
  #renewal: Promise<void> | undefined

  constructor(options: { readonly objects: DirectObjects; readonly kms: KmsClient; readonly clock: Clock }) {
    this.#objects = options.objects
    this.#kms = options.kms
    this.#clock = options.clock
  }

  /** A stream for each of `payloads`, or an outcome that says why it has none. @throws {KeyriseError} ERR_KMS_*: for none of them. */
  async open(payloads: readonly BulkPayload[]): Promise<void> {
    await Promise.all(payloads.map((payload) => this.#locate(payload)))
    await this.#request(payloads)
  }

  /** A new stream in place of `lost`, which the KMS no longer knows; nor, most likely, any other of this read. */
  async renew(payload: BulkPayload, lost: PayloadStream): Promise<void> {
    while (payload.stream === lost && !payload.isSettled) {
      this.#renewal ??= this.#request([...this.#open]).finally(() => (this.#renewal = undefined))
      await this.#renewal
    }
  }

  /** Of a payload that is settled. */
  release(payload: BulkPayload): void {
    this.#open.delete(payload)
    this.#put(payload, undefined)
  }

  /** Lets the KMS forget what it still knows of this read; where it cannot be told, that expires. */
  close(): void {
    for (const payload of [...this.#open]) this.release(payload)
    if (this.#done.length > 0) void this.#kms.stream([], this.#takeDone()).catch(() => undefined)
  }

  /** Finds what the KMS needs to know of the payload. */
  async #locate(payload: BulkPayload): Promise<void> {
    try {
      const { object } = payload
      const [nonce, headers] = await Promise.all([this.#objects.getNonce(object), this.#objects.getHeaders(object)])
      payload.nonce = nonce
      payload.headers = headers
      payload.isAmbiguous = headers.length > 1
    } catch (error) {
      if (!isOfItem(error)) throw error
      payload.settle({ error })
    }
  }

  /** Asks with each payload's newest header, then with the one before it for those that did not open. */
  async #request(payloads: readonly BulkPayload[]): Promise<void> {
    for (let waiting = payloads; ;) {
      const asked = waiting.flatMap((payload) => {
        const { isSettled, headers, nonce, sizeBytes } = payload
        const [header] = headers
        if (isSettled || header === undefined || nonce === undefined) return []
        return [{ payload, item: { header: header.bytes, nonce, sizeBytes } }]
      })
      if (asked.length === 0) return
      const answers = await this.#ask(asked.map(({ item }) => item))
      waiting = asked.flatMap(({ payload }, index) => {
        const answer = answers[index]
        return answer !== undefined && this.#take(payload, answer) ? [payload] : []
      })
    }
  }

  /** With patience for a KMS that is busy. */
  async #ask(items: readonly StreamItem[]): Promise<(PayloadStream | KeyriseError)[]> {
    const done = this.#takeDone()
    for (const delayMs of RETRY_DELAYS_MS) {
      try {
        return await this.#kms.stream(items, done)
      } catch (error) {
        if (!isKeyriseError(error, 'ERR_CALLS_LIMIT')) throw error
        await sleep(this.#clock, delayMs)
      }
    }
    return this.#kms.stream(items, done)
  }

  /** @returns true where an older header is left to ask with. */
  #take(payload: BulkPayload, answer: PayloadStream | KeyriseError): boolean {
    if (!(answer instanceof Error)) {
      this.#put(payload, answer)
      if (payload.isSettled) this.release(payload)
      else this.#open.add(payload)
      return false
    }
    if (answer.code === 'ERR_ENVELOPE_INVALID' && payload.headers.length > 1) {
      payload.headers = payload.headers.slice(1)
      return true
    }
    payload.settle({ error: answer })
    this.release(payload)
    return false
  }

  #put(payload: BulkPayload, stream: PayloadStream | undefined): void {
    const { stream: before } = payload
    payload.stream = stream
    if (before === undefined) return
    before.key[Symbol.dispose]()
    this.#done.push(before.id)
  }

  #takeDone(): Bytes[] {
    return this.#done.splice(0, STREAM_COUNT_MAX)
  }
}
