import {
  encodeCall,
  parseReply,
  parseStreamMessage,
  postCancel,
  postCredit,
  type ClaimedReply,
} from '../protocol/calls.js'
import type { EcallDeclaration, OcallDeclaration } from '../protocol/contract.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { CALL_ID_LIMIT, CALLS_IN_FLIGHT_MAX, MESSAGE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { CallId, Clock, Port } from '../protocol/ports.js'
import { StreamReceiver } from '../protocol/stream-receiver.js'
import { admitItem, admitValue, type ValueLimits } from '../protocol/values.js'
import { CallRate } from './call-rate.js'
import { parse } from './schema.js'

export interface OutgoingCallOptions {
  /** To the reply; of a stream, to each item. */
  readonly deadlineMs: number
  /** Of the argument, and of the reply where it has none of its own. */
  readonly limits?: ValueLimits
  readonly replyLimits?: ValueLimits
  /** The codes that the other side may answer with; any other becomes `otherwise`. */
  readonly codes: readonly ErrorCode[]
  readonly otherwise: ErrorCode
}

interface Pending {
  readonly settle: (reply: ClaimedReply) => void
  readonly fail: (error: KeyriseError) => void
  /** Of a call that yields: an item came, not checked in any way. */
  readonly item?: (claimedValue: unknown) => void
}

/**
 * Calls out of the enclave. The other side is hostile: a reply counts once, for a call in flight, as a private bounded
 * copy, before the deadline; every promise settles. What the reply means is for the caller to check.
 */
export class OutgoingCalls {
  readonly #port: Port
  readonly #clock: Clock
  readonly #pending = new Map<CallId, Pending>()
  #count = 0

  constructor(port: Port, clock: Clock) {
    this.#port = port
    this.#clock = clock
    port.onMessage((claimed) => this.#receive(claimed))
  }

  /** @throws {KeyriseError} ERR_CALLS_LIMIT, ERR_DEADLINE, ERR_REPLY_INVALID, one of `codes`, or as `releaseValue`. */
  async call(name: string, argument: unknown, options: OutgoingCallOptions): Promise<unknown> {
    if (this.#pending.size >= CALLS_IN_FLIGHT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
    const id = this.#nextId()
    const { message, transfer } = encodeCall(id, name, argument, { limits: options.limits })
    const reply = await new Promise<ClaimedReply>((resolve, reject) => {
      const timer = this.#clock.timer(options.deadlineMs, () => this.#take(id)?.fail(new KeyriseError('ERR_DEADLINE')))
      const stopped =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          timer[Symbol.dispose]()
          then(value)
        }
      this.#pending.set(id, { settle: stopped(resolve), fail: stopped(reject) })
      this.#port.post(message, transfer)
    })
    if ('error' in reply) throw believed(reply.error, options)
    try {
      return admitValue(reply.claimedValue, options.replyLimits ?? options.limits)
    } catch (error) {
      throw new KeyriseError('ERR_REPLY_INVALID', { cause: error })
    }
  }

  /**
   * Makes a call that is answered with a stream. What it yields is private bounded copies, which `read` checks. To stop, `break`.
   * @throws {KeyriseError} ERR_CALLS_LIMIT, or as `releaseValue`. The stream fails as `call` does, and with ERR_MESSAGE_INVALID.
   */
  stream(
    name: string,
    argument: unknown,
    options: OutgoingCallOptions & { readonly read: (item: unknown) => unknown },
  ): StreamReceiver<unknown> {
    if (this.#pending.size >= CALLS_IN_FLIGHT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
    const id = this.#nextId()
    const { message, transfer } = encodeCall(id, name, argument, { limits: options.limits })
    const stream = new StreamReceiver({
      grant: (count) => postCredit(this.#port, id, count),
      cancel: () => {
        this.#pending.delete(id)
        postCancel(this.#port, id)
      },
      read: options.read,
      clock: this.#clock,
      deadlineMs: options.deadlineMs,
    })
    this.#pending.set(id, {
      settle: (reply) => stream.end('error' in reply ? { error: believed(reply.error, options) } : {}),
      fail: (error) => stream.end({ error }),
      item: (claimedValue) => receiveItem(stream, claimedValue, options.replyLimits ?? options.limits),
    })
    this.#port.post(message, transfer)
    return stream
  }

  #nextId(): number {
    this.#count = (this.#count + 1) % CALL_ID_LIMIT
    return this.#count
  }

  /** Takes a call out of those in flight, so that it settles once. */
  #take(id: CallId): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #receive(claimed: unknown): void {
    const reply = parseReply(claimed)
    if (reply !== undefined) return this.#take(reply.id)?.settle(reply)
    const message = parseStreamMessage(claimed)
    if (message?.type === 'ITEM') this.#pending.get(message.id)?.item?.(message.claimedValue)
  }
}

