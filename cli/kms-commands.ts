import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { RootSuite } from '../protocol/statements.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { FileLedger } from '../kms/file-ledger.js'
import { KEYRING_LOG_N } from '../kms/keyring.js'
import { createKms, placeOf, prepareDirectory, restoreKms } from '../kms/place.js'
import { nodeFileSystem } from '../storage/index.js'
import { addAcceptStaleCommand } from './accept-stale.js'
import { suiteOption, wholeNumber } from './arguments.js'
import { addControlCommands } from './control-commands.js'
import { addKeyCommands } from './key-commands.js'
import { printIdentity, withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
import { addRotationCommands } from './rotation-commands.js'
import { addServeCommand } from './serve-command.js'
import { printResult } from './terminal.js'

/** `keyrise kms …` */
export const addKmsCommands = (kms: Command): void => {
  withPlace(kms.command('init').description('make the keys of a new KMS, and its keyring'))
    .option(
      '--work-factor <n>',
      'scrypt’s work factor for the passphrase, as a power of two',
      wholeNumber(10, 20),
      KEYRING_LOG_N,
    )
    .addOption(suiteOption())
    .action(init)
  addServeCommand(kms)
  withPlace(kms.command('restore').description('check that a KMS can start from its keyring and ledger'))
    .option('--new-ledger', 'begin a new ledger: the old one, and with it which state is the newest, is lost for good')
    .action(restore)
  addControlCommands(kms)
  addAcceptStaleCommand(kms)
  addRotationCommands(kms)
  addKeyCommands(kms)
  kms
    .command('identity')
    .description('print the identity that enclaves trust; needs no passphrase')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--json', 'print one JSON object')
    .action(identity)
}

const init = async (flags: PlaceFlags & { readonly workFactor: number; readonly suite: RootSuite }): Promise<void> => {
  const made = await withPassphrase(flags, true, async (bytes) => {
    using passphrase = Secret.take(bytes)
    await prepareDirectory(nodeFileSystem, flags.directory)
    return await createKms({
      place: placeOf(flags),
      passphrase,
      fs: nodeFileSystem,
      random: nodeRandom,
      logN: flags.workFactor,
      suite: flags.suite,
    })
  })
  printIdentity(flags, made, [['keyring', flags.custody ?? `in ${flags.directory}`]])
}

const restore = async (flags: PlaceFlags & { readonly newLedger?: boolean }): Promise<void> => {
  const found = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    if (flags.newLedger === true) await prepareDirectory(nodeFileSystem, flags.directory)
    return await restoreKms({
      place: placeOf(flags),
      passphrase,
      fs: nodeFileSystem,
      newLedger: flags.newLedger === true,
    })
  })
  printIdentity(flags, found, [['ledger', `${found.ledger}, ${found.flowCount} flows`]], {
    ledger: found.ledger,
    flows: found.flowCount,
  })
}

const identity = async (flags: { readonly directory: string; readonly json?: boolean }): Promise<void> => {
  const ledger = await FileLedger.inspect(nodeFileSystem, flags.directory)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: flags.directory })
  printResult(flags.json === true, { identity: toHex(ledger.identity) }, [toHex(ledger.identity)])
}
