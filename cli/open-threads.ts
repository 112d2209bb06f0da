import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import type { OpenJob, TaskFailure, TaskRunner } from './open-tasks.js'

/** Beyond these the disk is the limit, and each thread takes a while to start. */
const THREAD_COUNT_MAX = 4
/** Signals, and threads that failed, are heard of so often. */
const TURN_TIMEOUT_MS = 20

/**
 * Threads that open one large file together: the calling one and, where the machine has more cores, workers, which start while
 * the calling one still loads what it takes to find the key. Plain workers and no Piscina: they share one counter and no message
 * passes until the end, so there is nothing for a pool to do.
 */
export class OpenThreads implements Disposable {
  readonly #workers: readonly Worker[]

  constructor() {
    const count = Math.min(THREAD_COUNT_MAX, availableParallelism()) - 1
    this.#workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL('./open-worker.js', import.meta.url))
      worker.unref()
      return worker
    })
  }

  /**
   * @param key - the payload key, 32 bytes, borrowed.
   * @param onProgress - told now and then how many bytes of plaintext were written, and at the end.
   * @returns the first failure; what was written until then is authentic and, to an ordered output, a beginning.
   */
  async run(
    job: Omit<OpenJob, 'control' | 'key'>,
    key: Uint8Array,
    onProgress: (sizeBytes: number) => void,
  ): Promise<TaskFailure | undefined> {
    const shared = new Uint8Array(new SharedArrayBuffer(key.length))
    shared.set(key)
    try {
      const { CELL_COUNT, TaskRunner } = await import('./open-tasks.js')
      const control = new SharedArrayBuffer(CELL_COUNT * Int32Array.BYTES_PER_ELEMENT)
      const whole = { ...job, control, key: shared.buffer }
      using runner = new TaskRunner(whole)
      return await this.#work(whole, runner, onProgress)
    } finally {
      shared.fill(0)
    }
  }

  async #work(
    job: OpenJob,
    runner: TaskRunner,
    onProgress: (sizeBytes: number) => void,
  ): Promise<TaskFailure | undefined> {
    const others = Promise.all(this.#workers.map((worker) => runOn(worker, job))).catch((error: unknown) => {
      // What the thread had taken will never be written: nobody may wait for it.
      runner.stop()
      throw error
    })
    // Until this thread has done its part, nobody listens to a thread that failed.
    others.catch(() => undefined)
    let resumedMs = performance.now()
    for (let state = runner.step(); state !== 'over'; state = runner.step()) {
      if (state === 'wait') runner.waitForTurn(TURN_TIMEOUT_MS)
      if (performance.now() - resumedMs < TURN_TIMEOUT_MS) continue
      onProgress(runner.writtenSizeBytes)
      await setImmediate()
      resumedMs = performance.now()
    }
    const failures = [...(await others), runner.failure].filter((failure) => failure !== undefined)
    onProgress(runner.writtenSizeBytes)
    if (failures.length === 0 && !runner.isFinished) throw new Error('A task was lost')
    return failures.reduce<TaskFailure | undefined>(
      (first, one) => (first && first.task < one.task ? first : one),
      undefined,
    )
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) void worker.terminate()
  }
}

const runOn = (worker: Worker, job: OpenJob): Promise<TaskFailure | undefined> =>
  new Promise((resolve, reject) => {
    worker.ref()
    worker.once('message', ({ failure }: { failure: TaskFailure | undefined }) => resolve(failure))
    worker.once('error', reject)
    worker.once('exit', () => reject(new Error('A thread ended early')))
    worker.postMessage(job)
  })
