import type { CheckpointValue, EntryName, Flow } from 'keyrise/enclave'
import { refuse } from 'keyrise/enclave'
import { randomFillSync } from 'node:crypto'
import type { Receipt, Terms } from './messages.js'
import { COMMITMENT_KEY, commitmentOf } from './receipts.js'

/** How both enclaves keep their entries. */

export type Entries = Record<EntryName, CheckpointValue>

export const randomBytes = (size: number): Uint8Array<ArrayBuffer> =>
  randomFillSync(new Uint8Array(new ArrayBuffer(size)))

/** The entry, which an earlier step must have stored. */
export const required = async (flow: Flow, name: EntryName): Promise<Uint8Array> =>
  (await flow.read(name)) ?? refuse('not-ready')

const commitTo = (key: Uint8Array, name: string, value: CheckpointValue): Receipt => ({
  name,
  commitment: commitmentOf(key, name, value instanceof Uint8Array ? value : value.bytes),
})

/** Receipts for entries that are stored already, the same as when they were. */
export const receiptsOf = async (flow: Flow, names: readonly EntryName[]): Promise<Receipt[]> => {
  const key = await required(flow, COMMITMENT_KEY)
  return Promise.all(names.map(async (name) => commitTo(key, name, await required(flow, name))))
}

/** Stores `entries` in one checkpoint, all or none, and gives receipts for them. */
export const store = async (flow: Flow, entries: Entries): Promise<Receipt[]> => {
  await flow.checkpoint(entries)
  const key = await required(flow, COMMITMENT_KEY)
  return Object.entries(entries).map(([name, value]) => commitTo(key, name, value))
}

/** Names and numbers that everyone knows: stored to survive, not to be secret. */
export const TERMS: EntryName = 'interaction-id/terms'
export const encodeTerms = (terms: Terms): Uint8Array => Buffer.from(JSON.stringify(terms))
export const readTerms = async (flow: Flow): Promise<Terms> =>
  JSON.parse(Buffer.from(await required(flow, TERMS)).toString()) as Terms
