import { createHmac } from 'node:crypto'

/**
 * A commitment to an entry that gives nothing away without `key`, which itself is one of the flow's secrets: published when
 * the entry is stored, checked by whoever opens custody in the end. So a lost or changed secret can't go unnoticed.
 */
export const COMMITMENT_KEY = 'business-key/commitment'

export const commitmentOf = (key: Uint8Array, name: string, value: Uint8Array): Uint8Array<ArrayBuffer> =>
  new Uint8Array(createHmac('sha256', key).update(`${name}\0`).update(value).digest())
