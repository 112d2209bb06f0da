import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto'
import { concatBytes, copyBytes, equalPublicBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import { Secret } from './secret.js'

/** X25519 (RFC 7748) and Ed25519 (RFC 8032), OpenSSL's, through `node:crypto`: see primitives.ts. */

export const KEY_SIZE = 32
type Curve = 'X25519' | 'Ed25519'

/** RFC 8410 §7: the PKCS #8 structure around 32 bytes of private key. A JWK would be faster to import, but is a string. */
const PKCS8_PREFIX: Readonly<Record<Curve, Bytes>> = {
  X25519: pkcs8Prefix(0x6e),
  Ed25519: pkcs8Prefix(0x70),
}
function pkcs8Prefix(algorithm: number): Bytes {
  return copyBytes(Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, algorithm, 4, 0x22, 4, 0x20))
}

const privateKeyObject = (curve: Curve, privateKey: Secret): KeyObject =>
  privateKey.expose((bytes) => {
    if (bytes.length !== KEY_SIZE) throw new RangeError('A private key has 32 bytes')
    const der = concatBytes(PKCS8_PREFIX[curve], bytes)
    try {
      // A view of `der`, not a copy.
      return createPrivateKey({ key: Buffer.from(der.buffer), format: 'der', type: 'pkcs8' })
    } finally {
      der.fill(0)
    }
  })

const publicKeyObject = (curve: Curve, publicKey: Uint8Array): KeyObject => {
  if (publicKey.length !== KEY_SIZE) throw new KeyriseError('ERR_KEY_INVALID', { detail: 'size' })
  const x = Buffer.from(publicKey.buffer, publicKey.byteOffset, publicKey.length).toString('base64url')
  return createPublicKey({ key: { kty: 'OKP', crv: curve, x }, format: 'jwk' })
}

const fromBase64url = (text: string | undefined): Bytes => copyBytes(Buffer.from(text ?? '', 'base64url'))

/** Of an imported key only: on Node 20 this export can hang on one that was just generated. */
const publicBytes = (privateKey: KeyObject): Bytes =>
  fromBase64url(createPublicKey(privateKey).export({ format: 'jwk' }).x)

/**
 * An X25519 private key, 32 bytes, as a KeyObject: V8 never sees the bytes, and a pool worker can be given it. It lives until
 * the collector takes it; OpenSSL then erases it.
 */
export const x25519PrivateKeyObject = (privateKey: Secret): KeyObject => privateKeyObject('X25519', privateKey)

const asX25519 = (privateKey: Secret | KeyObject): KeyObject => {
  const key = privateKey instanceof Secret ? x25519PrivateKeyObject(privateKey) : privateKey
  if (key.type !== 'private' || key.asymmetricKeyType !== 'x25519') throw new TypeError('Not an X25519 private key')
  return key
}

export const x25519PublicKey = (privateKey: Secret | KeyObject): Bytes => publicBytes(asX25519(privateKey))

/** As documented; Node’s types lack an encoded public half beside a KeyObject. */
const generateX25519 = generateKeyPairSync as unknown as (
  type: 'x25519',
  options: { publicKeyEncoding: { format: 'jwk' } },
) => { privateKey: KeyObject; publicKey: { x: string } }

/**
 * A new key pair whose private half is OpenSSL’s from its first byte on, so that nothing of it needs wiping. The public half is
 * encoded at generation: see `publicBytes`.
 */
export const x25519Ephemeral = (): { privateKey: KeyObject; publicKey: Bytes } => {
  const { privateKey, publicKey } = generateX25519('x25519', { publicKeyEncoding: { format: 'jwk' } })
  return { privateKey, publicKey: fromBase64url(publicKey.x) }
}

/**
 * RFC 7748 §6.1, the check for an all-zero result included: OpenSSL makes it.
 * @throws {KeyriseError} ERR_KEY_INVALID: `publicKey` is of low order.
 */
export const x25519Agree = (privateKey: Secret | KeyObject, publicKey: Uint8Array): Secret => {
  const keys = { privateKey: asX25519(privateKey), publicKey: publicKeyObject('X25519', publicKey) }
  try {
    return Secret.take(diffieHellman(keys))
  } catch {
    throw new KeyriseError('ERR_KEY_INVALID', { detail: 'low order' })
  }
}

/** @param seed - 32 bytes, borrowed. */
export const ed25519FromSeed = (seed: Secret): { privateKey: KeyObject; publicKey: Bytes } => {
  const privateKey = privateKeyObject('Ed25519', seed)
  return { privateKey, publicKey: publicBytes(privateKey) }
}

export const ed25519Sign = (privateKey: KeyObject, message: Uint8Array): Bytes =>
  copyBytes(sign(null, message, privateKey))

/** False for whatever is not a signature of `message`, keys and signatures of a wrong size included. */
export const ed25519Verify = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean =>
  publicKey.length === KEY_SIZE && verify(null, message, verificationKey(publicKey), signature)

/** The last one is kept: an enclave verifies what one KMS signs, and the import takes half as long as that. */
const verificationKey = (publicKey: Uint8Array): KeyObject => {
  if (last === undefined || !equalPublicBytes(last.publicKey, publicKey))
    last = { publicKey: copyBytes(publicKey), key: publicKeyObject('Ed25519', publicKey) }
  return last.key
}
let last: { readonly publicKey: Bytes; readonly key: KeyObject } | undefined
