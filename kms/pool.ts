import { createSecretKey } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { KeyriseError } from '../protocol/errors.js'
import { parseFlowId } from '../protocol/names.js'
import { permissionFlags } from './permissions.js'
import { joinUnsealed, type Unsealed, type Unsealer, type UnsealKeys, type UnsealTask } from './unseal.js'

/** A part keeps a worker busy for a few milliseconds: long against its dispatch, short for those who wait. */
const PART_COUNT_MAX = 256
const PART_SIZE_BYTES_MAX = 4 * 1024 * 1024
const QUEUE_COUNT_MAX = 4096

/** For one part, its wait in the queue included: shorter than a client’s patience. */
const PART_MS_MAX = 20_000

export interface PoolOptions {
  readonly threadCount?: number
  /** Parts that may wait, of all requests. */
  readonly queueCountMax?: number
}

/** Unseals on worker threads that hold the private keys as KeyObjects and may read nothing but their own code. */
export class UnsealPool implements Unsealer {
  readonly #pool: Piscina<UnsealTask, Unsealed>
  readonly #queueCountMax: number

  private constructor(keys: UnsealKeys, { threadCount = 2, queueCountMax = QUEUE_COUNT_MAX }: PoolOptions) {
    this.#queueCountMax = queueCountMax
    this.#pool = new Piscina({
      filename: fileURLToPath(new URL('pool-entry.cjs', import.meta.url)),
      minThreads: threadCount,
      maxThreads: threadCount,
      maxQueue: queueCountMax,
      env: {},
      execArgv: permissionFlags(),
      workerData: keys,
    })
    // A worker that dies rejects its task, and the task is repeated; without a listener the process would end.
    this.#pool.on('error', () => undefined)
  }

  /** Resolves once every worker has answered. @throws {KeyriseError} ERR_KMS_FAILED: they do not start. */
  static async start(keys: UnsealKeys, options: PoolOptions = {}): Promise<UnsealPool> {
    let pool: UnsealPool | undefined
    try {
      const started = (pool = new UnsealPool(keys, options))
      // Each of them is idle, so each gets one.
      await Promise.all(Array.from({ length: started.#pool.maxThreads }, () => started.#attempt(NO_TASK)))
      return started
    } catch (cause) {
      await pool?.close()
      throw new KeyriseError('ERR_KMS_FAILED', { detail: 'a pool worker does not start', cause })
    }
  }

  async unseal(task: UnsealTask): Promise<Unsealed> {
    const parts = split(task)
    if (this.#pool.queueSize + parts.length > this.#queueCountMax) throw new KeyriseError('ERR_CALLS_LIMIT')
    const settled = await Promise.allSettled(parts.map((part) => this.#run(part)))
    const done = settled.flatMap((part) => (part.status === 'fulfilled' ? [part.value] : []))
    const unsealed = joinUnsealed(done)
    if (done.length === parts.length) return unsealed
    unsealed.secrets.fill(0)
    throw new KeyriseError('ERR_KMS_FAILED', { detail: 'a pool worker died, or took too long' })
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  /** A task changes nothing, so one whose worker died is safe to repeat. */
  async #run(part: UnsealTask): Promise<Unsealed> {
    try {
      return await this.#attempt(part)
    } catch (error) {
      if (error instanceof Error && error.name === 'AbortError') throw error
      return this.#attempt(part)
    }
  }

  /** With a deadline: Piscina lets tasks wait for ever when new workers fail to start. */
  async #attempt(part: UnsealTask): Promise<Unsealed> {
    const deadline = new AbortController()
    const timer = setTimeout(() => {
      deadline.abort()
    }, PART_MS_MAX)
    try {
      return await this.#pool.run(part, { signal: deadline.signal })
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Opens nothing: its answer shows that a worker runs. */
const NO_TASK: UnsealTask = {
  kind: 'unwrap',
  items: [],
  flow: parseFlowId('none'),
  image: new Uint8Array(32),
  originKey: createSecretKey(new Uint8Array(32)),
}

/** Parts of a task, in order. */
const split = (task: UnsealTask): UnsealTask[] => {
  const parts: UnsealTask['items'][number][][] = []
  let sizeBytes = 0
  for (const item of task.items) {
    const last = parts.at(-1)
    if (last === undefined || last.length >= PART_COUNT_MAX || sizeBytes + item.length > PART_SIZE_BYTES_MAX) {
      parts.push([item])
      sizeBytes = item.length
    } else {
      last.push(item)
      sizeBytes += item.length
    }
  }
  return parts.map((items) => ({ ...task, items }))
}
