import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { PendingCalls, type Caller } from './callers.js'

/** A numbered message each way. */
export interface NumberedMessage {
  readonly id: number
  readonly bytes: Uint8Array
}

/** `postMessage` both ways, with no more than it takes to tell one answer from another. Nothing is checked. */
export const postMessageCaller = async (): Promise<Caller> => {
  const worker = new Worker(new URL('post-message-worker.js', import.meta.url))
  await once(worker, 'online')
  const pending = new PendingCalls()
  worker.on('message', ({ id, bytes }: NumberedMessage) => pending.settle(id, bytes))
  return {
    name: 'raw postMessage',
    call: (bytes) => pending.make((id) => worker.postMessage({ id, bytes } satisfies NumberedMessage)),
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}
