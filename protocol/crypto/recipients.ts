import type { KeyObject } from 'node:crypto'
import { decodeBase64, encodeBase64, type Stanza } from '../age-header.js'
import { allocate, asciiBytes, concatBytes, type Bytes } from '../bytes.js'
import { isKeyriseError, KeyriseError } from '../errors.js'
import { SCRYPT_LOG_N_MAX } from '../limits.js'
import { parsePath } from '../names.js'
import type { Random } from '../ports.js'
import { decodeBech32, encodeBech32 } from './bech32.js'
import { KEY_SIZE, x25519Agree, x25519Ephemeral, x25519PrivateKeyObject, x25519PublicKey } from './curves.js'
import { labelled } from './labels.js'
import { hkdf, openChaCha, scrypt, sealChaCha, TAG_SIZE } from './primitives.js'
import { Secret } from './secret.js'

/** Who can open an envelope: the native age recipients that we use (C2SP age, "Native recipient types") and our sub keys. */

/** Wraps a file key for whoever holds the matching identity. */
export interface Recipient {
  /** @param random - for salts. Ephemeral keys are OpenSSL’s own: they never enter a buffer of ours. */
  wrap(fileKey: Secret, random: Random): Stanza
}

export interface Identity {
  /**
   * The file key; undefined when the stanza is for another identity.
   * @throws {KeyriseError} ERR_HEADER_MALFORMED: of this identity’s type, but no such stanza; ERR_WORK_FACTOR.
   */
  unwrap(stanza: Stanza): Secret | undefined
}

export const FILE_KEY_SIZE = 16
const WRAPPED_SIZE = FILE_KEY_SIZE + TAG_SIZE
const SALT_SIZE = 16
/** Every wrapping key seals once, so the nonce is fixed: C2SP age. */
const ZERO_NONCE = allocate(12)

/** @param wrapKey - wiped here, on every path. */
export const wrapFileKey = (wrapKey: Bytes, fileKey: Secret, nonce: Uint8Array = ZERO_NONCE): Bytes => {
  try {
    if (fileKey.size !== FILE_KEY_SIZE) throw new RangeError('A file key has 16 bytes')
    const body = allocate(WRAPPED_SIZE)
    fileKey.expose((bytes) => {
      sealChaCha(wrapKey, nonce, bytes, body)
    })
    return body
  } finally {
    wrapKey.fill(0)
  }
}

/** @param wrapKey - wiped here, on every path. @param body - of WRAPPED_SIZE, as `readArguments` checked. */
export const unwrapFileKey = (wrapKey: Bytes, body: Uint8Array, nonce: Uint8Array = ZERO_NONCE): Secret | undefined => {
  const fileKey = allocate(FILE_KEY_SIZE)
  try {
    return openChaCha(wrapKey, nonce, body, fileKey) ? Secret.take(fileKey) : undefined
  } finally {
    wrapKey.fill(0)
  }
}

export const malformed = (detail: string): never => {
  throw new KeyriseError('ERR_HEADER_MALFORMED', { detail })
}

/**
 * A stanza’s arguments after its type. The body’s size is checked before anything is decrypted, against partitioning oracles.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED.
 */
export const readArguments = (
  { args: [type, ...rest], body }: Stanza,
  count: number,
  bodySize = WRAPPED_SIZE,
): readonly string[] => {
  if (rest.length !== count) return malformed(`${type}: arguments`)
  if (body.length !== bodySize) return malformed(`${type}: body`)
  return rest
}

export const decodeArgument = (text: string | undefined, size: number): Bytes => {
  const bytes = decodeBase64(text ?? '')
  return bytes.length === size ? bytes : malformed('the size of an argument')
}

// X25519

const X25519_TYPE = 'X25519'
const X25519_INFO = asciiBytes('age-encryption.org/v1/X25519')

/** @returns to be wiped. @throws {KeyriseError} ERR_KEY_INVALID. */
const x25519WrapKey = (privateKey: KeyObject, peerKey: Uint8Array, share: Uint8Array, recipient: Uint8Array): Bytes => {
  using shared = x25519Agree(privateKey, peerKey)
  return shared.expose((bytes) => hkdf(bytes, concatBytes(share, recipient), X25519_INFO, KEY_SIZE))
}

