import type { Command } from 'commander'
import { copyBytes } from '../protocol/bytes.js'
import { ROOT_SUITES, type RootSuite } from '../protocol/statements.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { KEYRING_LOG_N } from '../kms/keyring.js'
import { createKms, placeOf, prepareDirectory } from '../kms/place.js'
import { nodeFileSystem } from '../storage/index.js'
import { suiteOption } from './arguments.js'
import { printIdentity, withPassphrase, withPlace, workFactorOption, type PlaceFlags } from './kms-place.js'
import { checkNewCustody, describeCustodians, withChosen, withNewCustody, type NewCustodyFlags } from './new-custody.js'

interface InitFlags extends PlaceFlags, NewCustodyFlags {
  readonly workFactor: number
  readonly suite: RootSuite
}

/** `keyrise kms init` */
export const addInitCommand = (kms: Command): void => {
  withNewCustody(
    withPlace(kms.command('init').description('make the keys of a new KMS, and its keyring'))
      .addOption(workFactorOption().default(KEYRING_LOG_N))
      .addOption(suiteOption().default(ROOT_SUITES[0])),
  ).action(init)
}

const init = async (flags: InitFlags): Promise<void> => {
  checkNewCustody(flags, [flags.passphraseFd, flags.passphraseCredential])
  const readGiven = () => withPassphrase(flags, true, (passphrase) => Promise.resolve(copyBytes(passphrase)))
  const made = await withChosen(flags, readGiven, async (custody) => {
    await prepareDirectory(nodeFileSystem, flags.directory)
    const { workFactor: logN, suite } = flags
    return createKms({ ...custody, place: placeOf(flags), fs: nodeFileSystem, random: nodeRandom, logN, suite })
  })
  const { rows, fields } = describeCustodians(flags)
  printIdentity(flags, made, [['keyring', flags.custody ?? `in ${flags.directory}`], ...rows], fields)
}
