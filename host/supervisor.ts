import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { CallOptions, FoundStatus, PlainCallOptions } from '../protocol/contract.js'
import type { CancelSignal, Clock } from '../protocol/ports.js'
import type { Source } from '../protocol/stream-sender.js'
import type { Instance } from '../platform/platform.js'
import { Connection, type ConnectionLimits } from './connection.js'

/**
 * What happens to an enclave, as it happens, in the time of the launch's clock.
 * - `launching`: `attempt` is 0 at first, then counts the launches since the last instance that answered a call.
 * - `ready`: it recovered and serves; `tookMs` since the launch began, or since the instance before was lost.
 * - `lost`: it died, and `callsPending` calls rejected with ERR_ENCLAVE_LOST.
 * - `spare`: a spare instance stands by.
 * - `ocall-failed`: with its cause, of which the enclave learns no more than a code.
 * - `found`: what the enclave found out about an object in the store: written again from another copy, or lost. In which entries
 *   are, only the enclave knows (`flow.verify`).
 * - `output`: of a debug image alone: what it printed, or failed with, and by which of the console's methods.
 * - `closed`: for good; `error` says why, unless the host closed it.
 */
export type EnclaveEvent = { readonly atMs: number } & (
  | { readonly type: 'launching'; readonly attempt: number }
  | { readonly type: 'ready'; readonly tookMs: number }
  | { readonly type: 'launch-failed'; readonly error: KeyriseError }
  | { readonly type: 'lost'; readonly reason: string; readonly callsPending: number }
  | { readonly type: 'spare' }
  | { readonly type: 'ocall-failed'; readonly name: string; readonly error: unknown }
  | { readonly type: 'found'; readonly object: string; readonly status: FoundStatus }
  | { readonly type: 'output'; readonly level: string; readonly text: string }
  | { readonly type: 'closed'; readonly error?: KeyriseError }
)

/** Without its time, which the supervisor adds. */
export type EnclaveEventDetail = EnclaveEvent extends infer Event
  ? Event extends unknown
    ? Omit<Event, 'atMs'>
    : never
  : never

export type EnclaveState = 'launching' | 'ready' | 'closed'

export interface SupervisorLimits extends ConnectionLimits {
  /** How long a call waits for an enclave that is being relaunched. */
  readonly relaunchDeadlineMs: number
  /** The first relaunch is immediate; the wait before the second, which then doubles. */
  readonly backoffMinMs: number
  readonly backoffMaxMs: number
}

/** Launching again cannot mend these: the state, the policy or the trust is wrong, and somebody has to look. */
const UNMENDABLE: readonly ErrorCode[] = [
  'ERR_ROLLBACK',
  'ERR_FORK',
  'ERR_STATE_LOST',
  'ERR_LEDGER_ROLLED_BACK',
  'ERR_FLOW_DESTROYED',
  'ERR_KEY_UNKNOWN',
  'ERR_CONFIG_INVALID',
  'ERR_FENCED',
]

/**
 * As final, but said before a session exists, so that whoever relays, or one flipped bit, can say them too: a relaunch
 * believes them when they are repeated.
 */
const UNAUTHENTICATED: readonly ErrorCode[] = ['ERR_POLICY_DENIED', 'ERR_KMS_UNTRUSTED', 'ERR_EVIDENCE_REFUSED']
const REPEATED_COUNT_MIN = 3

/** What a call with streams may have; items where the ECALL receives some. */
export interface ItemOptions extends CallOptions {
  readonly items?: Source
}

export interface LaunchedInstance {
  readonly instance: Instance
  /** Tells one that stands by that it is needed. */
  readonly start: () => void
}

interface Waiting {
  readonly timer: Disposable
  readonly resolve: (connection: Connection) => void
  readonly reject: (error: unknown) => void
}

/** Keeps one enclave alive: launches it again when it is lost, holds calls back meanwhile, and gives up where that is right. */
export class Supervisor {
  readonly #launchInstance: (standby: boolean) => LaunchedInstance
  readonly #keepsSpare: boolean
  readonly #clock: Clock
  readonly #limits: SupervisorLimits
  readonly #onEvent: (event: EnclaveEvent) => void
  readonly #waiting = new Set<Waiting>()
  #instance: Instance | undefined
  /** Stands by for the next relaunch. */
  #spare: LaunchedInstance | undefined
  #spareTimer: Disposable | undefined
  #connection: Connection | undefined
  /** Set once, when there will be no further instance; calls reject with it. */
  #over: KeyriseError | undefined
  #lastFailure: KeyriseError | undefined
  #wake: (() => void) | undefined

