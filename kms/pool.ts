import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { KeyriseError } from '../protocol/errors.js'
import { permissionFlags } from './permissions.js'
import { joinUnsealed, type Unsealed, type Unsealer, type UnsealKeys, type UnsealTask } from './unseal.js'

/** A part keeps a worker busy for a few milliseconds: long against its dispatch, short for those who wait. */
const PART_COUNT_MAX = 256
const PART_SIZE_BYTES_MAX = 4 * 1024 * 1024
const QUEUE_COUNT_MAX = 4096

/** Unseals on worker threads that hold the private keys as KeyObjects and may read nothing but their own code. */
export class UnsealPool implements Unsealer {
  readonly #pool: Piscina<UnsealTask, Unsealed>

  readonly #queueCountMax: number

  /** @param options.queueCountMax - parts that may wait, of all requests. */
  constructor(keys: UnsealKeys, options: { readonly threadCount?: number; readonly queueCountMax?: number } = {}) {
    const { threadCount = 2, queueCountMax = QUEUE_COUNT_MAX } = options
    this.#queueCountMax = queueCountMax
    this.#pool = new Piscina({
      filename: fileURLToPath(new URL('pool-worker.js', import.meta.url)),
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

  async unseal(task: UnsealTask): Promise<Unsealed> {
    const parts = split(task)
    if (this.#pool.queueSize + parts.length > this.#queueCountMax) throw new KeyriseError('ERR_CALLS_LIMIT')
    const settled = await Promise.allSettled(parts.map((part) => this.#run(part)))
    const done = settled.flatMap((part) => (part.status === 'fulfilled' ? [part.value] : []))
    const unsealed = joinUnsealed(done)
    if (done.length === parts.length) return unsealed
    unsealed.secrets.fill(0)
    throw new KeyriseError('ERR_KMS_FAILED', { detail: 'a pool worker died' })
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }

  /** A task changes nothing, so one whose worker died is safe to repeat. */
  async #run(part: UnsealTask): Promise<Unsealed> {
    try {
      return await this.#pool.run(part)
    } catch {
      return this.#pool.run(part)
    }
  }
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
