import { postCancel, postCredit, postItem, type StreamMessage } from '../protocol/calls.js'
import type { Flow } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { ITEM_DEADLINE_MS } from '../protocol/limits.js'
import type { CallId, Clock, Port } from '../protocol/ports.js'
import { StreamReceiver } from '../protocol/stream-receiver.js'
import { isSource, StreamSender } from '../protocol/stream-sender.js'
import { admitItem, admitValue } from '../protocol/values.js'
import type { Cancellations } from './cancellations.js'
import type { IdempotentCalls } from './idempotency.js'
import { parse, whenReady } from './schema.js'
import { CallContext, type Outcome, type ServedEcall } from './served-ecall.js'

export interface LiveCallOptions {
  readonly id: CallId
  readonly key: string | undefined
  readonly argument: unknown
  readonly served: ServedEcall
  readonly port: Port
  readonly flow: Flow
  readonly calls: IdempotentCalls
  readonly cancellations: Cancellations
  readonly clock: Clock
}

/** A call with streams, or with an idempotency key: one that is more than an argument and a reply. */
export class LiveCall {
  readonly #o: LiveCallOptions
  readonly #items: StreamReceiver<unknown> | undefined
  readonly #sender: StreamSender | undefined
  /** How the host broke the rules of streams, if it did. */
  #breach: unknown

  /** @throws {KeyriseError} ERR_MESSAGE_INVALID: what is streamed cannot be recorded under a key. */
  constructor(options: LiveCallOptions) {
    const { served, key } = options
    if (served.isStreaming && key !== undefined)
      throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'a key for a stream' })
    this.#o = options
    this.#items = served.declaration.receives && this.#receiver(served)
    this.#sender = served.declaration.yields && new StreamSender((item) => this.#send(item))
  }

  get id(): CallId {
    return this.#o.id
  }

  /** Settles, never rejects, when the handler has really ended, however the host gave the call up. */
  async serve(): Promise<Outcome> {
    const { served } = this.#o
    try {
      return { value: await this.#serve() }
    } catch (error) {
      return served.refused(this.#breach ?? error)
    } finally {
      this.#items?.end()
    }
  }

  /** What the host sends to a call in flight; what is not for this one changes nothing. */
  receive(message: StreamMessage, sizeBytes: number | undefined): void {
    switch (message.type) {
      case 'ITEM':
        return this.#receiveItem(message.claimedValue, sizeBytes)
      case 'END':
        return this.#items?.end()
      case 'CREDIT':
        return this.#receiveCredit(message.claimedCount)
      case 'CANCEL':
        return this.#cancel()
    }
  }

  #serve(): Promise<unknown> {
    const { key, served } = this.#o
    if (key !== undefined) return this.#serveOnce(key)
    const context = this.#context(this.#o.flow)
    return this.#sender === undefined
      ? Promise.resolve(served.answer(this.#o.argument, context))
      : this.#stream(this.#sender, served.handle(this.#o.argument, context))
  }

  #context(flow: Flow): CallContext {
    const { served, id, cancellations } = this.#o
    return new CallContext(flow, served.ocalls, id, cancellations, this.#items)
  }

  #serveOnce(key: string): Promise<unknown> {
    const { served, argument, calls, cancellations, id } = this.#o
    return calls.run({
      key,
      ecall: served.name,
      argument,
      signal: cancellations.signalOf(id),
      serve: async (flow) => {
        const outcome = await served.serve(argument, this.#context(flow))
        if ('error' in outcome) throw asError(outcome.error)
        return admitValue(outcome.value, served.outputLimits)
      },
    })
  }

  async #stream(sender: StreamSender, handled: unknown): Promise<undefined> {
    const source = await handled
    if (!isSource(source)) throw new TypeError('An ECALL that yields returns an iterable')
    const end = await sender.run(source)
    if (end.kind === 'failed') throw end.error
    if (this.#breach !== undefined) throw asError(this.#breach)
    return undefined
  }

  #send(item: unknown): number | Promise<number> {
    const { served, port, id } = this.#o
    return whenReady(parse(served.declaration.yields, item, 'ERR_REPLY_INVALID'), (value) =>
      postItem(port, id, value, served.outputLimits),
    ) as number | Promise<number>
  }

  #receiver({ declaration }: ServedEcall): StreamReceiver<unknown> {
    const { port, id, clock } = this.#o
    return new StreamReceiver({
      grant: (count) => postCredit(port, id, count),
      cancel: () => postCancel(port, id),
      read: (value) => parse(declaration.receives, value, 'ERR_ARGUMENT_INVALID'),
      clock,
      deadlineMs: ITEM_DEADLINE_MS,
    })
  }

  #receiveItem(claimedValue: unknown, sizeBytes: number | undefined): void {
    const { inputLimits } = this.#o.served
    const items = this.#items
    if (items === undefined || items.ended) return
    try {
      const item = sizeBytes === undefined ? admitItem(claimedValue, inputLimits) : { value: claimedValue, sizeBytes }
      if (item.sizeBytes > inputLimits.sizeBytesMax) throw new KeyriseError('ERR_SIZE_LIMIT')
      items.item(item.value, item.sizeBytes)
    } catch (error) {
      items.refuse(error)
    }
  }

  #receiveCredit(claimedCount: unknown): void {
    try {
      this.#sender?.credit(claimedCount)
    } catch (error) {
      this.#breach ??= error
      this.#sender?.stop()
    }
  }

  #cancel(): void {
    this.#items?.refuse(new KeyriseError('ERR_CANCELLED'))
    this.#sender?.stop()
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new KeyriseError('ERR_ENCLAVE_FAILED'))
