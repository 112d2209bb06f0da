#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { addImageCommands } from './image-commands.js'
import { addKmsCommands } from './kms-commands.js'
import { EXIT, printError } from './terminal.js'

/** The `keyrise` command. */
const program = new Command('keyrise')
  .description('Keeps a TEE’s secrets alive when the TEE dies.')
  .exitOverride()
  .configureHelp({ showGlobalOptions: true })
addKmsCommands(program)
addImageCommands(program)

/** Sub commands do not take these from their parent by themselves. */
const strict = (command: Command): void => {
  command.exitOverride().allowExcessArguments(false).showHelpAfterError('(--help shows what there is)')
  command.commands.forEach(strict)
}
strict(program)

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage
  else process.exitCode = printError(process.argv.includes('--json'), error)
}
