import { postCancel, postCredit, postEnd, postItem, type ClaimedReply, type StreamMessage } from '../protocol/calls.js'
import { KeyriseError } from '../protocol/errors.js'
import type { CallId, Clock, Port } from '../protocol/ports.js'
import { StreamReceiver } from '../protocol/stream-receiver.js'
import { StreamSender, type Source, type SourceEnd } from '../protocol/stream-sender.js'

export interface StreamingCallOptions {
  readonly port: Port
  readonly id: CallId
  readonly clock: Clock
  /** Between two signs of life of the enclave, while this side waits for one. */
  readonly deadlineMs: number
  /** What is streamed in, if anything. */
  readonly items: Source | undefined
  /** True for a call that is answered with a stream. */
  readonly yields: boolean
  /** The call is over for this side: what still comes for it is nobody's. */
  readonly dropped: () => void
}

/** One call with streams, on the host's side. What comes from the enclave is checked for shape. */
export class StreamingCall {
  readonly #o: StreamingCallOptions
  readonly #sender: StreamSender | undefined
  readonly #receiver: StreamReceiver<unknown> | undefined
  readonly #reply: Promise<unknown>
  #settle!: { readonly resolve: (value: unknown) => void; readonly reject: (error: unknown) => void }
  #isOver = false
  #isSending: boolean
  #timer: Disposable | undefined

  constructor(options: StreamingCallOptions) {
    this.#o = options
    const { port, id, items } = options
    this.#isSending = items !== undefined
    this.#sender = items && new StreamSender((item) => postItem(port, id, item))
    this.#receiver = options.yields ? this.#makeReceiver() : undefined
    this.#reply = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    this.#reply.catch(() => undefined)
  }

  /** Streams in what there is. The reply settles like any call's; where the call yields, `stream` tells the end instead. */
  start(): Promise<unknown> {
    const { items } = this.#o
    if (items !== undefined) void this.#sender?.run(items).then((end) => this.#sourceEnded(end))
    this.#rearm()
    return this.#reply
  }

  /** What it yields. */
  get stream(): AsyncIterableIterator<unknown> {
    if (this.#receiver === undefined) throw new TypeError('This call yields nothing')
    return this.#receiver
  }

  receive(message: StreamMessage): void {
    this.#rearm()
    switch (message.type) {
      case 'ITEM':
        // What it counts is not measured here: the enclave is held to the number of items.
        return this.#receiver?.item(message.claimedValue, 0)
      case 'CREDIT':
        return this.#credit(message.claimedCount)
      case 'CANCEL':
        return this.#sender?.stop()
      case 'END':
        return
    }
  }

  /** The answer came, or will never come. */
  settle(reply: ClaimedReply): void {
    if (this.#isOver) return
    this.#over()
    if ('error' in reply) {
      this.#receiver?.end({ error: reply.error })
      this.#settle.reject(reply.error)
    } else {
      this.#receiver?.end()
      this.#settle.resolve(reply.claimedValue)
    }
  }

  /** Gives the call up: the enclave hears of it, and whoever waits here gets `error` at once. */
  giveUp(error: unknown): void {
    if (this.#isOver) return
    this.#over()
    this.#o.dropped()
    postCancel(this.#o.port, this.#o.id)
    this.#receiver?.refuse(error)
    this.#settle.reject(error)
  }

  #makeReceiver(): StreamReceiver<unknown> {
    const { port, id, clock, deadlineMs } = this.#o
    return new StreamReceiver({
      grant: (count) => postCredit(port, id, count),
      cancel: (error) => this.giveUp(error),
      read: (value) => value,
      clock,
      deadlineMs,
      isExcused: () => this.#isPulling,
    })
  }

  /** The enclave may be waiting for an item that is not there yet: then it is not late. */
  get #isPulling(): boolean {
    return this.#isSending && this.#sender?.waitsForCredit === false
  }

  #sourceEnded(end: SourceEnd): void {
    this.#isSending = false
    if (this.#isOver) return
    if (end.kind === 'failed') this.giveUp(end.error)
    if (end.kind === 'complete') postEnd(this.#o.port, this.#o.id)
    this.#rearm()
  }

  #credit(claimedCount: unknown): void {
    try {
      this.#sender?.credit(claimedCount)
    } catch (error) {
      this.giveUp(new KeyriseError('ERR_REPLY_INVALID', { cause: error }))
    }
  }

  /** For calls with one reply; a stream's receiver has a deadline for each item. */
  #rearm(): void {
    this.#timer?.[Symbol.dispose]()
    this.#timer = undefined
    if (this.#isOver || this.#receiver !== undefined) return
    this.#timer = this.#o.clock.timer(this.#o.deadlineMs, () => {
      if (this.#isPulling) this.#rearm()
      else this.giveUp(new KeyriseError('ERR_DEADLINE'))
    })
  }

  #over(): void {
    this.#isOver = true
    this.#rearm()
    this.#sender?.stop()
  }
}
