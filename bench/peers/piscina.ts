import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import type { Caller } from './callers.js'

/** More than are ever in flight: with fewer, a task waits for its turn on this side. */
const TASK_COUNT_MAX = 2048

/**
 * Piscina 5 with one thread. `sync` answers a single call soonest and keeps one task in flight; `async` is its fastest with many.
 */
export const piscinaCaller = (atomics: 'sync' | 'async'): Promise<Caller> => {
  const pool = new Piscina<Uint8Array, Uint8Array>({
    filename: fileURLToPath(new URL('piscina-worker.js', import.meta.url)),
    minThreads: 1,
    maxThreads: 1,
    idleTimeout: Infinity,
    atomics,
    concurrentTasksPerWorker: atomics === 'sync' ? 1 : TASK_COUNT_MAX,
  })
  return Promise.resolve({
    name: 'Piscina',
    call: (bytes) => pool.run(bytes),
    async [Symbol.asyncDispose]() {
      await pool.destroy()
    },
  })
}
