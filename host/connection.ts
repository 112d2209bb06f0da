import {
  isIdempotencyKey,
  parseLifecycle,
  parseReply,
  parseStreamMessage,
  postCall,
  postCancel,
  type ClaimedReply,
  type Lifecycle,
} from '../protocol/calls.js'
import type { CallOptions, PlainCallOptions } from '../protocol/contract.js'

import { KeyriseError } from '../protocol/errors.js'
import type { CallId, Clock } from '../protocol/ports.js'
import type { Instance } from '../platform/platform.js'
import { Deadlines, type Deadline } from './deadlines.js'
import { StreamingCall } from './streaming-call.js'
import type { Source } from '../protocol/stream-sender.js'

export interface ConnectionLimits {
  /** From launch to READY, a recovery included. */
  readonly launchDeadlineMs: number
  /** From a call to its answer. */
  readonly callDeadlineMs: number
}

interface Pending {
  /** None where the caller watches the time itself. */
  readonly deadline: Deadline | undefined
  readonly settle: (reply: ClaimedReply) => void
  /** Of a call with streams. */
  readonly streaming?: StreamingCall
}

export interface StreamOptions extends CallOptions {
  readonly items?: Source
  readonly yields: boolean
}

/** Of a call with streams: its reply, where it has one, and what it yields, where it yields. */
export interface StreamedAnswer {
  readonly reply: Promise<unknown>
  readonly streaming: StreamingCall
}

/** Ids are numbers below 2³¹ again and again: two calls so far apart are not in flight together. */
const ID_LIMIT = 0x8000_0000
/** How long a thread that waits for a synchronous call sleeps at most before it looks whether the enclave lives. */
const WAIT_MS_MAX = 20

/**
 * The calls into one instance, from its launch to its end. Every one settles: with the answer, at its deadline, or, when
 * the instance dies, at once.
 */
export class Connection {
  readonly #instance: Instance
  readonly #clock: Clock
  readonly #limits: ConnectionLimits
  readonly #deadlines: Deadlines
  readonly #pending = new Map<CallId, Pending>()
  #callCount = 0
  #answerCount = 0
  #isAlive = true
  #ended: KeyriseError | undefined
  #ready: ((claimed: Lifecycle) => void) | undefined
  /** Why the instance ended, once every call that it still owed was rejected. */
  readonly lost: Promise<{ readonly reason: string; readonly callsPending: number }>

  private constructor(instance: Instance, clock: Clock, limits: ConnectionLimits) {
    this.#instance = instance
    this.#clock = clock
    this.#limits = limits
    this.#deadlines = new Deadlines(clock, (id) => this.#giveUp(id, new KeyriseError('ERR_DEADLINE')))
    this.lost = instance.exited.then(async ({ reason }) => {
      this.#isAlive = false
      // What it posted before it died may still be on its way.
      await new Promise((resolve) => setImmediate(resolve))
      instance.ecalls.wait?.(0)
      const callsPending = this.#pending.size
      this.#end(new KeyriseError('ERR_ENCLAVE_LOST', { detail: reason }))
      instance.ecalls.close()
      instance.ocalls.close()
      return { reason, callsPending }
    })
  }

  /**
   * Resolves when the instance says READY; its OCALLs must be served by then.
   * @throws {KeyriseError} the code of its FAILED; ERR_ENCLAVE_LOST when it died; ERR_DEADLINE. The instance is gone then.
   */
  static async open(instance: Instance, clock: Clock, limits: ConnectionLimits): Promise<Connection> {
    const connection = new Connection(instance, clock, limits)
    try {
      await connection.#start()
      return connection
    } catch (error) {
      await instance.terminate()
      throw error
    }
  }

  /** False from the moment that the instance is gone: a call would not be made. */
  get isAlive(): boolean {
    return this.#isAlive
  }

  /** How many calls it has answered. */
  get answerCount(): number {
    return this.#answerCount
  }

