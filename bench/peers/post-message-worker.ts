import { parentPort } from 'node:worker_threads'
import type { NumberedMessage } from './post-message.js'

parentPort?.on('message', ({ id, bytes }: NumberedMessage) => {
  parentPort?.postMessage({ id, bytes } satisfies NumberedMessage)
})
