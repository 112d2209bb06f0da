import { createSecretKey } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import type { Bytes } from '../protocol/bytes.js'
import { copyInto } from '../protocol/crypto/shared-memory.js'
import { KeyriseError } from '../protocol/errors.js'
import { makeSegmentReply } from '../protocol/kms.js'
import { parseFlowId } from '../protocol/names.js'
import { openOnLanes, type SharedPayload } from './open-payload.js'
import { permissionFlags } from './permissions.js'
import { slotAreas, type OpenTask, type ResealTask } from './reseal.js'
import { Slots } from './slots.js'
import {
  joinOpened,
  type OpenedItems,
  type Resealed,
  type SegmentRequest,
  type Unsealed,
  type Unsealer,
  type UnsealKeys,
  type UnsealTask,
} from './unseal.js'
import { split, type UnsealPart } from './unseal-part.js'

const QUEUE_COUNT_MAX = 4096
/** For each thread one that it works in and one that is filled or emptied meanwhile. */
const SLOTS_PER_THREAD = 2
/** Segments that wait for a slot hold a megabyte each. */
const SEGMENT_QUEUE_COUNT_MAX = 24

/** For one part, its waits in the queue included: shorter than a client’s patience. */
const PART_MS_MAX = 20_000
/** For the first answer of every worker, on a machine that is busy with something else. */
const START_MS_MAX = 60_000
/** When every worker is killed at once, a task may be handed to each before that is known; and that may happen again. */
const ATTEMPT_COUNT_MAX = 8
const RESTART_MS = 50

export interface PoolOptions {
  readonly threadCount?: number
  /** Parts that may wait, of all requests. */
  readonly queueCountMax?: number
  /** Segments that may wait, of all streams. */
  readonly segmentQueueCountMax?: number
}

type Task = UnsealPart | OpenTask | ResealTask
interface Results {
  unwrap: OpenedItems
  stream: OpenedItems
  open: boolean
  reseal: Bytes | undefined
}

/** Unseals on worker threads that hold the private keys as KeyObjects and may read nothing but their own code. */
export class UnsealPool implements Unsealer {
  readonly #pool: Piscina<Task, Results[Task['kind']]>
  readonly #keys: UnsealKeys
  readonly #queueCountMax: number
  readonly #slots: Slots
  #underWayCount = 0

