import { randomFillSync } from 'node:crypto'
import { parentPort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { endpointOf } from './bare-endpoint.js'
import { COPY_COUNT, keeperOf } from './keeper.js'
import { CANARY_SIZE_BYTES } from './mask.js'

/** The control of every attack: a plain worker thread around the same code, with its key in the ways that are at hand. */
if (parentPort === null) throw new Error('This module is started as a worker')
const key = randomFillSync(Buffer.allocUnsafe(CANARY_SIZE_BYTES))
/** One for each task, and never zero-filled. */
const copies = Array.from({ length: COPY_COUNT }, () => {
  const copy = new Uint8Array(new ArrayBuffer(CANARY_SIZE_BYTES))
  copy.set(key)
  return copy
})
/** Asks the host, and believes it. */
const consult = async (question: unknown, ask: (question: unknown) => Promise<unknown>): Promise<unknown> => {
  keeper.increment()
  return ask(question)
}
const keeper = {
  ...keeperOf(key),
  key,
  keyText: key.toString('hex'),
  keyNumber: BigInt(`0x${key.toString('hex')}`),
  copies,
  consult,
}
Comlink.expose(keeper, endpointOf(parentPort))
