import { constants, createPublicKey, privateDecrypt, publicEncrypt, type KeyObject } from 'node:crypto'
import { encodeBase64 } from '../age-header.js'
import { allocate, asciiBytes, concatBytes, copyBytes, equalPublicBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import { sha256 } from './primitives.js'
import { decodeArgument, FILE_KEY_SIZE, malformed, readArguments, type Identity, type Recipient } from './recipients.js'
import { Secret } from './secret.js'

/**
 * The `ssh-rsa` recipient of the Go `age` (agessh): the file key under RSA-OAEP (RFC 8017 §7.1) with SHA-256 and a label of its
 * own, for keys of 3072 or 4096 bits. A stanza names its key by four bytes of a hash.
 */

const TYPE = 'ssh-rsa'
const MODULUS_BITS: readonly (number | undefined)[] = [3072, 4096]
const TAG_SIZE = 4
const EXPONENT_SIZE_MAX = 8
/** Whole, with a comment, of a key of 4096 bits. */
const TEXT_LENGTH_MAX = 2048

const OAEP = {
  padding: constants.RSA_PKCS1_OAEP_PADDING,
  oaepHash: 'sha256',
  oaepLabel: asciiBytes('age-encryption.org/v1/ssh-rsa'),
}

const invalid = (detail: string): never => {
  throw new KeyriseError('ERR_KEY_INVALID', { detail })
}

/** @throws {KeyriseError} ERR_KEY_INVALID. */
const modulusSize = (key: KeyObject): number => {
  const bits = key.asymmetricKeyType === 'rsa' ? key.asymmetricKeyDetails?.modulusLength : undefined
  return bits !== undefined && MODULUS_BITS.includes(bits) ? bits / 8 : invalid('not RSA of 3072 or 4096 bits')
}

// RFC 4253 §6.6 and RFC 4251 §5: `ssh-rsa`, e, n, each behind its size

const sshString = (bytes: Uint8Array): Bytes => {
  const size = allocate(4)
  new DataView(size.buffer).setUint32(0, bytes.length)
  return concatBytes(size, bytes)
}

/** Of a positive number: a zero byte before a first bit of 1. */
const sshInteger = (bytes: Uint8Array): Bytes =>
  sshString((bytes[0] ?? 0) >= 0x80 ? concatBytes(Uint8Array.of(0), bytes) : bytes)

const sshPublicKey = (e: Uint8Array, n: Uint8Array): Bytes =>
  concatBytes(sshString(asciiBytes(TYPE)), sshInteger(e), sshInteger(n))

/** @param key - imported: on Node 20 the export can hang on a key that was just generated. */
const wireOf = (key: KeyObject): Bytes => {
  const { e = '', n = '' } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  return sshPublicKey(Buffer.from(e, 'base64url'), Buffer.from(n, 'base64url'))
}

/** The strings that `wire` is made of. */
const splitWire = (wire: Uint8Array): Uint8Array[] => {
  const view = new DataView(wire.buffer, wire.byteOffset, wire.length)
  const parts: Uint8Array[] = []
  for (let offset = 0; offset < wire.length;) {
    const start = offset + 4
    offset = start <= wire.length ? start + view.getUint32(start - 4) : Infinity
    if (offset > wire.length) return invalid('size')
    parts.push(wire.subarray(start, offset))
  }
  return parts
}

/**
 * A public key in OpenSSH’s form, `ssh-rsa AAAA… comment`.
 * @throws {KeyriseError} ERR_KEY_INVALID: it is not one, not canonical, or not of 3072 or 4096 bits.
 */
export const parseSshRsaRecipient = (text: string): KeyObject => {
  if (text.length > TEXT_LENGTH_MAX) return invalid('size')
  const [type, base64 = ''] = text.trim().split(/[ \t]+/)
  const wire = copyBytes(Buffer.from(base64, 'base64'))
  if (type !== TYPE || Buffer.from(wire).toString('base64') !== base64) return invalid('not an ssh-rsa key')
  const [, e, n] = splitWire(wire).map((part) => (part[0] === 0 ? part.subarray(1) : part))
  if (e === undefined || n === undefined || e.length > EXPONENT_SIZE_MAX) return invalid('numbers')
  if (!equalPublicBytes(sshPublicKey(e, n), wire)) return invalid('not canonical')
  const [eText, nText] = [e, n].map((number) => Buffer.from(number).toString('base64url')) as [string, string]
  const key = createPublicKey({ key: { kty: 'RSA', e: eText, n: nText }, format: 'jwk' })
  modulusSize(key)
  return key
}

/** `ssh-rsa AAAA…`. @param key - either half, imported. */
export const encodeSshRsaRecipient = (key: KeyObject): string =>
  `${TYPE} ${Buffer.from(wireOf(key)).toString('base64')}`

const tagOf = (key: KeyObject): Bytes => copyBytes(sha256(wireOf(key)).subarray(0, TAG_SIZE))

/** @param publicKey - imported. @throws {KeyriseError} ERR_KEY_INVALID. */
export const sshRsaRecipient = (publicKey: KeyObject): Recipient => {
  modulusSize(publicKey)
  const tag = encodeBase64(tagOf(publicKey))
  return {
    wrap(fileKey) {
      if (fileKey.size !== FILE_KEY_SIZE) throw new RangeError('A file key has 16 bytes')
      const body = fileKey.expose((bytes) => publicEncrypt({ key: publicKey, ...OAEP }, bytes))
      return { args: [TYPE, tag], body: copyBytes(body) }
    },
  }
}

/** @param privateKey - imported, as from PEM; V8 never sees its numbers. @throws {KeyriseError} ERR_KEY_INVALID. */
export const sshRsaIdentity = (privateKey: KeyObject): Identity => {
  if (privateKey.type !== 'private') throw new TypeError('Not an RSA private key')
  const bodySize = modulusSize(privateKey)
  const tag = tagOf(privateKey)
  return {
    unwrap(stanza) {
      if (stanza.args[0] !== TYPE) return undefined
      const [tagText = ''] = stanza.args.slice(1)
      // Another key’s stanza may be of another size.
      if (stanza.args.length === 2 && !equalPublicBytes(decodeArgument(tagText, TAG_SIZE), tag)) return undefined
      readArguments(stanza, 1, bodySize)
      const fileKey = decrypt(privateKey, stanza.body)
      if (fileKey === undefined || fileKey.size === FILE_KEY_SIZE) return fileKey
      fileKey[Symbol.dispose]()
      return malformed(`${TYPE}: the file key’s size`)
    },
  }
}

/** Nothing tells why there is none: RFC 8017 §7.1.2, note. */
const decrypt = (privateKey: KeyObject, body: Uint8Array): Secret | undefined => {
  try {
    return Secret.take(privateDecrypt({ key: privateKey, ...OAEP }, body))
  } catch {
    return undefined
  }
}