/** @param publicKey - 32 bytes. `wrap` throws ERR_KEY_INVALID where it is of low order. */
export const x25519Recipient = (publicKey: Uint8Array): Recipient => ({
  wrap(fileKey) {
    const ephemeral = x25519Ephemeral()
    const wrapKey = x25519WrapKey(ephemeral.privateKey, publicKey, ephemeral.publicKey, publicKey)
    return { args: [X25519_TYPE, encodeBase64(ephemeral.publicKey)], body: wrapFileKey(wrapKey, fileKey) }
  },
})

/** @param privateKey - a Secret is read here only, and may be disposed of when this returns. */
export const x25519Identity = (privateKey: Secret | KeyObject): Identity => {
  const key = privateKey instanceof Secret ? x25519PrivateKeyObject(privateKey) : privateKey
  const publicKey = x25519PublicKey(key)
  return {
    unwrap(stanza) {
      if (stanza.args[0] !== X25519_TYPE) return undefined
      const [shareText] = readArguments(stanza, 1)
      const share = decodeArgument(shareText, KEY_SIZE)
      try {
        return unwrapFileKey(x25519WrapKey(key, share, share, publicKey), stanza.body)
      } catch (error) {
        // Its shared secret is one that everyone knows.
        if (isKeyriseError(error, 'ERR_KEY_INVALID')) return malformed('a share of low order')
        throw error
      }
    },
  }
}

// Sub keys: docs/envelope.md §1

const SUB_KEY_TYPE = 'keyrise/sub-key'

const subKeyWrapKey = (step: string, subKey: Secret, salt: Uint8Array): Bytes =>
  subKey.expose((bytes) => hkdf(bytes, salt, concatBytes(...labelled('sub-key-wrap', asciiBytes(step))), KEY_SIZE))

/** @param subKey - 32 bytes, from `deriveSubKey`; borrowed as long as the recipient is used. @throws {KeyriseError} ERR_NAME_INVALID. */
export const subKeyRecipient = (step: string, subKey: Secret): Recipient => {
  parsePath(step)
  return {
    wrap(fileKey, random) {
      const salt = random.fill(allocate(SALT_SIZE))
      return {
        args: [SUB_KEY_TYPE, step, encodeBase64(salt)],
        body: wrapFileKey(subKeyWrapKey(step, subKey, salt), fileKey),
      }
    },
  }
}

/** @param subKey - borrowed as long as the identity is used. */
export const subKeyIdentity = (step: string, subKey: Secret): Identity => ({
  unwrap(stanza) {
    if (stanza.args[0] !== SUB_KEY_TYPE) return undefined
    const [claimedStep, saltText] = readArguments(stanza, 2)
    const salt = decodeArgument(saltText, SALT_SIZE)
    return claimedStep === step ? unwrapFileKey(subKeyWrapKey(step, subKey, salt), stanza.body) : undefined
  },
})

// Passphrases

/** The type that must be alone in its header, which `unwrapHeader` and `sealEnvelope` see to. */
export const SCRYPT_TYPE = 'scrypt'
const SCRYPT_LABEL = asciiBytes('age-encryption.org/v1/scrypt')
/** No leading zero, sign or space; two digits are enough for any factor that we could allow. */
const WORK_FACTOR = /^[1-9][0-9]?$/

const scryptWrapKey = (passphrase: Secret, salt: Uint8Array, logN: number): Bytes =>
  passphrase.expose((bytes) => scrypt(bytes, concatBytes(SCRYPT_LABEL, salt), logN))

const checkWorkFactor = (logN: number): void => {
  if (!Number.isSafeInteger(logN) || logN < 1 || logN > SCRYPT_LOG_N_MAX) throw new KeyriseError('ERR_WORK_FACTOR')
}

