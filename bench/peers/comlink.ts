import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import type { Caller } from './callers.js'
import type { Service } from './comlink-worker.js'

/** Bare Comlink 4: `wrap` here and `expose` in a worker, by its own adapter for Node. */
export const comlinkCaller = async (): Promise<Caller> => {
  const worker = new Worker(new URL('comlink-worker.js', import.meta.url))
  await once(worker, 'online')
  const service = Comlink.wrap<Service>(nodeEndpoint(worker))
  return {
    name: 'bare Comlink',
    call: (bytes) => service.echo(bytes),
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}
