import { KeyriseError } from './errors.js'
import { STREAM_CREDIT_MAX, STREAM_WINDOW_SIZE_BYTES } from './limits.js'

export type Source = AsyncIterable<unknown> | Iterable<unknown>

/** How a source ended: it had no more items, it was stopped, or it failed. */
export type SourceEnd = { readonly kind: 'complete' | 'stopped' } | { readonly kind: 'failed'; readonly error: unknown }

/** True for what a `for await` takes. Text is one value, not a stream of characters. */
export const isSource = (value: unknown): value is Source =>
  typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value)

/**
 * The sending end of a stream. It pulls an item from its source only when the receiver, who may be hostile, has room for
 * one; it holds none itself. No more than STREAM_WINDOW_SIZE_BYTES and an item are on their way at once.
 */
export class StreamSender {
  readonly #send: (value: unknown) => number | Promise<number>
  #iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined
  #credit = 0
  /** Of the items on their way, oldest first: credit is for those that were taken, in order, and then for more at once. */
  readonly #sizes: number[] = []
  #sizeBytes = 0
  #isStopped = false
  #wake: (() => void) | undefined
  #returned: Promise<unknown> | undefined

  /** @param send - posts one item and returns its size in bytes; throws where the value cannot cross. */
  constructor(send: (value: unknown) => number | Promise<number>) {
    this.#send = send
  }

  /** True while nothing can be sent before the receiver gives credit. */
  get waitsForCredit(): boolean {
    return this.#wake !== undefined
  }

  /**
   * Sends, once there is credit, until `source` ends or `stop` is called. It settles, never rejects, once the source has really ended, its
   * `finally` blocks run.
   */
  async run(source: Source): Promise<SourceEnd> {
    try {
      const end = await this.#pump(source)
      await this.#returned
      return end
    } catch (error) {
      return this.#isStopped ? { kind: 'stopped' } : { kind: 'failed', error }
    }
  }

  /** The receiver takes `claimedCount` more. @throws {KeyriseError} ERR_MESSAGE_INVALID when it is no credit, or too much. */
  credit(claimedCount: unknown): void {
    if (!Number.isSafeInteger(claimedCount) || (claimedCount as number) < 1)
      throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'credit' })
    const count = claimedCount as number
    if (this.#credit + count > STREAM_CREDIT_MAX)
      throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'more credit than a stream may have' })
    this.#credit += count
    for (const size of this.#sizes.splice(0, count)) this.#sizeBytes -= size
    this.#resume()
  }

  /** Sends nothing more, and has the source end. Safe to repeat. */
  stop(): void {
    if (this.#isStopped) return
    this.#isStopped = true
    // At once, not after the next item: a source that waits for one may be told only so. A generator that runs finishes its step.
    this.#returned = this.#return()
    this.#returned.catch(() => undefined)
    this.#resume()
  }

  async #pump(source: Source): Promise<SourceEnd> {
    if (!(await this.#hasRoom())) return { kind: 'stopped' }
    this.#iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
    for (;;) {
      const item: IteratorResult<unknown> = await this.#iterator.next()
      if (this.#isStopped) return { kind: 'stopped' }
      if (item.done === true) return { kind: 'complete' }
      try {
        const sizeBytes = this.#send(item.value)
        this.#count(typeof sizeBytes === 'number' ? sizeBytes : await sizeBytes)
      } catch (error) {
        await this.#return()
        throw error
      }
      if (!(await this.#hasRoom())) return { kind: 'stopped' }
    }
  }

  #count(sizeBytes: number): void {
    this.#credit--
    this.#sizes.push(sizeBytes)
    this.#sizeBytes += sizeBytes
  }

  /** Waits until one more item may be sent; false once none may ever be. */
  async #hasRoom(): Promise<boolean> {
    while (!this.#isStopped && (this.#credit === 0 || this.#sizeBytes >= STREAM_WINDOW_SIZE_BYTES))
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    return !this.#isStopped
  }

  #resume(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  async #return(): Promise<void> {
    await this.#iterator?.return?.()
  }
}
