import type { Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Clock } from '../protocol/ports.js'
import { decodeReceiptBody, splitReceipt, type Receipt } from '../protocol/receipts.js'
import { FileLedger } from './file-ledger.js'
import { openKeyring, type PlaceOptions } from './place.js'
import { checkReason } from './reason.js'
import { fieldsOfState, Receipts } from './receipts.js'

export interface AcceptStaleOptions extends PlaceOptions {
  readonly clock: Clock
  readonly flow: FlowId
  /** Why; 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
}

/** The receipt of an acceptance: its epoch and incarnation are those that are given up. */
export interface StaleReceipt extends Receipt {
  /** By the KMS identity, 64 bytes. */
  readonly signature: Bytes
}

/**
 * An operator's word, for disaster recovery: the next recovery of a flow takes what its store shows where that is not the state
 * that the ledger knows. It serves until the flow's head has moved, or a recovery found the ledger's own state after all. Takes the
 * ledger, as a start does: a KMS that runs on it answers nothing more until it is started again.
 * @returns the receipt, which the ledger's log now holds.
 * @throws {KeyriseError} as `openKeyring` and `FileLedger.open`; ERR_CONFIG_INVALID: a reason of another length, or a flow that
 * this ledger does not know; ERR_FLOW_DESTROYED.
 * Crash: the acceptance is there or it is not.
 */
export const acceptStale = async (options: AcceptStaleOptions): Promise<StaleReceipt> => {
  const { place, fs, clock, flow, reason } = options
  checkReason(reason)
  using keyring = await openKeyring(options)
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  try {
    const state = await ledger.read(flow)
    if (state === undefined)
      throw new KeyriseError('ERR_CONFIG_INVALID', {
        detail: `the ledger does not know ${flow}: launch its enclave once, which is refused, so that it does`,
      })
    if (state.destroyed) throw new KeyriseError('ERR_FLOW_DESTROYED', { detail: flow })
    const receipts = new Receipts({ ledger, signer: keyring, clock })
    const draft = receipts.draft('override', { flow, ...fieldsOfState(state), reason })
    await ledger.compareAndSwap(flow, state, { ...state, staleAccepted: true }, draft.make)
    const { body, signature } = splitReceipt(draft.signed())
    return { ...decodeReceiptBody(body), signature }
  } finally {
    await ledger.close()
  }
}
