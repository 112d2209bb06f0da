import type { MessagePort } from 'node:worker_threads'
import type { Endpoint } from 'comlink'

/** Comlink’s end of a port of Node’s, as its own adapter makes it. */
export const endpointOf = (port: MessagePort): Endpoint => ({
  postMessage: (message: unknown, transfer?: unknown) => port.postMessage(message, transfer as ArrayBuffer[]),
  addEventListener: (_type: string, listener: unknown) => {
    port.on('message', (data: unknown) => (listener as (event: { data: unknown }) => void)({ data }))
  },
  removeEventListener: () => {},
  // A Worker, which is a port too, has none.
  start: () => (port as Partial<MessagePort>).start?.(),
})
