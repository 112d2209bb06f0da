import { FileLedger } from '../../kms/file-ledger.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import type { FileSystem } from '../../protocol/ports.js'
import type { Receipt } from '../../protocol/receipts.js'

/** What the log of the KMS in a directory holds of receipts, oldest first, each verified. */
export const receiptsIn = async (fs: FileSystem, directory: string): Promise<readonly Receipt[]> => {
  const known = await FileLedger.inspect(fs, directory)
  return (known?.receipts ?? []).map((signed) => {
    const receipt = known && openReceipt(known.identity, signed)
    if (receipt === undefined) throw new Error('a receipt is not signed')
    return receipt
  })
}
