import type { Command } from 'commander'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { identityOf, placeOf } from '../kms/place.js'
import { rekeyKms } from '../kms/rekey.js'
import { nodeFileSystem } from '../storage/index.js'
import { demandSealed } from './admin-client.js'
import { wholeNumber } from './arguments.js'
import { printIdentity, withEither, withPassphrase, workFactorOption, type PlaceFlags } from './kms-place.js'
import { checkNewCustody, describeCustodians, withChosen, withNewCustody, type NewCustodyFlags } from './new-custody.js'
import { readPassphrase } from './passphrase.js'

interface RekeyFlags extends PlaceFlags, NewCustodyFlags {
  readonly workFactor?: number
  readonly newPassphraseFd?: number
  readonly newPassphraseCredential?: string
}

/** `keyrise kms rekey` */
export const addRekeyCommand = (kms: Command): void => {
  withNewCustody(
    withEither(
      kms
        .command('rekey')
        .description('have the keyring open by another passphrase or other custodians; its keys stay what they are'),
    )
      .option(
        '--new-passphrase-fd <n>',
        'read the new passphrase from this file descriptor; otherwise it is asked for',
        wholeNumber(0, 1023),
      )
      .option('--new-passphrase-credential <name>', 'read it from this systemd credential')
      .addOption(workFactorOption()),
  ).action(rekey)
}

const rekey = async (flags: RekeyFlags): Promise<void> => {
  const { newPassphraseFd: descriptor, newPassphraseCredential: credential, workFactor: logN } = flags
  checkNewCustody(flags, [descriptor, credential])
  await demandSealed(flags)
  const rekeyed = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    const options = { place: placeOf(flags), fs: nodeFileSystem, random: nodeRandom, passphrase, logN }
    // Before anybody is asked for, or shown, what is new.
    await identityOf(options)
    const readGiven = () => readPassphrase({ descriptor, credential, isNew: true, of: 'the keyring from now on' })
    return await withChosen(flags, readGiven, (next) => rekeyKms({ ...options, next }))
  })
  const { rows, fields } = describeCustodians(flags)
  printIdentity(
    flags,
    rekeyed,
    [
      ...rows,
      ['backups', 'those made before open as before: make a new one, and destroy them'],
      [
        'next',
        'start the KMS again, or unlock it; who had the old keyring’s file and opened it has the keys: then `keyrise kms rotate`',
      ],
    ],
    fields,
  )
}
