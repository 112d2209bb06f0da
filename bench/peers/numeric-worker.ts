import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { MessageChannel, Worker, type WorkerOptions } from 'node:worker_threads'
import { bundle } from '../../platform/bundle.js'
import type { NumericWork } from '../rows/numeric.js'
import type { NumericRequest } from './numeric-service.js'

/** Bundled as an image is, but for what hardens it. @param before - modules that run before all else. */
export const numericScript = async (...before: readonly URL[]): Promise<string> => {
  const service = fileURLToPath(new URL('numeric-service.js', import.meta.url))
  const contents = [
    ...before.map((module) => `import ${JSON.stringify(fileURLToPath(module))}`),
    "import { workerData } from 'node:worker_threads'",
    `import { serveNumeric } from ${JSON.stringify(service)}`,
    'serveNumeric(workerData)',
  ]
  const { source } = await bundle(contents.join('\n'), fileURLToPath(new URL('.', import.meta.url)))
  return source
}

/** A worker that is no enclave and does the work of P12. */
export class NumericWorker implements AsyncDisposable {
  readonly #worker: Worker
  readonly #port: MessageChannel['port1']

  private constructor(worker: Worker, port: MessageChannel['port1']) {
    this.#worker = worker
    this.#port = port
  }

  /** Resolves when the script is ready to work. */
  static async start(script: string, options: WorkerOptions = {}): Promise<NumericWorker> {
    const { port1, port2 } = new MessageChannel()
    const worker = new Worker(script, { ...options, eval: true, workerData: port2, transferList: [port2] })
    const failed = once(worker, 'exit').then(() => Promise.reject(new Error('The numeric worker ended')))
    failed.catch(() => undefined)
    await Promise.race([once(port1, 'message'), failed])
    return new NumericWorker(worker, port1)
  }

  async work(name: NumericWork, count: number): Promise<number> {
    const answered = once(this.#port, 'message') as Promise<[number]>
    this.#port.postMessage({ name, count } satisfies NumericRequest)
    const [answer] = await answered
    return answer
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
    this.#port.close()
  }
}
