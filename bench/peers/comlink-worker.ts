import { parentPort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'

const service = { echo: (bytes: Uint8Array): Uint8Array => bytes }
export type Service = typeof service

if (parentPort !== null) Comlink.expose(service, nodeEndpoint(parentPort))