/** @param logN - work factor 2^logN, which takes 2^(logN + 10) bytes of memory. @throws {KeyriseError} ERR_WORK_FACTOR. */
export const scryptRecipient = (passphrase: Secret, logN = 18): Recipient => {
  checkWorkFactor(logN)
  return {
    wrap(fileKey, random) {
      const salt = random.fill(allocate(SALT_SIZE))
      const wrapKey = scryptWrapKey(passphrase, salt, logN)
      return { args: [SCRYPT_TYPE, encodeBase64(salt), String(logN)], body: wrapFileKey(wrapKey, fileKey) }
    },
  }
}

/** @param logNMax - the most work that a file may ask for; refused unread above it. @throws {KeyriseError} ERR_WORK_FACTOR. */
export const scryptIdentity = (passphrase: Secret, logNMax = 20): Identity => {
  checkWorkFactor(logNMax)
  return {
    unwrap(stanza) {
      if (stanza.args[0] !== SCRYPT_TYPE) return undefined
      const [saltText, claimedFactor] = readArguments(stanza, 2)
      const salt = decodeArgument(saltText, SALT_SIZE)
      const logN = WORK_FACTOR.test(claimedFactor ?? '') ? Number(claimedFactor) : Infinity
      if (logN > logNMax) throw new KeyriseError('ERR_WORK_FACTOR')
      return unwrapFileKey(scryptWrapKey(passphrase, salt, logN), stanza.body)
    },
  }
}

// Text forms, for the `age` command

const X25519_IDENTITY_PREFIX = 'age-secret-key-'
const X25519_RECIPIENT_PREFIX = 'age'

/** `AGE-SECRET-KEY-1…` as ASCII, which the caller wipes after use. */
export const encodeX25519Identity = (privateKey: Secret): Bytes => encodeIdentity(X25519_IDENTITY_PREFIX, privateKey)

/** @param text - `AGE-SECRET-KEY-1…`, borrowed. @throws {KeyriseError} ERR_KEY_INVALID. */
export const parseX25519Identity = (text: Uint8Array): Secret => parseIdentity(X25519_IDENTITY_PREFIX, text)

/** @param prefix - in lower case. */
export const encodeIdentity = (prefix: string, privateKey: Secret): Bytes =>
  privateKey.expose((bytes) => {
    const text = encodeBech32(prefix, bytes)
    for (let index = 0; index < text.length; index++) text[index] = upperCase(text[index] as number)
    return text
  })

/** @param prefix - in lower case. @throws {KeyriseError} ERR_KEY_INVALID: anything but 32 bytes under it, in upper case. */
export const parseIdentity = (prefix: string, text: Uint8Array): Secret => {
  const bytes = text[0] === PREFIX_START ? decodeBech32(prefix, text) : undefined
  if (bytes?.length === KEY_SIZE) return Secret.take(bytes)
  bytes?.fill(0)
  throw new KeyriseError('ERR_KEY_INVALID', { detail: 'not a private key of age' })
}
/** The `A` of a private key: `decodeBech32` sees to it that the rest is of the same case. */
const PREFIX_START = 0x41

const upperCase = (code: number): number => (code >= 0x61 && code <= 0x7a ? code - 0x20 : code)

/** `age1…` */
export const encodeX25519Recipient = (publicKey: Uint8Array): string =>
  String.fromCharCode(...encodeBech32(X25519_RECIPIENT_PREFIX, publicKey))

/** The public key in `age1…`. @throws {KeyriseError} ERR_KEY_INVALID. */
export const parseX25519Recipient = (text: string): Bytes => parseRecipient(X25519_RECIPIENT_PREFIX, KEY_SIZE, text)

/** @param prefix - in lower case, as `text` must be. @param size - of the public key. @throws {KeyriseError} ERR_KEY_INVALID. */
export const parseRecipient = (prefix: string, size: number, text: string): Bytes => {
  const isText = LOWER_CASE.test(text) && text.length <= TEXT_LENGTH_MAX
  const bytes = isText ? decodeBech32(prefix, asciiBytes(text)) : undefined
  if (bytes?.length !== size) throw new KeyriseError('ERR_KEY_INVALID', { detail: 'not a public key of age' })
  return bytes
}
const LOWER_CASE = /^[a-z0-9]+$/
/** A post-quantum key takes about 1960. */
const TEXT_LENGTH_MAX = 4096
