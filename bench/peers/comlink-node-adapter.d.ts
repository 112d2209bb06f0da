/** Comlink ships this file’s types beside it under a name that the compiler does not look for. */
declare module 'comlink/dist/esm/node-adapter.mjs' {
  import type { Endpoint } from 'comlink'
  import type { MessagePort, Worker } from 'node:worker_threads'
  export default function nodeEndpoint(end: MessagePort | Worker): Endpoint
}
