import { constants, createPublicKey, publicDecrypt, type KeyObject } from 'node:crypto'
import { copyBytes, equalPublicBytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import {
  isRsa,
  proofMessage,
  proofTranscript,
  type ProofParts,
  type RootCertificate,
  type RootSuite,
} from '../statements.js'
import { ed25519Verify } from './curves.js'
import { encodeHybridRecipient, hybridRecipient } from './hybrid.js'
import { sha256 } from './primitives.js'
import { encodeX25519Recipient, x25519Recipient, type Recipient } from './recipients.js'
import { encodeSshRsaRecipient, sshRsaRecipient } from './ssh-rsa.js'

/** What the public halves of a root key are good for, whatever its suite: to seal to it, and to check what it opened. */

/** What is sealed to. */
export type EncryptionHalf = Pick<RootCertificate, 'suite' | 'encryptionKey'>

/** @throws {KeyriseError} ERR_KEY_INVALID: not a key of this suite; for X25519 and X-Wing `wrap` says so. */
export const rootRecipient = ({ suite, encryptionKey }: EncryptionHalf): Recipient => {
  switch (suite) {
    case 'x25519':
      return x25519Recipient(encryptionKey)
    case 'mlkem768x25519':
      return hybridRecipient(encryptionKey)
    case 'rsa-oaep-3072':
    case 'rsa-oaep-4096':
      return sshRsaRecipient(rsaPublicKey(suite, encryptionKey))
  }
}

/**
 * True where the origin half proves `parts` (M12). Ed25519 signs the transcript (RFC 8032). RSA recovers the message: what the
 * private key made of it under PKCS #1 v1.5 type 1 (RFC 8017 §9.2, without the DigestInfo) comes back whole.
 */
export const verifyProof = (
  { suite, originKey }: Pick<RootCertificate, 'suite' | 'originKey'>,
  parts: ProofParts,
  signature: Uint8Array,
): boolean => {
  const transcript = proofTranscript(parts)
  if (!isRsa(suite)) return ed25519Verify(originKey, transcript, signature)
  try {
    const key = rsaPublicKey(suite, originKey)
    const recovered = publicDecrypt({ key, padding: constants.RSA_PKCS1_PADDING }, signature)
    return equalPublicBytes(copyBytes(recovered), proofMessage(sha256(transcript), parts.epoch))
  } catch {
    return false
  }
}

/** The encryption half as the `age` command takes it: `age1…`, `age1pq1…`, `ssh-rsa …`. */
export const encodeRootRecipient = ({ suite, encryptionKey }: EncryptionHalf): string => {
  if (suite === 'x25519') return encodeX25519Recipient(encryptionKey)
  if (suite === 'mlkem768x25519') return encodeHybridRecipient(encryptionKey)
  return encodeSshRsaRecipient(rsaPublicKey(suite, encryptionKey))
}

const MODULUS_BITS: Readonly<Partial<Record<RootSuite, number>>> = { 'rsa-oaep-3072': 3072, 'rsa-oaep-4096': 4096 }
const EXPONENT = 65_537n

/** @param der - SubjectPublicKeyInfo. @throws {KeyriseError} ERR_KEY_INVALID. */
const rsaPublicKey = (suite: RootSuite, der: Uint8Array): KeyObject => {
  const key = importPublic(der)
  const { modulusLength, publicExponent } = key?.asymmetricKeyDetails ?? {}
  if (key?.asymmetricKeyType !== 'rsa' || modulusLength !== MODULUS_BITS[suite] || publicExponent !== EXPONENT)
    throw new KeyriseError('ERR_KEY_INVALID', { detail: suite })
  return key
}

const importPublic = (der: Uint8Array): KeyObject | undefined => {
  try {
    return createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}
