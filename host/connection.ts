import { encodeCall, parseLifecycle, parseReply, type ClaimedReply, type Lifecycle } from '../protocol/calls.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import type { Instance } from '../platform/platform.js'

export interface ConnectionLimits {
  /** From launch to READY, a recovery included. */
  readonly launchDeadlineMs: number
  /** From a call to its answer. */
  readonly callDeadlineMs: number
}

interface Pending {
  readonly deadline: Disposable
  readonly settle: (reply: ClaimedReply) => void
}

/**
 * The calls into one instance, from its launch to its end. Every one settles: with the answer, at its deadline, or, when
 * the instance dies, at once.
 */
export class Connection {
  readonly #instance: Instance
  readonly #clock: Clock
  readonly #limits: ConnectionLimits
  readonly #pending = new Map<string, Pending>()
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
    this.lost = instance.exited.then(async ({ reason }) => {
      this.#isAlive = false
      // What it posted before it died may still be on its way.
      await new Promise((resolve) => setImmediate(resolve))
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

  /** Makes one call. @throws {KeyriseError} what the gate or the ECALL refused it with; ERR_ENCLAVE_LOST; ERR_DEADLINE. */
  call(name: string, argument: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) throw this.#ended
      const id = String(this.#callCount++)
      const { message, transfer } = encodeCall(id, name, argument)
      const settle = (reply: ClaimedReply): void => {
        if ('error' in reply) reject(reply.error)
        else resolve(reply.claimedValue)
      }
      this.#instance.ecalls.post(message, transfer)
      const deadline = this.#clock.timer(this.#limits.callDeadlineMs, () => {
        this.#settle({ id, error: new KeyriseError('ERR_DEADLINE') })
      })
      this.#pending.set(id, { deadline, settle })
    })
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
      this.#instance.ecalls.onMessage((message) => {
        this.#receive(message)
      })
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
    if (reply === undefined) return
    if (this.#settle(reply)) this.#answerCount++
  }

  /** False where the call is not ours, or was answered, or overdue, before. */
  #settle(reply: ClaimedReply): boolean {
    const pending = this.#pending.get(reply.id)
    if (pending === undefined) return false
    this.#pending.delete(reply.id)
    pending.deadline[Symbol.dispose]()
    pending.settle(reply)
    return true
  }

  #end(error: KeyriseError): void {
    this.#ended ??= error
    for (const id of this.#pending.keys()) this.#settle({ id, error })
  }
}
