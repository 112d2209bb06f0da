import type { Bytes } from '../protocol/bytes.js'
import type { Clock } from '../protocol/ports.js'
import {
  encodeReceiptBody,
  joinReceipt,
  type Receipt,
  type ReceiptFields,
  type ReceiptKind,
} from '../protocol/receipts.js'
import type { Acknowledged } from '../protocol/statements.js'
import type { Keyring } from './keyring.js'
import type { Ledger } from './ledger.js'
import type { MakeReceipt } from './log.js'

/** Who signs receipts, and by which clock. */
export interface ReceiptSigner {
  /** Whose receipts they are: the KMS identity, 32 bytes, and Ed25519 by it, 64 bytes. */
  readonly signer: Pick<Keyring, 'identity' | 'sign'>
  readonly clock: Pick<Clock, 'nowMs'>
}

export interface ReceiptsOptions extends ReceiptSigner {
  /** Whose log holds them. */
  readonly ledger: Pick<Ledger, 'record'>
}

/** A receipt that is yet to be written, with a swap of the ledger or alone. */
export interface ReceiptDraft {
  readonly make: MakeReceipt
  /** The receipt, once it is durable. */
  signed(): Bytes
}

/** Signs what a KMS did and refused, and keeps it in the one log that the ledger is. */
export class Receipts {
  readonly #options: ReceiptsOptions

  constructor(options: ReceiptsOptions) {
    this.#options = options
  }

  /**
   * @returns the receipt, body and signature, which is durable.
   * @throws {KeyriseError} as `Ledger.record`; ERR_SIZE_LIMIT: its fields take more than RECEIPT_SIZE_BYTES_MAX.
   */
  async record(kind: ReceiptKind, fields: ReceiptFields = {}): Promise<Bytes> {
    const draft = this.draft(kind, fields)
    await this.#options.ledger.record(draft.make)
    return draft.signed()
  }

  /** For `Ledger.compareAndSwap`, so that the swap and its receipt are durable together. */
  draft(kind: ReceiptKind, fields: ReceiptFields): ReceiptDraft {
    return draftReceipt(this.#options, kind, fields)
  }
}

/** A receipt for whoever writes it: a ledger, or the first frame of one. */
export const draftReceipt = (
  { signer, clock }: ReceiptSigner,
  kind: ReceiptKind,
  fields: ReceiptFields,
): ReceiptDraft => {
  const timeMs = Math.max(0, Math.trunc(clock.nowMs()))
  let signed: Bytes | undefined
  return {
    make: (link) => {
      const receipt: Receipt = { ...fields, ...link, kms: signer.identity, timeMs, kind }
      const body = encodeReceiptBody(receipt)
      return (signed = joinReceipt(body, signer.sign(body)))
    },
    signed: () => {
      if (signed === undefined) throw new Error('A receipt was taken before it was written')
      return signed
    },
  }
}

/** Of a flow's state, what its receipts say. */
export const fieldsOfState = ({ head, incarnation }: Acknowledged): ReceiptFields => ({
  incarnation,
  ...(head === null ? {} : { epoch: head.epoch, headDigest: head.digest }),
})
