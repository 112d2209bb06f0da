import type { PlantedFault } from '../fault.js'

const RESTORE = { file: 'kms/restore.ts', test: 'kms/backup.test' }
const SWEPT = { test: 'faults/custody-sweep.test' }

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
    ...SWEPT,
    name: 'a backup is there before its receipt',
    file: 'kms/backup.ts',
    find: 'await recordBackup(options, keyring, sha256(bytes)) await publish(fs, dirname(path), basename(path), bytes)',
    put: 'await publish(fs, dirname(path), basename(path), bytes)\nawait recordBackup(options, keyring, sha256(bytes))',
  },
  {
    ...SWEPT,
    name: 'a restore writes over what is there, without fsync',
    file: 'kms/restore.ts',
    find: 'if (bytes !== undefined) await publish(fs, dirname(path), basename(path), bytes)',
    put: "if (bytes === undefined) return; const file = await fs.open(path, 'update'); await file.truncate(0); await file.write(bytes, 0); await file.close()",
  },
  {
    ...SWEPT,
    name: 'a restore leaves the keyring out',
    file: 'kms/restore.ts',
    find: "await put(keyringPath(place), parts.get('keyring'))",
    put: '',
  },
  {
    ...SWEPT,
    name: 'a restore leaves the log out',
    file: 'kms/restore.ts',
    find: "await put(join(place.directory, LEDGER_NAME), parts.get('ledger'))",
    put: '',
  },
  {
    ...SWEPT,
    name: 'keys leave the KMS by the receipt of something else',
    file: 'kms/break-glass.ts',
    find: "await receipts.record('break-glass', {",
    put: "await receipts.record('restore', {",
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
