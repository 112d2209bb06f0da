import { FileLedger, type Inspected } from '../kms/file-ledger.js'
import { KeyriseError } from '../protocol/errors.js'
import { nodeFileSystem } from '../storage/index.js'

/** What the ledger in a KMS’s directory says, whether the KMS runs or not. @throws {KeyriseError} ERR_LEDGER_MISSING, ERR_LEDGER_DAMAGED. */
export const inspectLedger = async (directory: string): Promise<Inspected> => {
  const ledger = await FileLedger.inspect(nodeFileSystem, directory)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: directory })
  return ledger
}
