import type { PlantedFault } from '../fault.js'

const OWN = { file: 'enclave/own-receipts.ts', test: 'enclave/flow-kms.test' }
const CHECK = { file: 'kms/check-receipts.ts', test: 'kms/check-receipts.test' }
const LOG = { file: 'kms/file-ledger.ts', test: 'kms/receipts.test' }

/** What a KMS signs for, and who finds out where it did not. */
export const RECEIPTS: readonly PlantedFault[] = [
  {
    ...OWN,
    name: 'an enclave takes the receipt of another request',
    find: 'equalDigests(receipt.requestDigest, sha256(request))',
    put: 'sha256(request).length > 0',
  },
  {
    ...OWN,
    name: 'an enclave takes a receipt of a state that is left behind',
    find: 'if (reached !== undefined && isAhead(reached, said)) return false',
    put: 'if (reached !== undefined && isAhead(reached, reached)) return false',
  },
  {
    ...CHECK,
    name: 'a receipt’s link to the one before is not compared',
    find: '!equalPublicBytes(receipt.previous, previous)',
    put: '!equalPublicBytes(previous, previous)',
  },
  {
    ...CHECK,
    name: 'numbers that are left out are not missed',
    find: 'if (sequence > this.#next.sequence) this.#gaps.push',
    put: 'if (sequence < this.#next.sequence) this.#gaps.push',
  },
  {
    ...LOG,
    name: 'a log goes on behind receipts that do not follow each other',
    find: 'stated?.sequence === link.sequence && equalPublicBytes(stated.previous, link.previous)',
    put: 'stated !== undefined',
  },
  {
    ...LOG,
    name: 'the newest receipt of a log may be anybody’s',
    find: 'if (!verifyEd25519(identity, body, signature)) throw',
    put: 'if (!verifyEd25519(identity, body, signature) && body.length === 0) throw',
  },
  {
    file: 'kms/denials.ts',
    test: 'kms/session-receipts.test',
    name: 'denials leave receipts without end',
    find: 'if (this.#tokenCount === 0) return false',
    put: 'if (this.#tokenCount === 0) return true',
  },
]
