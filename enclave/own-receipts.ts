import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { openReceipt } from '../protocol/crypto/receipts.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Receipt, ReceiptKind } from '../protocol/receipts.js'
import { equalHeads } from '../protocol/session.js'
import { isAhead, type Acknowledged } from '../protocol/statements.js'
import type { SessionAnswer } from './kms-session.js'

/** The newest, for the author. */
const KEPT_COUNT_MAX = 16

/** An answer that a receipt came with, and what it was an answer to. */
export interface Receipted {
  readonly kind: ReceiptKind
  readonly request: Uint8Array
  readonly answer: Pick<SessionAnswer, 'evidenceDigest'>
  /** Where the answer says which state it is of: the receipt is of that one. */
  readonly state?: Acknowledged | undefined
  /** Where it does not: a state that the flow has reached, which the receipt’s is not behind. */
  readonly reached?: Acknowledged | undefined
  readonly opened?: { readonly count: number; readonly digest: Bytes }
}

/** The receipts that came with the KMS’s answers. Each is checked before anything of its answer is used. */
export class OwnReceipts {
  readonly #of: { readonly kmsIdentity: Bytes; readonly flow: FlowId; readonly image: Bytes }
  #newest: readonly Bytes[] = []

  constructor(of: { readonly kmsIdentity: Bytes; readonly flow: FlowId; readonly image: Bytes }) {
    this.#of = of
  }

  /** Oldest first, KEPT_COUNT_MAX at most: private copies of body and signature. */
  newest(): Bytes[] {
    return this.#newest.map(copyBytes)
  }

  /**
   * Takes a receipt that the KMS signed for this image, flow, session and request, with what its answer says.
   * @throws {KeyriseError} ERR_KMS_UNTRUSTED.
   */
  take(claimed: Bytes, receipted: Receipted): void {
    const receipt = openReceipt(this.#of.kmsIdentity, claimed)
    const isOurs = receipt !== undefined && this.#isOfRequest(receipt, receipted) && saysWhatCame(receipt, receipted)
    if (!isOurs) throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: 'a receipt' })
    this.#newest = [...this.#newest, claimed].slice(-KEPT_COUNT_MAX)
  }

  #isOfRequest(receipt: Receipt, { kind, request, answer }: Receipted): boolean {
    return (
      receipt.kind === kind &&
      receipt.flow === this.#of.flow &&
      equalDigests(receipt.measurement, this.#of.image) &&
      equalDigests(receipt.evidenceDigest, answer.evidenceDigest) &&
      equalDigests(receipt.requestDigest, sha256(request))
    )
  }
}

const saysWhatCame = (receipt: Receipt, { state, reached, opened }: Receipted): boolean => {
  const said = stateOf(receipt)
  if (state !== undefined && !(said.incarnation === state.incarnation && equalHeads(said.head, state.head)))
    return false
  if (reached !== undefined && isAhead(reached, said)) return false
  return (
    opened === undefined || (receipt.openedCount === opened.count && equalDigests(receipt.openedDigest, opened.digest))
  )
}

const stateOf = ({ epoch, headDigest, incarnation = 0 }: Receipt): Acknowledged => ({
  head: epoch === undefined || headDigest === undefined ? null : { epoch, digest: headDigest },
  incarnation,
})

const equalDigests = (a: Uint8Array | undefined, b: Uint8Array): boolean => a !== undefined && equalPublicBytes(a, b)
