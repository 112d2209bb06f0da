import { join } from 'node:path'
import { isKeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { Clock, FileSystem, Random, Store } from '../protocol/ports.js'
import { pairsAmong } from '../protocol/sealed-pair.js'
import { discard, publish, readWhole, syncDirectory } from '../storage/index.js'
import type { Keyring } from './keyring.js'
import type { Receipts } from './receipts.js'
import { rewrapPairs } from './rewrap.js'

/** How far one store is. */
export interface StoreProgress {
  readonly store: string
  /** Pairs that there were when its pass began. */
  total: number
  rewrapped: number
  current: number
  failed: number
  /** Why its pass ended before its end; null where it did not. */
  code: ErrorCode | null
}

/** Of the last pass, or of the one that is under way. */
export interface RewrapProgress {
  /** `idle`: none since the KMS was unlocked. */
  readonly state: 'idle' | 'running' | 'done' | 'failed'
  readonly stores: readonly Readonly<StoreProgress>[]
  /** Pairs that stay as they are, the first FAILURE_COUNT_MAX. */
  readonly failures: readonly { readonly store: string; readonly name: string; readonly code: ErrorCode }[]
}

export interface StoreRewrapsOptions {
  readonly keyring: Keyring
  /** Those that the operator registered, by id. */
  readonly stores: ReadonlyMap<string, Store>
  readonly receipts: Receipts
  readonly clock: Clock
  readonly random: Random
  readonly fs: FileSystem
  /** The KMS’s. */
  readonly directory: string
  /** The id of the root key that what is under a name is for. */
  readonly keyIdOf: (name: string) => string
  /** A store is done, which counts of it say. */
  readonly done: (counts: string) => void
  readonly failed: (error: unknown) => void
}

/** Empty; where it is, a pass has begun, or is about to, and has not ended. */
const MARK = 'rewrap.pending'
export const FAILURE_COUNT_MAX = 100
/** Beside enclaves that are served: fewer than a command works on, and half of the time. */
const PARALLEL_COUNT = 4
const WORK_MS = 20
const REST_MS_MAX = 100

/**
 * Rewraps the stores that the operator registered for the newest versions of root keys, while the KMS serves. A mark on the disk,
 * made before a rotation is, lets the next start go on where a crash cut a pass short: what is rewrapped already is passed over.
 */
export class StoreRewraps {
  readonly #o: StoreRewrapsOptions
  readonly #stores: StoreProgress[] = []
  readonly #failures: { store: string; name: string; code: ErrorCode }[] = []
  #state: RewrapProgress['state'] = 'idle'
  #isWanted = false
  #isClosed = false
  #aborted = new AbortController()
  #underWay: Promise<void> | undefined

  constructor(options: StoreRewrapsOptions) {
    this.#o = options
  }

  get progress(): RewrapProgress {
    return { state: this.#state, stores: this.#stores.map((store) => ({ ...store })), failures: [...this.#failures] }
  }

  /** Has the next start make a pass, unless one ends before. Resolves when that is durable. @throws {KeyriseError} ERR_STORE_*. */
  async expect(): Promise<void> {
    const { fs, directory, stores } = this.#o
    if (stores.size > 0) await publish(fs, directory, MARK, new Uint8Array(0))
  }

  /** Begins a pass, or begins the one that is under way again with the keys that there are now. */
  start(): void {
    if (this.#isClosed || this.#o.stores.size === 0) return
    this.#isWanted = true
    this.#aborted.abort()
    this.#underWay ??= this.#run().finally(() => (this.#underWay = undefined))
  }

  /** The root keys are others now. */
  renew(): void {
    if (this.#underWay !== undefined) this.start()
  }

  /** Goes on with a pass that a process before this one did not end. */
  async resume(): Promise<void> {
    const { fs, directory, stores } = this.#o
    if (stores.size > 0 && (await readWhole(fs, join(directory, MARK), 1)) !== undefined) this.start()
  }

  /** Resolves when nothing of a pass is under way any more, and no key is in use here. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#aborted.abort()
    await this.#underWay
  }

  async #run(): Promise<void> {
    while (this.#isWanted && !this.#isClosed) {
      this.#isWanted = false
      this.#aborted = new AbortController()
      try {
        await this.#pass(this.#aborted.signal)
      } catch (error) {
        this.#state = 'failed'
        this.#o.failed(error)
      }
    }
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const { stores, fs, directory } = this.#o
    this.#begin()
    await this.expect()
    for (const progress of this.#stores) {
      const store = stores.get(progress.store)
      if (store !== undefined) await this.#rewrapStore(store, progress, signal)
      if (signal.aborted) return
    }
    const isDone = this.#stores.every(({ code }) => code === null)
    if (isDone) {
      await discard(fs, directory, MARK)
      await syncDirectory(fs, directory)
    }
    this.#state = isDone ? 'done' : 'failed'
  }

  #begin(): void {
    this.#state = 'running'
    this.#failures.length = 0
    const ids = [...this.#o.stores.keys()]
    const none = { total: 0, rewrapped: 0, current: 0, failed: 0, code: null }
    this.#stores.splice(0, this.#stores.length, ...ids.map((store) => ({ store, ...none })))
  }

  async #rewrapStore(store: Store, progress: StoreProgress, signal: AbortSignal): Promise<void> {
    const { keyring, random, keyIdOf, failed } = this.#o
    try {
      progress.total = pairsAmong(await store.list('')).size
      const pairs = { keyring, store, prefix: '', random, keyIdOf, signal, parallelCount: PARALLEL_COUNT }
      const rest = new Rests(this.#o.clock, signal)
      for await (const pair of rewrapPairs(pairs)) {
        progress[pair.status]++
        if (pair.status === 'failed') this.#noteFailure(progress.store, pair.name, pair.error.code)
        await rest.afterWork()
      }
    } catch (error) {
      if (signal.aborted) return
      progress.code = isKeyriseError(error) ? error.code : 'ERR_STORE_IO'
      failed(error)
    }
    await this.#record(progress)
  }

  #noteFailure(store: string, name: string, code: ErrorCode): void {
    if (this.#failures.length < FAILURE_COUNT_MAX) this.#failures.push({ store, name, code })
  }

  async #record({ store, rewrapped, current, failed, code }: StoreProgress): Promise<void> {
    const reason = `${store}: ${String(rewrapped)} rewrapped, ${String(current)} current, ${String(failed)} failed`
    await this.#o.receipts.record('rewrap', { reason, ...(code === null ? {} : { outcome: code }) })
    this.#o.done(reason)
  }
}

/** As long a rest as there was work, so that half of the time is others’. */
class Rests {
  readonly #clock: Clock
  readonly #signal: AbortSignal
  #sinceMs: number

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock
    this.#signal = signal
    this.#sinceMs = clock.nowMs()
  }

  async afterWork(): Promise<void> {
    if (this.#workedMs < WORK_MS) return
    await this.#sleep(Math.min(this.#workedMs, REST_MS_MAX))
    this.#sinceMs = this.#clock.nowMs()
  }

  /** The clock may jump back. */
  get #workedMs(): number {
    return Math.abs(this.#clock.nowMs() - this.#sinceMs)
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        timer[Symbol.dispose]()
        this.#signal.removeEventListener('abort', end)
        resolve()
      }
      const timer = this.#clock.timer(delayMs, end)
      this.#signal.addEventListener('abort', end)
      if (this.#signal.aborted) end()
    })
  }
}
