import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { FileLedger } from '../kms/file-ledger.js'
import { nodeFileSystem } from '../storage/index.js'
import { addAcceptStaleCommand } from './accept-stale.js'
import { addBreakGlassCommand } from './break-glass-command.js'
import { addConsoleCommand } from './console-command.js'
import { addControlCommands } from './control-commands.js'
import { addBackupCommands } from './custody-backup.js'
import { addInitCommand } from './custody-init.js'
import { addStatusCommand } from './custody-status.js'
import { addKeyCommands } from './key-commands.js'
import { addRotationCommands } from './rotation-commands.js'
import { addServeCommand } from './serve-command.js'
import { printResult } from './terminal.js'

/** `keyrise kms …` */
export const addKmsCommands = (kms: Command): void => {
  addInitCommand(kms)
  addServeCommand(kms)
  addBackupCommands(kms)
  addBreakGlassCommand(kms)
  addStatusCommand(kms)
  addControlCommands(kms)
  addAcceptStaleCommand(kms)
  addConsoleCommand(kms)
  addRotationCommands(kms)
  addKeyCommands(kms)
  kms
    .command('identity')
    .description('print the identity that enclaves trust; needs no passphrase')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--json', 'print one JSON object')
    .action(identity)
}

const identity = async (flags: { readonly directory: string; readonly json?: boolean }): Promise<void> => {
  const ledger = await FileLedger.inspect(nodeFileSystem, flags.directory)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: flags.directory })
  printResult(flags.json === true, { identity: toHex(ledger.identity) }, [toHex(ledger.identity)])
}
