import { encodeBase64 } from '../age-header.js'
import { asciiBytes, concatBytes, type Bytes } from '../bytes.js'
import { isKeyriseError } from '../errors.js'
import { encodeBech32 } from './bech32.js'
import { hmac } from './primitives.js'
import {
  decodeArgument,
  encodeIdentity,
  malformed,
  parseIdentity,
  parseRecipient,
  readArguments,
  unwrapFileKey,
  wrapFileKey,
  type Identity,
  type Recipient,
} from './recipients.js'
import type { Secret } from './secret.js'
import {
  expandXWingKey,
  XWING_CIPHERTEXT_SIZE,
  XWING_PUBLIC_SIZE,
  xWingDecapsulate,
  xWingEncapsulate,
} from './x-wing.js'

/**
 * The post-quantum recipient: C2SP age, "The MLKEM768-X25519 hybrid post-quantum recipient type". The file key is sealed with
 * HPKE (RFC 9180, base mode, one message) over X-Wing, HKDF-SHA256 and ChaCha20-Poly1305.
 */

const TYPE = 'mlkem768x25519'
const INFO = asciiBytes('age-encryption.org/mlkem768x25519')
const NOTHING = new Uint8Array(0)
const [KEY_SIZE, NONCE_SIZE] = [32, 12] as const

// RFC 9180 §4 and §5.1. Each output is one block of HKDF-SHA256 at most, so extracting and expanding are an HMAC each.

const VERSION = asciiBytes('HPKE-v1')
/** §5.1: KEM 0x647a (X-Wing), KDF 0x0001, AEAD 0x0003. */
const SUITE = concatBytes(asciiBytes('HPKE'), Uint8Array.of(0x64, 0x7a, 0, 1, 0, 3))

const labeledExtract = (salt: Uint8Array, label: string, secret: Uint8Array): Bytes =>
  hmac(salt, VERSION, SUITE, asciiBytes(label), secret)

const labeledExpand = (pseudorandomKey: Uint8Array, label: string, info: Uint8Array, size: number): Bytes =>
  hmac(pseudorandomKey, Uint8Array.of(0, size), VERSION, SUITE, asciiBytes(label), info, Uint8Array.of(1))

const MODE_BASE = 0
const CONTEXT = concatBytes(
  Uint8Array.of(MODE_BASE),
  labeledExtract(NOTHING, 'psk_id_hash', NOTHING),
  labeledExtract(NOTHING, 'info_hash', INFO),
)

/** §5.1 `KeySchedule`. @param shared - disposed of here. @returns the key to be wiped. */
export const keySchedule = (shared: Secret): { key: Bytes; nonce: Uint8Array } => {
  using agreed = shared
  const secret = agreed.expose((bytes) => labeledExtract(bytes, 'secret', NOTHING))
  try {
    return {
      key: labeledExpand(secret, 'key', CONTEXT, KEY_SIZE),
      nonce: labeledExpand(secret, 'base_nonce', CONTEXT, NONCE_SIZE).subarray(0, NONCE_SIZE),
    }
  } finally {
    secret.fill(0)
  }
}

/** @param publicKey - 1216 bytes. `wrap` throws ERR_KEY_INVALID where it is not one. */
export const hybridRecipient = (publicKey: Uint8Array): Recipient => ({
  wrap(fileKey, random) {
    const { secret, ciphertext } = xWingEncapsulate(publicKey, random)
    const { key, nonce } = keySchedule(secret)
    return { args: [TYPE, encodeBase64(ciphertext)], body: wrapFileKey(key, fileKey, nonce) }
  },
})

/** It holds the expanded key, 2.4 KB, until it is disposed of. @param seed - 32 bytes, read here only. */
export const hybridIdentity = (seed: Secret): Identity & Disposable => {
  const key = expandXWingKey(seed)
  const decapsulate = (ciphertext: Uint8Array): Secret => {
    try {
      return xWingDecapsulate(key, ciphertext)
    } catch (error) {
      // Its X25519 half is one that everyone knows.
      if (isKeyriseError(error, 'ERR_KEY_INVALID')) return malformed('a share of low order')
      throw error
    }
  }
  return {
    unwrap(stanza) {
      if (stanza.args[0] !== TYPE) return undefined
      const [encapsulated] = readArguments(stanza, 1)
      const schedule = keySchedule(decapsulate(decodeArgument(encapsulated, XWING_CIPHERTEXT_SIZE)))
      return unwrapFileKey(schedule.key, stanza.body, schedule.nonce)
    },
    [Symbol.dispose]: () => key[Symbol.dispose](),
  }
}

/** The 1216 bytes of public key. @param seed - 32 bytes, borrowed. */
export const hybridPublicKey = (seed: Secret): Bytes => {
  using key = expandXWingKey(seed)
  return key.publicKey
}

const IDENTITY_PREFIX = 'age-secret-key-pq-'
const RECIPIENT_PREFIX = 'age1pq'

/** `AGE-SECRET-KEY-PQ-1…` as ASCII, which the caller wipes after use. */
export const encodeHybridIdentity = (seed: Secret): Bytes => encodeIdentity(IDENTITY_PREFIX, seed)

/** The seed in `AGE-SECRET-KEY-PQ-1…`, borrowed. @throws {KeyriseError} ERR_KEY_INVALID. */
export const parseHybridIdentity = (text: Uint8Array): Secret => parseIdentity(IDENTITY_PREFIX, text)

/** `age1pq1…` */
export const encodeHybridRecipient = (publicKey: Uint8Array): string =>
  String.fromCharCode(...encodeBech32(RECIPIENT_PREFIX, publicKey))

/** The public key in `age1pq1…`. @throws {KeyriseError} ERR_KEY_INVALID. */
export const parseHybridRecipient = (text: string): Bytes => parseRecipient(RECIPIENT_PREFIX, XWING_PUBLIC_SIZE, text)
