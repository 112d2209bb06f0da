import { encodeHeader, encodeMacInput, type Header, type Stanza } from '../age-header.js'
import { asciiBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import { equalSecret, hmac } from './primitives.js'
import { SCRYPT_TYPE, type Identity, type Recipient } from './recipients.js'
import type { Secret } from './secret.js'

/** A file key’s way into a header and out of it: C2SP age, "Header" and "Header MAC". */

const HEADER_MAC_INFO = asciiBytes('header')
const HEADER_MAC_KEY_SIZE = 32

const headerMac = (fileKey: Secret, macInput: Uint8Array): Bytes => {
  const key = fileKey.derive(HEADER_MAC_INFO, HEADER_MAC_KEY_SIZE)
  try {
    return hmac(key, macInput)
  } finally {
    key.fill(0)
  }
}

/** C2SP age: "an scrypt stanza, if present, MUST be the only stanza in the header". */
const checkPassphraseAlone = (stanzas: readonly Stanza[]): void => {
  if (stanzas.length > 1 && stanzas.some(({ args }) => args[0] === SCRYPT_TYPE)) {
    throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'a passphrase beside another stanza' })
  }
}

/**
 * The header of a file under `fileKey`.
 * @param extensions - stanzas of ours that stand beside the recipients’.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED: a passphrase is not alone; ERR_HEADER_LIMIT; ERR_KEY_INVALID.
 */
export const wrapHeader = (
  fileKey: Secret,
  { recipients, random }: { readonly recipients: readonly Recipient[]; readonly random: Random },
  extensions: readonly Stanza[],
): Bytes => {
  if (recipients.length === 0) throw new TypeError('An envelope needs a recipient')
  const stanzas = [...recipients.map((recipient) => recipient.wrap(fileKey, random)), ...extensions]
  checkPassphraseAlone(stanzas)
  const macInput = encodeMacInput(stanzas)
  return encodeHeader(macInput, headerMac(fileKey, macInput))
}

const unwrapAny = (stanzas: readonly Stanza[], identities: readonly Identity[]): Secret | undefined => {
  for (const identity of identities) {
    for (const stanza of stanzas) {
      const fileKey = identity.unwrap(stanza)
      if (fileKey !== undefined) return fileKey
    }
  }
  return undefined
}

/** @throws {KeyriseError} ERR_HEADER_MAC. */
export const verifyHeader = (header: Header, fileKey: Secret): void => {
  const expected = headerMac(fileKey, header.macInput)
  try {
    if (!equalSecret(header.mac, expected)) throw new KeyriseError('ERR_HEADER_MAC')
  } finally {
    expected.fill(0)
  }
}

/**
 * The file key, once the header’s MAC was verified with it.
 * @throws {KeyriseError} ERR_IDENTITY_MISMATCH, ERR_HEADER_MAC, ERR_HEADER_MALFORMED, ERR_WORK_FACTOR.
 */
export const unwrapHeader = (header: Header, identities: readonly Identity[]): Secret => {
  checkPassphraseAlone(header.stanzas)
  const fileKey = unwrapAny(header.stanzas, identities)
  if (fileKey === undefined) throw new KeyriseError('ERR_IDENTITY_MISMATCH')
  try {
    verifyHeader(header, fileKey)
    return fileKey
  } catch (error) {
    fileKey[Symbol.dispose]()
    throw error
  }
}
