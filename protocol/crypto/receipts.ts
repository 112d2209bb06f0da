import { equalPublicBytes } from '../bytes.js'
import { decodeReceiptBody, splitReceipt, type Receipt } from '../receipts.js'
import { verifyEd25519 } from './keys.js'

/**
 * What a receipt says, where the KMS of `identity` signed it; else undefined.
 * @param identity - Ed25519, 32 bytes. @param claimed - body and signature.
 */
export const openReceipt = (identity: Uint8Array, claimed: Uint8Array): Receipt | undefined => {
  try {
    const { body, signature } = splitReceipt(claimed)
    if (!verifyEd25519(identity, body, signature)) return undefined
    const receipt = decodeReceiptBody(body)
    return equalPublicBytes(receipt.kms, identity) ? receipt : undefined
  } catch {
    return undefined
  }
}
