import { KeyriseError } from '../protocol/errors.js'
import { REASON_LENGTH_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { Clock } from '../protocol/ports.js'
import { encodeStaleAcceptance } from '../protocol/statements.js'
import { FileLedger, type StaleReceipt } from './file-ledger.js'
import { openKeyring, type PlaceOptions } from './place.js'

export interface AcceptStaleOptions extends PlaceOptions {
  readonly clock: Clock
  readonly flow: FlowId
  /** Why; 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
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
  if (reason.trim() === '' || reason.length > REASON_LENGTH_MAX)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `a reason of 1 to ${REASON_LENGTH_MAX} characters` })
  using keyring = await openKeyring(options)
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  try {
    const state = await ledger.read(flow)
    if (state === undefined)
      throw new KeyriseError('ERR_CONFIG_INVALID', {
        detail: `the ledger does not know ${flow}: launch its enclave once, which is refused, so that it does`,
      })
    if (state.destroyed) throw new KeyriseError('ERR_FLOW_DESTROYED', { detail: flow })
    const { head, incarnation } = state
    const acceptance = { flow, reason, timeMs: Math.max(0, Math.trunc(clock.nowMs())), head, incarnation }
    const receipt = { ...acceptance, signature: keyring.sign(encodeStaleAcceptance(acceptance)) }
    await ledger.acceptStale(receipt)
    return receipt
  } finally {
    await ledger.close()
  }
}