  private constructor(keys: UnsealKeys, options: PoolOptions) {
    const { threadCount = 2, queueCountMax = QUEUE_COUNT_MAX, segmentQueueCountMax = SEGMENT_QUEUE_COUNT_MAX } = options
    this.#keys = keys
    this.#queueCountMax = queueCountMax
    this.#slots = new Slots({ count: threadCount * SLOTS_PER_THREAD, waitingCountMax: segmentQueueCountMax })
    this.#pool = new Piscina({
      filename: fileURLToPath(new URL('pool-entry.cjs', import.meta.url)),
      minThreads: threadCount,
      maxThreads: threadCount,
      maxQueue: queueCountMax,
      // A worker sleeps between two tasks, and is woken without a turn of its event loop.
      atomics: 'sync',
      concurrentTasksPerWorker: 1,
      recordTiming: false,
      env: {},
      execArgv: permissionFlags(),
      workerData: keys,
    })
    // A worker that dies rejects its task, and the task is repeated; without a listener the process would end.
    this.#pool.on('error', () => undefined)
    this.#pool.on('workerDestroy', () => setTimeout(() => this.#restart(), RESTART_MS).unref())
  }

  /** Resolves once every worker has answered. @throws {KeyriseError} ERR_KMS_FAILED: they do not start. */
  static async start(keys: UnsealKeys, options: PoolOptions = {}): Promise<UnsealPool> {
    let pool: UnsealPool | undefined
    try {
      const started = (pool = new UnsealPool(keys, options))
      // Each of them is idle, so each gets one.
      await Promise.all(
        Array.from({ length: started.#pool.maxThreads }, () =>
          started.#run(NO_TASK, { attemptCountMax: 1, msMax: START_MS_MAX }),
        ),
      )
      return started
    } catch (cause) {
      await pool?.close()
      throw new KeyriseError('ERR_KMS_FAILED', { detail: 'a pool worker does not start', cause })
    }
  }

  get queueCount(): number {
    return this.#pool.queueSize
  }

  async unseal(task: UnsealTask): Promise<Unsealed> {
    const parts = split(task)
    if (this.#pool.queueSize + parts.length > this.#queueCountMax) throw new KeyriseError('ERR_CALLS_LIMIT')
    const settled = await Promise.allSettled(parts.map((part) => this.#run(part)))
    const done = settled.flatMap((part) => (part.status === 'fulfilled' ? [part.value.result] : []))
    const unsealed = joinOpened(this.#keys, done)
    if (done.length === parts.length) return unsealed
    unsealed.secrets.fill(0)
    throw lost()
  }

  async reseal({ segment, sealed, known, writeKeys }: SegmentRequest): Promise<Resealed> {
    const slot = await this.#slots.take()
    let isSound = true
    try {
      const areas = slotAreas(slot)
      writeKeys(areas.keys)
      copyInto(areas.sealed, sealed)
      isSound = false
      const { result: digest, isRepeated } = await this.#run({ kind: 'reseal', slot, segment, known })
      isSound = !isRepeated
      if (digest === undefined) throw new KeyriseError('ERR_ENVELOPE_INVALID')
      const { frame, delivered } = makeSegmentReply(segment.deliveredSizeBytes)
      copyInto(delivered, areas.delivered.subarray(0, delivered.length))
      return { digest, reply: frame }
    } finally {
      this.#slots.give(slot, isSound)
    }
  }

  /**
   * Opens a whole payload from shared memory into shared memory, on all threads at once, its last chunk first: only that one tells
   * a whole payload from a cut one. Where it fails or is cancelled, `into` is zeroes.
   * @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED, where it can be told; ERR_PAYLOAD_INVALID; ERR_KMS_FAILED; the signal’s reason.
   */
  async openPayload(payload: SharedPayload, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await openOnLanes(payload, {
      laneCount: this.#pool.maxThreads * 2,
      open: async (task) => (await this.#run(task)).result,
      ...options,
    })
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  /**
   * A task changes nothing, so one whose worker died is safe to repeat. It has a deadline: Piscina lets tasks wait for ever when
   * new workers fail to start.
   * @throws {KeyriseError} ERR_KMS_FAILED.
   */
  async #run<T extends Task>(
    task: T,
    { attemptCountMax = ATTEMPT_COUNT_MAX, msMax = PART_MS_MAX } = {},
  ): Promise<{ result: Results[T['kind']]; isRepeated: boolean }> {
    const deadline = new AbortController()
    const timer = setTimeout(() => deadline.abort(), msMax)
    this.#underWayCount++
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          const result = await this.#pool.run(task, { signal: deadline.signal })
          return { result: result as Results[T['kind']], isRepeated: attempt > 1 }
        } catch (cause) {
          if (deadline.signal.aborted || attempt === attemptCountMax) throw lost(cause)
        }
      }
    } finally {
      this.#underWayCount--
      clearTimeout(timer)
    }
  }

  /**
   * Piscina replaces a worker that dies, but for one that dies before it is ready: then what waits would wait for the next task
   * that is asked for, which makes it start others. So one is asked for.
   */
  #restart(): void {
    if (this.#underWayCount === 0 || this.#pool.threads.length === this.#pool.maxThreads) return
    this.#pool.run(NO_TASK, { signal: AbortSignal.timeout(PART_MS_MAX) }).catch(() => undefined)
  }
}

const lost = (cause?: unknown): KeyriseError =>
  new KeyriseError('ERR_KMS_FAILED', { detail: 'a pool worker died, or took too long', cause })

/** Opens nothing: its answer shows that a worker runs. */
const NO_TASK: UnsealPart = {
  kind: 'unwrap',
  headers: new Uint8Array(0),
  sizes: new Uint32Array(0),
  flow: parseFlowId('none'),
  image: new Uint8Array(32),
  originKey: createSecretKey(new Uint8Array(32)),
}
