import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { inspectLedger } from './inspect-ledger.js'
import { printResult } from './terminal.js'

const addIdentityCommand = (kms: Command): void => {
  kms
    .command('identity')
    .description('print the identity that enclaves trust; needs no passphrase')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--json', 'print one JSON object')
    .action(identity)
}

/** What adds which commands, in the order in which `--help` lists them. */
const COMMANDS: readonly { readonly names: readonly string[]; readonly load: () => Promise<(kms: Command) => void> }[] =
  [
    { names: ['init'], load: async () => (await import('./custody-init.js')).addInitCommand },
    { names: ['serve'], load: async () => (await import('./serve-command.js')).addServeCommand },
    { names: ['rekey'], load: async () => (await import('./rekey-command.js')).addRekeyCommand },
    { names: ['backup', 'restore'], load: async () => (await import('./custody-backup.js')).addBackupCommands },
    { names: ['break-glass'], load: async () => (await import('./break-glass-command.js')).addBreakGlassCommand },
    { names: ['status'], load: async () => (await import('./custody-status.js')).addStatusCommand },
    { names: ['unlock', 'seal'], load: async () => (await import('./control-commands.js')).addControlCommands },
    { names: ['accept-stale'], load: async () => (await import('./accept-stale.js')).addAcceptStaleCommand },
    { names: ['console'], load: async () => (await import('./console-command.js')).addConsoleCommand },
    { names: ['rotate', 'rewrap'], load: async () => (await import('./rotation-commands.js')).addRotationCommands },
    { names: ['keys'], load: async () => (await import('./key-commands.js')).addKeyCommands },
    { names: ['identity'], load: () => Promise.resolve(addIdentityCommand) },
  ]

/** `keyrise kms …`. Of a command that is called by its name nothing else is loaded. */
export const addKmsCommands = async (kms: Command, called: string | undefined): Promise<void> => {
  const wanted = COMMANDS.filter(({ names }) => called !== undefined && names.includes(called))
  for (const { load } of wanted.length > 0 ? wanted : COMMANDS) (await load())(kms)
}

const identity = async (flags: { readonly directory: string; readonly json?: boolean }): Promise<void> => {
  const key = toHex((await inspectLedger(flags.directory)).identity)
  printResult(flags.json === true, { identity: key }, [key])
}
