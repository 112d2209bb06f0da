#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { EXIT, printError, printText } from './terminal.js'

/** The groups of commands, and `drill`, `init` and `sweep`, which are one each. Only the one that is called is loaded: most of a short command’s time is loading. */
const GROUPS = [
  {
    name: 'drill',
    description: 'say what could not be recovered if an enclave or the KMS died now, and why',
    load: async () => (await import('./drill-command.js')).addDrillCommand,
  },
  {
    name: 'envelope',
    description: 'seal, open and inspect files',
    load: async () => (await import('./envelope-commands.js')).addEnvelopeCommands,
  },
  {
    name: 'image',
    description: 'build, sign and inspect enclave images',
    load: async () => (await import('./image-commands.js')).addImageCommands,
  },
  {
    name: 'init',
    description: 'write an enclave, a host and a test to start from',
    load: async () => (await import('./init.js')).addInitCommand,
  },
  {
    name: 'kms',
    description: 'run a key management server',
    load: async () => (await import('./kms-commands.js')).addKmsCommands,
  },
  {
    name: 'policy',
    description: 'say what a policy lets happen, and what a change of it would',
    load: async () => (await import('./policy-commands.js')).addPolicyCommands,
  },
  {
    name: 'receipts',
    description: 'export, list and verify what a KMS signed for',
    load: async () => (await import('./receipts-commands.js')).addReceiptsCommands,
  },
  {
    name: 'sweep',
    description: 'recover a scenario from every crash that can come',
    load: async () => (await import('./sweep-commands.js')).addSweepCommand,
  },
] as const

/** Sub commands do not take these from their parent by themselves. */
const strict = (command: Command): void => {
  command.exitOverride().allowExcessArguments(false).showHelpAfterError('(--help shows what there is)')
  command.commands.forEach(strict)
}

/** The `keyrise` command. */
const program = new Command('keyrise')
  .description('Keeps a TEE’s secrets alive when the TEE dies.')
  .configureHelp({ showGlobalOptions: true })
  .configureOutput({ writeOut: printText })
// `keyrise help kms` names its group second.
const [called, commandCalled] = process.argv.slice(2).filter((word) => word !== 'help' && !word.startsWith('-'))
for (const { name, description, load } of GROUPS) {
  const group = program.command(name).description(description)
  if (name === called) await (await load())(group, commandCalled)
}
strict(program)

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage
  else process.exitCode = printError(process.argv.includes('--json'), error)
}
