import type { Command } from 'commander'
import { Secret } from '../protocol/crypto/secret.js'
import { sealRoute, unlockRoute } from '../kms/admin-control.js'
import { askKms } from './admin-client.js'
import { wholeNumber } from './arguments.js'
import { readPassphrase } from './passphrase.js'
import { printResult } from './terminal.js'

interface RunningFlags {
  readonly directory: string
  readonly adminSocket?: string
  readonly json?: boolean
}

const withRunning = (command: Command): Command =>
  command
    .requiredOption('--directory <path>', 'the directory of a KMS that runs')
    .option('--admin-socket <path>', 'its admin socket, where it is not in the directory')
    .option('--json', 'print JSON')

/** `keyrise kms unlock|seal`: what operators tell a KMS that runs. */
export const addControlCommands = (kms: Command): void => {
  withRunning(kms.command('unlock').description('give a KMS that runs sealed the passphrase of its keyring'))
    .option(
      '--passphrase-fd <n>',
      'read the passphrase from this file descriptor; otherwise it is asked for',
      wholeNumber(0, 1023),
    )
    .action(unlock)
  withRunning(kms.command('seal').description('let a KMS that runs forget every key')).action(seal)
}

const unlock = async (flags: RunningFlags & { readonly passphraseFd?: number }): Promise<void> => {
  using passphrase = Secret.take(await readPassphrase({ descriptor: flags.passphraseFd, isNew: false }))
  const { state, identity } = await askKms(flags, unlockRoute, passphrase)
  printResult(flags.json === true, { state, identity }, [state])
}

const seal = async (flags: RunningFlags): Promise<void> => {
  const { state, identity } = await askKms(flags, sealRoute, undefined)
  printResult(flags.json === true, { state, identity }, [state])
}
