import { nodeClock } from '../storage/index.js'
import type { ChangeOptions } from './change-keys.js'
import { withCustody, type Custody } from './custody.js'
import { readKeyringFile, replaceCustody } from './custody-files.js'
import { FileLedger } from './file-ledger.js'
import { Keyring } from './keyring.js'
import { identify, openKeyring, type KmsIdentity } from './place.js'
import { Receipts } from './receipts.js'
import { identityOf } from './place.js'

export interface RekeyOptions extends ChangeOptions {
  /** What opens the keyring from then on. */
  readonly next: Custody
  /** scrypt’s work factor; as before unless told. */
  readonly logN?: number | undefined
}

/**
 * Has a keyring open by another passphrase, or by other custodians’ shares; its keys stay what they are. Takes the ledger first, as
 * a start does: a KMS that still runs here answers nothing more. A copy of the keyring that was made before, a backup say, still opens by
 * the old passphrase. A receipt comes first.
 * @throws {KeyriseError} as `openKeyring` and `FileLedger.open`; ERR_CONFIG_INVALID: no such splitting;
 * ERR_LEDGER_TAKEN: another process took the place meanwhile; what `deliver` throws.
 * Crash: keyring and custodians as before, or as after.
 */
export const rekeyKms = async (options: RekeyOptions): Promise<KmsIdentity> => {
  const { place, fs, random, clock = nodeClock, next } = options
  // Custodians take their time, in which a KMS that runs serves on.
  const identity = await identityOf(options)
  return withCustody(next, { identity, random }, async ({ passphrase, custodians, words }) => {
    const ledger = await FileLedger.open(fs, place.directory, identity)
    try {
      // Now that the place is this process’s: what it read before may be outdated.
      using keyring = await openKeyring(options)
      const logN = options.logN ?? Keyring.workFactor(await readKeyringFile({ place, fs }))
      const file = keyring.seal({ passphrase, random, logN })
      await new Receipts({ ledger, signer: keyring, clock }).record('rekey', { reason: `opened by ${words}` })
      await replaceCustody({ place, fs }, { keyring: file, custodians })
      await ledger.confirm()
      return identify(keyring)
    } finally {
      await ledger.close()
    }
  })
}
