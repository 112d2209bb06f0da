import type { Header } from '../protocol/age-header.js'
import { KeyriseError } from '../protocol/errors.js'
import { scryptRecipient, SCRYPT_TYPE, type Recipient } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'
import { Identities, readRecipients } from './key-files.js'

/** What the commands on envelopes have in common: who a file is for, and who opens it. */

export interface RecipientFlags {
  readonly recipient?: readonly string[]
  readonly recipientsFile?: readonly string[]
  /** The file is to be opened by a passphrase. */
  readonly passphrase?: boolean
  readonly workFactor?: number
}

export interface IdentityFlags {
  readonly identity?: readonly string[]
  readonly passphraseFd?: number
}

const invalid = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}

const askPassphrase = async (descriptor: number | undefined, isNew: boolean): Promise<Secret> => {
  const { readPassphrase } = await import('./passphrase.js')
  return Secret.take(await readPassphrase({ descriptor, isNew, of: 'the file' }))
}

/** Lends `use` the recipients that the command line names. @throws {KeyriseError} ERR_CONFIG_INVALID, as `readRecipients`. */
export const withRecipients = async <T>(
  flags: RecipientFlags,
  /** Where a new passphrase is read from instead of a terminal. */
  newPassphraseFd: number | undefined,
  use: (recipients: readonly Recipient[]) => Promise<T>,
): Promise<T> => {
  const hasPassphrase = flags.passphrase === true || newPassphraseFd !== undefined
  const { recipient: texts = [], recipientsFile: paths = [] } = flags
  const hasKeys = texts.length + paths.length > 0
  if (hasPassphrase && hasKeys) return invalid('a passphrase stands alone: give no recipients beside it')
  if (!hasPassphrase && !hasKeys) return invalid('for whom? Give --recipient, --recipients-file or --passphrase')
  if (!hasPassphrase) return use(await readRecipients(texts, paths))
  using passphrase = await askPassphrase(newPassphraseFd, true)
  return await use([scryptRecipient(passphrase, flags.workFactor)])
}

/**
 * Who opens the file: keys from files; or, where none is given, the passphrase that it asks for.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, as `Identities.addFile`.
 */
export const identitiesFor = async (header: Header, flags: IdentityFlags): Promise<Identities> => {
  const { identity: paths = [] } = flags
  const identities = new Identities()
  for (const path of paths) await identities.addFile(path)
  const isPassphrase = header.stanzas[0]?.args[0] === SCRYPT_TYPE
  if (flags.passphraseFd !== undefined || (isPassphrase && paths.length === 0)) {
    identities.addPassphrase(await askPassphrase(flags.passphraseFd, false))
  }
  if (identities.list.length === 0) return invalid('it takes a key to open this file: give --identity')
  return identities
}
