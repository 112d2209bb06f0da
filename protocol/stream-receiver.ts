import { KeyriseError } from './errors.js'
import { STREAM_BUFFER_SIZE_BYTES_MAX, STREAM_WINDOW_COUNT, STREAM_WINDOW_SIZE_BYTES } from './limits.js'
import type { Clock } from './ports.js'

export interface StreamReceiverOptions<Item> {
  /** Lets the sender send so many items more. */
  readonly grant: (count: number) => void
  /** The consumer wants no more, or what came is refused with `error`. Called at most once, and not after the end. */
  readonly cancel: (error: unknown) => void
  /** An item as the consumer gets it; what it throws ends the stream. */
  readonly read: (value: unknown) => Item | Promise<Item>
  readonly clock: Clock
  /** How long the consumer waits for one item. The time that it takes itself does not count. */
  readonly deadlineMs: number
  /** True while the sender may be waiting for this side: the deadline then starts anew when it elapses. */
  readonly isExcused?: () => boolean
}

interface Waiting {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}
interface Received {
  readonly value: unknown
  readonly sizeBytes: number
}

const END = Symbol('the end of a stream')

const breach = (detail: string): KeyriseError => new KeyriseError('ERR_MESSAGE_INVALID', { detail })

/**
 * The receiving end of a stream, whose other end may be hostile: an item counts only where it was asked for, at most
 * STREAM_WINDOW_COUNT items and STREAM_BUFFER_SIZE_BYTES_MAX (or one item) wait here, and the first breach ends the stream.
 * Nothing is asked for before the consumer asks for its first item. It is read once.
 */
export class StreamReceiver<Item> implements AsyncIterableIterator<Item> {
  readonly #options: StreamReceiverOptions<Item>
  readonly #items: Received[] = []
  readonly #waiting: Waiting[] = []
  #sizeBytes = 0
  /** Items that may still come. */
  #credit = 0
  /** Items that the consumer took since the last grant. */
  #taken = STREAM_WINDOW_COUNT
  #takenSizeBytes = 0
  #end: { readonly error?: unknown } | undefined
  #timer: Disposable | undefined

  constructor(options: StreamReceiverOptions<Item>) {
    this.#options = options
  }

  /** True once no further item is taken from the sender. */
  get ended(): boolean {
    return this.#end !== undefined
  }

  /** An item came, a private copy of checked size. A breach ends the stream and cancels it; what comes late is dropped. */
  item(value: unknown, sizeBytes: number): void {
    if (this.#end !== undefined) return
    if (this.#credit === 0) return this.refuse(breach('an item that was not asked for'))
    if (this.#sizeBytes >= STREAM_BUFFER_SIZE_BYTES_MAX) return this.refuse(breach('more bytes than a stream may hold'))
    this.#credit--
    const waiting = this.#waiting.shift()
    if (waiting === undefined) {
      this.#items.push({ value, sizeBytes })
      this.#sizeBytes += sizeBytes
      return
    }
    this.#count(sizeBytes)
    this.#rearm()
    waiting.resolve(value)
  }

  /** The sender is through; with `error`, it failed after what it sent. Later ends change nothing. */
  end(end: { readonly error?: unknown } = {}): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#settle()
  }

  /** What came is no item, or nobody wants more: ends the stream at once, whatever waits here, and cancels it. */
  refuse(error: unknown): void {
    if (this.#end !== undefined) return
    this.#drop()
    this.#options.cancel(error)
    this.end({ error })
  }

  async next(): Promise<IteratorResult<Item, undefined>> {
    const value = await this.#take()
    if (value === END) return { done: true, value: undefined }
    try {
      return { done: false, value: await this.#options.read(value) }
    } catch (error) {
      this.#stop(error)
      throw error
    }
  }

  /** The consumer wants no more: `break` calls it. */
  return(): Promise<IteratorResult<Item, undefined>> {
    this.#stop(undefined)
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** The value of the next item, or END. */
  #take(): unknown {
    const item = this.#items.shift()
    if (item !== undefined) {
      this.#sizeBytes -= item.sizeBytes
      this.#count(item.sizeBytes)
      this.#grant()
      return item.value
    }
    if (this.#end !== undefined) {
      const end = this.#end
      this.#end = {}
      if ('error' in end) throw end.error
      return END
    }
    return new Promise<unknown>((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#grant()
      this.#rearm()
    })
  }

  #count(sizeBytes: number): void {
    this.#taken++
    this.#takenSizeBytes += sizeBytes
  }

  /** Gives credit back half a window at a time, or a part of the bytes that a sender may have on their way: it may wait for these. */
  #grant(): void {
    if (this.#end !== undefined) return
    if (this.#taken < STREAM_WINDOW_COUNT / 2 && this.#takenSizeBytes < STREAM_WINDOW_SIZE_BYTES / 16) return
    const count = this.#taken
    this.#taken = 0
    this.#takenSizeBytes = 0
    this.#credit += count
    this.#options.grant(count)
  }

  #rearm(): void {
    this.#timer?.[Symbol.dispose]()
    this.#timer = undefined
    if (this.#end !== undefined || this.#waiting.length === 0) return
    this.#timer = this.#options.clock.timer(this.#options.deadlineMs, () => {
      if (this.#options.isExcused?.() === true) this.#rearm()
      else this.refuse(new KeyriseError('ERR_DEADLINE'))
    })
  }

  /** Settles who waits, once the end is known: the first with the error, if there is one. */
  #settle(): void {
    this.#rearm()
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      const end = this.#end ?? {}
      this.#end = {}
      if ('error' in end) reject(end.error)
      else resolve(END)
    }
  }

  /** By the consumer: nothing more is handed over. */
  #stop(error: unknown): void {
    this.#drop()
    if (this.#end === undefined) this.#options.cancel(error)
    this.#end = {}
    this.#settle()
  }

  #drop(): void {
    this.#items.length = 0
    this.#sizeBytes = 0
  }
}