  /**
   * Makes one call.
   * @throws {KeyriseError} what the gate or the ECALL refused it with; ERR_ENCLAVE_LOST; ERR_DEADLINE. The signal's reason.
   */
  call(name: string, argument: unknown, options?: PlainCallOptions): Promise<unknown> {
    if (options !== undefined) return this.#callWith(name, argument, options)
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) throw this.#ended
      const id = this.#nextId()
      postCall(this.#instance.ecalls, id, name, argument)
      const settle = (reply: ClaimedReply): void => {
        if ('error' in reply) reject(reply.error)
        else resolve(reply.claimedValue)
      }
      this.#pending.set(id, { deadline: this.#deadlines.start(id, this.#limits.callDeadlineMs), settle })
    })
  }

  #callWith(name: string, argument: unknown, options: PlainCallOptions): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const { signal, idempotencyKey: key, deadlineMs = this.#limits.callDeadlineMs } = options
      if (this.#ended !== undefined) throw this.#ended
      if (key !== undefined && !isIdempotencyKey(key))
        throw new KeyriseError('ERR_MESSAGE_INVALID', {
          detail: 'an idempotency key: 1 to 128 printable ASCII characters',
        })
      signal?.throwIfAborted()
      const id = this.#nextId()
      postCall(this.#instance.ecalls, id, name, argument, { key })
      const aborted = (): void => {
        this.#giveUp(id, signal?.reason)
      }
      const settle = (reply: ClaimedReply): void => {
        signal?.removeEventListener('abort', aborted)
        if ('error' in reply) reject(reply.error)
        else resolve(reply.claimedValue)
      }
      this.#pending.set(id, { deadline: this.#deadlines.start(id, deadlineMs), settle })
      signal?.addEventListener('abort', aborted)
    })
  }

  /** Makes a call with streams, either way. @throws {KeyriseError} as `call`, and as what cannot cross. */
  stream(name: string, argument: unknown, { items, yields, signal, deadlineMs }: StreamOptions): StreamedAnswer {
    if (this.#ended !== undefined) throw this.#ended
    signal?.throwIfAborted()
    const id = this.#nextId()
    const { ecalls } = this.#instance
    const aborted = (): void => streaming.giveUp(signal?.reason)
    const streaming: StreamingCall = new StreamingCall({
      port: ecalls,
      id,
      clock: this.#clock,
      deadlineMs: deadlineMs ?? this.#limits.callDeadlineMs,
      items,
      yields,
      dropped: () => {
        signal?.removeEventListener('abort', aborted)
        this.#pending.delete(id)
      },
    })
    postCall(ecalls, id, name, argument)
    const settle = (reply: ClaimedReply): void => {
      signal?.removeEventListener('abort', aborted)
      streaming.settle(reply)
    }
    this.#pending.set(id, { deadline: undefined, settle, streaming })
    signal?.addEventListener('abort', aborted)
    return { reply: streaming.start(), streaming }
  }

  /**
   * Makes one call and blocks this thread until it is answered. Answers to other calls that come meanwhile settle those.
   * @throws {KeyriseError} as `call`; ERR_SWITCHLESS where the ECALL, or the port, has no synchronous calls.
   */
  callSwitchless(name: string, argument: unknown): unknown {
    if (this.#ended !== undefined) throw this.#ended
    const { ecalls } = this.#instance
    if (ecalls.wait === undefined) throw new KeyriseError('ERR_SWITCHLESS', { detail: 'at this isolation' })
    const id = this.#nextId()
    const answer: { reply?: ClaimedReply } = {}
    postCall(ecalls, id, name, argument, { isSwitchless: true })
    this.#pending.set(id, { deadline: undefined, settle: (reply) => (answer.reply = reply) })
    let dueMs: number | undefined
    while (answer.reply === undefined) {
      const came = ecalls.wait(WAIT_MS_MAX)
      if (came === 'delivered') continue
      if (came === 'closed') this.#settle({ id, error: new KeyriseError('ERR_ENCLAVE_LOST') })
      const nowMs = this.#clock.nowMs()
      dueMs ??= nowMs + this.#limits.callDeadlineMs
      if (nowMs >= dueMs) this.#settle({ id, error: new KeyriseError('ERR_DEADLINE') })
    }
    if ('error' in answer.reply) throw answer.reply.error
    return answer.reply.claimedValue
  }

  /** Rejects what is in flight with `error`, lets the enclave wipe itself, and ends it. */
  async close(error: KeyriseError): Promise<void> {
    this.#end(error)
    await this.#instance.terminate()
  }

  #start(): Promise<void> {
    const { launchDeadlineMs } = this.#limits
    return new Promise((resolve, reject) => {
      const timer = this.#clock.timer(launchDeadlineMs, () => {
        reject(new KeyriseError('ERR_DEADLINE', { detail: `no READY within ${String(launchDeadlineMs)} ms` }))
      })
      this.#ready = (lifecycle) => {
        timer[Symbol.dispose]()
        if (lifecycle.type === 'READY') resolve()
        else reject(new KeyriseError(lifecycle.code))
      }
      void this.lost.then(() => {
        timer[Symbol.dispose]()
        reject(this.#ended ?? new KeyriseError('ERR_ENCLAVE_LOST'))
      })
      this.#instance.ecalls.onMessage(
        (message) => {
          this.#receive(message)
        },
        (id, error) => {
          this.#refuse(id, error)
        },
        { reply: (id, claimedValue) => this.#answered({ id, claimedValue }) },
      )
    })
  }

  #receive(message: unknown): void {
    const lifecycle = this.#ready && parseLifecycle(message)
    if (lifecycle !== undefined) {
      this.#ready?.(lifecycle)
      this.#ready = undefined
      return
    }
    const reply = parseReply(message)
    if (reply === undefined) return this.#receiveStreamed(message)
    this.#answered(reply)
  }

  #answered(reply: ClaimedReply): void {
    if (this.#settle(reply)) this.#answerCount++
  }

  #receiveStreamed(claimed: unknown): void {
    const message = parseStreamMessage(claimed)
    if (message !== undefined) this.#pending.get(message.id)?.streaming?.receive(message)
  }

  /** The enclave hears that nobody waits any more; whoever did, gets `error`, which may be anything. */
  #giveUp(id: CallId, error: unknown): void {
    if (this.#settle({ id, error: error as KeyriseError })) postCancel(this.#instance.ecalls, id)
  }

  /** What came was no message: of one call, or, where the enclave has broken its way out, perhaps of any. */
  #refuse(id: CallId | undefined, error: KeyriseError): void {
    for (const refused of id === undefined ? [...this.#pending.keys()] : [id]) this.#settle({ id: refused, error })
  }

  #nextId(): number {
    const id = this.#callCount
    this.#callCount = (this.#callCount + 1) % ID_LIMIT
    return id
  }

  /** False where the call is not ours, or was answered, or overdue, before. */
  #settle(reply: ClaimedReply): boolean {
    const pending = this.#pending.get(reply.id)
    if (pending === undefined) return false
    this.#pending.delete(reply.id)
    pending.deadline?.settled()
    pending.settle(reply)
    return true
  }

  #end(error: KeyriseError): void {
    this.#ended ??= error
    for (const id of this.#pending.keys()) this.#settle({ id, error })
  }
}