/** The code of the other side's error, where it may say it. */
const believed = (error: KeyriseError, { codes, otherwise }: OutgoingCallOptions): KeyriseError =>
  codes.includes(error.code) ? error : new KeyriseError(otherwise)

const receiveItem = (stream: StreamReceiver<unknown>, claimedValue: unknown, limits: ValueLimits | undefined): void => {
  if (stream.ended) return
  try {
    const { value, sizeBytes } = admitItem(claimedValue, limits)
    stream.item(value, sizeBytes)
  } catch (error) {
    stream.refuse(new KeyriseError('ERR_REPLY_INVALID', { cause: error }))
  }
}

const OCALL_DEADLINE_MS = 60_000
const OCALL_CODES: readonly ErrorCode[] = ['ERR_OCALL_UNKNOWN', 'ERR_OCALL_FAILED']

type OcallFunction = (input: unknown) => Promise<unknown> | AsyncIterable<unknown>

/** The OCALLs of one enclave: what is limited is limited over all of its ECALLs. */
export class AuthorsOcalls {
  readonly #calls: OutgoingCalls
  readonly #limits: ValueLimits
  readonly #clock: Clock
  readonly #rates = new Map<OcallDeclaration, CallRate>()

  constructor(calls: OutgoingCalls, limits: ValueLimits, clock: Clock) {
    this.#calls = calls
    this.#limits = limits
    this.#clock = clock
  }

  /** The OCALLs that one ECALL declares, as functions: both schemas checked on this side, whatever the host checks. */
  of(ecall: EcallDeclaration): Readonly<Record<string, OcallFunction>> {
    const functions = Object.create(null) as Record<string, OcallFunction>
    for (const [name, ocall] of Object.entries(ecall.ocalls ?? {}))
      functions[name] =
        ocall.yields === undefined
          ? (argument) => this.#call(name, ocall, argument)
          : (argument) => this.#stream(name, ocall, argument)
    return Object.freeze(functions)
  }

  async #call(name: string, ocall: OcallDeclaration, argument: unknown): Promise<unknown> {
    const checked = await this.#checked(ocall, argument)
    const reply = await this.#calls.call(name, checked, this.#options(ocall))
    return parse(ocall.output, reply, 'ERR_REPLY_INVALID')
  }

  /** The call is made when its first item is asked for, as a generator begins. */
  async *#stream(name: string, ocall: OcallDeclaration, argument: unknown): AsyncGenerator {
    const checked = await this.#checked(ocall, argument)
    const read = (item: unknown): unknown => parse(ocall.yields, item, 'ERR_REPLY_INVALID')
    yield* this.#calls.stream(name, checked, { ...this.#options(ocall), read })
  }

  /** @throws {KeyriseError} ERR_ARGUMENT_INVALID, ERR_RATE_LIMIT: the call is not made. */
  async #checked(ocall: OcallDeclaration, argument: unknown): Promise<unknown> {
    const checked = await parse(ocall.input, argument, 'ERR_ARGUMENT_INVALID')
    const perSecondMax = ocall.limits?.perSecondMax
    if (perSecondMax === undefined) return checked
    let rate = this.#rates.get(ocall)
    if (rate === undefined) this.#rates.set(ocall, (rate = new CallRate(perSecondMax, this.#clock)))
    rate.take()
    return checked
  }

  #options({ limits = {} }: OcallDeclaration): OutgoingCallOptions {
    const { sizeBytesMax = MESSAGE_SIZE_BYTES_MAX } = this.#limits
    return {
      deadlineMs: limits.deadlineMs ?? OCALL_DEADLINE_MS,
      limits: { ...this.#limits, sizeBytesMax: Math.min(sizeBytesMax, limits.inputSizeBytesMax ?? sizeBytesMax) },
      replyLimits: { ...this.#limits, sizeBytesMax: Math.min(sizeBytesMax, limits.outputSizeBytesMax ?? sizeBytesMax) },
      codes: OCALL_CODES,
      otherwise: 'ERR_OCALL_FAILED',
    }
  }
}
