import type { Command } from 'commander'
import { Secret } from '../protocol/crypto/secret.js'
import { sealRoute, unlockRoute } from '../kms/admin-control.js'
import { shareRoute } from '../kms/admin-custody.js'
import type { ReplyOf } from '../kms/admin-route.js'
import { askKms } from './admin-client.js'
import { each, withRunning, type RunningFlags } from './arguments.js'
import { describeProgress, readShareFile } from './custody-shares.js'
import { withGiven } from './kms-place.js'
import { askSecret, readPassphrase } from './passphrase.js'
import { printResult } from './terminal.js'

/** `keyrise kms unlock|seal`: what operators tell a KMS that runs. */
export const addControlCommands = (kms: Command): void => {
  withGiven(withRunning(kms.command('unlock').description('give a KMS that runs sealed the passphrase of its keyring')))
    .option(
      '--share [file]',
      'give a custodian’s share instead: of this file, which may be repeated, or asked for',
      each,
    )
    .action(unlock)
  withRunning(kms.command('seal').description('let a KMS that runs forget every key')).action(seal)
}

interface UnlockFlags extends RunningFlags {
  readonly passphraseFd?: number
  readonly passphraseCredential?: string
  /** True where a share is to be asked for. */
  readonly share?: true | readonly string[]
}

const unlock = async (flags: UnlockFlags): Promise<void> => {
  if (flags.share !== undefined) return unlockByShares(flags, flags.share)
  const { passphraseFd: descriptor, passphraseCredential: credential } = flags
  using passphrase = Secret.take(await readPassphrase({ descriptor, credential, isNew: false }))
  const { state, identity } = await askKms(flags, unlockRoute, passphrase)
  printResult(flags.json === true, { state, identity }, [state])
}

/** Each custodian gives his own where he is: the KMS keeps them for a while. */
const unlockByShares = async (flags: UnlockFlags, files: true | readonly string[]): Promise<void> => {
  let reply: ReplyOf<typeof shareRoute.reply> | undefined
  for (const file of files === true ? [undefined] : files) {
    using share = Secret.take(file === undefined ? await askSecret('A share: ') : await readShareFile(file))
    reply = await askKms(flags, shareRoute, share)
    if (reply.state === 'unlocked') break
  }
  if (reply === undefined) return
  printResult(flags.json === true, reply, [reply.state === 'unlocked' ? reply.state : describeProgress(reply)])
}

const seal = async (flags: RunningFlags): Promise<void> => {
  const { state, identity } = await askKms(flags, sealRoute, undefined)
  printResult(flags.json === true, { state, identity }, [state])
}
