import type { PlantedFault } from '../fault.js'

const RESTORE = { file: 'kms/restore.ts', test: 'kms/backup.test' }

/** What operators may do, who has to agree to it, and what it leaves behind. */
export const CUSTODY: readonly PlantedFault[] = [
  {
    name: 'a backup leaves no receipt',
    file: 'kms/backup.ts',
    find: 'await recordBackup(options, keyring, sha256(bytes))',
    put: '',
    test: 'kms/backup.test',
    title: 'a backup leaves a receipt',
  },
  {
    ...RESTORE,
    name: 'what is newer is given up without the operator’s word',
    find: 'if (downgrades.length > 0 && !isDowngrade)',
    put: 'if (downgrades.length < 0 && !isDowngrade)',
    title: 'newer than it',
  },
  {
    ...RESTORE,
    name: 'a keyring that has changed and changed back counts as the same',
    find: 'lost.length > 0 || here.revision <= keyring.revision',
    put: 'lost.length >= 0 || here.revision <= keyring.revision',
    title: 'newer than it',
  },
  {
    name: 'the glass breaks without approvals',
    file: 'kms/break-glass.ts',
    find: 'if (approvers.length < needed)',
    put: 'if (approvers.length > needed)',
    test: 'kms/break-glass.test',
  },
  {
    name: 'an approval to break the glass is good for any reason',
    file: 'kms/approvals.ts',
    find: '&& request.reason === reason',
    put: '',
    test: 'kms/break-glass.test',
  },
  {
    name: 'a policy comes into force without approvals',
    file: 'kms/policy-in-force.ts',
    find: 'if (approvers.length < needed)',
    put: 'if (approvers.length > needed)',
    test: 'kms/policy-in-force.test',
  },
  {
    name: 'an enclave takes a flow over without the receipt of it',
    file: 'enclave/kms-client.ts',
    find: "request.op === 'commit' && this.#migratesFrom !== undefined",
    put: "request.op === 'commit' && this.#certificates.length === 0",
    test: 'enclave/flow-kms.test',
  },
  {
    name: 'a flow that was taken over still counts as another image’s',
    file: 'enclave/kms-client.ts',
    find: 'if (this.#migratesFrom === undefined) return',
    put: 'if (this.#certificates.length >= 0) return',
    test: 'enclave/flow-kms.test',
  },
]