  constructor(o: {
    readonly launchInstance: (standby: boolean) => LaunchedInstance
    readonly keepsSpare: boolean
    readonly clock: Clock
    readonly limits: SupervisorLimits
    readonly onEvent: (event: EnclaveEvent) => void
  }) {
    this.#launchInstance = o.launchInstance
    this.#keepsSpare = o.keepsSpare
    this.#clock = o.clock
    this.#limits = o.limits
    this.#onEvent = o.onEvent
  }

  get state(): EnclaveState {
    if (this.#over !== undefined) return 'closed'
    return this.#connection === undefined ? 'launching' : 'ready'
  }

  /** The first launch: what fails is said at once, not repeated. @throws {KeyriseError} why it failed. */
  async start(): Promise<void> {
    const startMs = this.#clock.nowMs()
    try {
      this.#watch(await this.#attempt(0), 0, startMs)
    } catch (error) {
      throw await this.#finish(asFailure(error))
    }
  }

  /** Makes a call, on the next instance where there is none now. */
  call(name: string, argument: unknown, options?: PlainCallOptions): Promise<unknown> {
    if (this.#connection?.isAlive === true) return this.#connection.call(name, argument, options)
    return this.#next(options?.signal).then((connection) => connection.call(name, argument, options))
  }

  /** Makes a call that has streams in, and one reply. */
  async callWithItems(name: string, argument: unknown, options: ItemOptions): Promise<unknown> {
    const connection = await this.#connected(options.signal)
    return connection.stream(name, argument, { ...options, yields: false }).reply
  }

  /** Makes a call that is answered with a stream, when its first item is asked for. */
  async *stream(name: string, argument: unknown, options: ItemOptions): AsyncGenerator {
    const connection = await this.#connected(options.signal)
    yield* connection.stream(name, argument, { ...options, yields: true }).streaming.stream
  }

  /** Makes a synchronous call. It cannot wait for an enclave that is being relaunched. @throws {KeyriseError} */
  callSwitchless(name: string, argument: unknown): unknown {
    if (this.#over !== undefined) throw this.#over
    if (this.#connection?.isAlive === true) return this.#connection.callSwitchless(name, argument)
    throw new KeyriseError('ERR_ENCLAVE_LOST', { detail: 'it is being relaunched; the call was not made' })
  }

  async close(): Promise<void> {
    if (this.#over === undefined) await this.#finish(new KeyriseError('ERR_ENCLAVE_CLOSED'), false)
    else await this.#instance?.terminate()
  }

  report(event: EnclaveEventDetail): void {
    const stamped: EnclaveEvent = { atMs: this.#clock.nowMs(), ...event }
    // Apart, so that a listener that throws harms nobody but itself.
    queueMicrotask(() => {
      this.#onEvent(stamped)
    })
  }

  async #attempt(attempt: number): Promise<Connection> {
    this.report({ type: 'launching', attempt })
    try {
      const { instance, start } = this.#takeSpare() ?? this.#launchInstance(false)
      this.#instance = instance
      start()
      return await Connection.open(this.#instance, this.#clock, this.#limits)
    } catch (error) {
      const failure = asFailure(error)
      this.#lastFailure = failure
      this.report({ type: 'launch-failed', error: failure })
      throw failure
    }
  }

  #watch(connection: Connection, attempt: number, sinceMs: number): void {
    // Closed meanwhile: `#finish` has ended the instance.
    if (this.#over !== undefined) return
    this.#connection = connection
    this.#lastFailure = undefined
    this.report({ type: 'ready', tookMs: this.#clock.nowMs() - sinceMs })
    this.#release(({ resolve }) => {
      resolve(connection)
    })
    void this.#relaunchWhenLost(connection, attempt)
    // Only now: what recovers has the machine to itself.
    this.#prepareSpare()
  }

  #takeSpare(): LaunchedInstance | undefined {
    const spare = this.#spare
    this.#spare = undefined
    return spare
  }

  #prepareSpare(): void {
    if (!this.#keepsSpare || this.#over !== undefined || this.#spare !== undefined) return
    this.#spareTimer?.[Symbol.dispose]()
    let spare: LaunchedInstance | undefined
    try {
      spare = this.#launchInstance(true)
    } catch (error) {
      this.report({ type: 'launch-failed', error: asFailure(error) })
    }
    this.#spare = spare
    // One that dies while it waits is made anew, but not at once: it may die for ever.
    const lost = (): void => {
      if (this.#spare !== spare || this.#over !== undefined) return
      this.#spare = undefined
      this.#spareTimer = this.#clock.timer(this.#limits.backoffMaxMs, () => this.#prepareSpare())
    }
    if (spare === undefined) lost()
    else void spare.instance.exited.then(lost)
  }

  async #relaunchWhenLost(connection: Connection, attempt: number): Promise<void> {
    const { reason, callsPending } = await connection.lost
    if (this.#over !== undefined) return
    const lostMs = this.#clock.nowMs()
    this.#connection = undefined
    this.report({ type: 'lost', reason, callsPending })
    // One that answered was sound; one that never did may die for ever, and is launched ever more rarely.
    await this.#relaunch(connection.answerCount > 0 ? 1 : attempt + 1, lostMs)
  }

  async #relaunch(firstAttempt: number, lostMs: number): Promise<void> {
    let refusedCount = 0
    for (let attempt = firstAttempt; ; attempt++) {
      await this.#sleep(this.#backoffMs(attempt))
      if (this.#over !== undefined) return
      try {
        this.#watch(await this.#attempt(attempt), attempt, lostMs)
        return
      } catch (error) {
        refusedCount = isKeyriseError(error, ...UNAUTHENTICATED) ? refusedCount + 1 : 0
        if (isKeyriseError(error, ...UNMENDABLE) || refusedCount === REPEATED_COUNT_MIN) {
          await this.#finish(asFailure(error))
          return
        }
      }
    }
  }

  #backoffMs(attempt: number): number {
    return attempt <= 1 ? 0 : Math.min(this.#limits.backoffMaxMs, this.#limits.backoffMinMs * 2 ** (attempt - 2))
  }

  #sleep(delayMs: number): Promise<void> {
    if (delayMs === 0 || this.#over !== undefined) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = this.#clock.timer(delayMs, resolve)
      this.#wake = () => {
        timer[Symbol.dispose]()
        resolve()
      }
    })
  }

  #connected(signal: CancelSignal | undefined): Connection | Promise<Connection> {
    return this.#connection?.isAlive === true ? this.#connection : this.#next(signal)
  }

  /** @throws the signal's reason: the call is not made. */
  #next(signal?: CancelSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      if (this.#over !== undefined) throw this.#over
      signal?.throwIfAborted()
      const timer = this.#clock.timer(this.#limits.relaunchDeadlineMs, () => {
        this.#waiting.delete(waiting)
        waiting.reject(
          this.#lastFailure ??
            new KeyriseError('ERR_DEADLINE', { detail: 'the enclave is being relaunched; the call was not made' }),
        )
      })
      const aborted = (): void => {
        this.#waiting.delete(waiting)
        timer[Symbol.dispose]()
        waiting.reject(signal?.reason)
      }
      const unheard =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          signal?.removeEventListener('abort', aborted)
          then(value)
        }
      const waiting: Waiting = { timer, resolve: unheard(resolve), reject: unheard(reject) }
      this.#waiting.add(waiting)
      signal?.addEventListener('abort', aborted)
    })
  }

  #release(settle: (waiting: Waiting) => void): void {
    for (const waiting of this.#waiting) {
      waiting.timer[Symbol.dispose]()
      settle(waiting)
    }
    this.#waiting.clear()
  }

  /** Ends it all. @returns `error`, for the caller to throw. */
  async #finish(error: KeyriseError, isFailure = true): Promise<KeyriseError> {
    this.#over = error
    this.#release(({ reject }) => {
      reject(error)
    })
    this.#wake?.()
    this.#spareTimer?.[Symbol.dispose]()
    const spare = this.#takeSpare()
    await this.#connection?.close(error)
    await this.#instance?.terminate()
    await spare?.instance.terminate()
    this.report(isFailure ? { type: 'closed', error } : { type: 'closed' })
    return error
  }
}

const asFailure = (error: unknown): KeyriseError =>
  isKeyriseError(error) ? error : new KeyriseError('ERR_LAUNCH_FAILED', { cause: error })
