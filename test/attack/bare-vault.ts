import { createHash, randomFillSync } from 'node:crypto'
import { parentPort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { endpointOf } from './bare-endpoint.js'

/** The control of the attacks on the KMS's side: a worker that believes whoever answers. */
if (parentPort === null) throw new Error('This module is started as a worker')
const answers = new Map<string, Uint8Array>()
let total = 0
let key = new Uint8Array(32)
const vault = {
  /** The key that the "KMS" gives back, as the host relays it. */
  recover: (relayed: Uint8Array): void => {
    key = Uint8Array.from(relayed)
  },
  /** What is sealed under it: known to whoever knows the key. */
  seal: (): string => createHash('sha256').update(key).digest('hex'),
  answer: (round: string): Uint8Array => {
    const given = answers.get(round) ?? randomFillSync(new Uint8Array(32))
    answers.set(round, given)
    return given
  },
  count: (): number => ++total,
  /** The peers' keys, as the host relays them. */
  peerKey: (relayed: Uint8Array): Uint8Array => relayed,
}
Comlink.expose(vault, endpointOf(parentPort))
