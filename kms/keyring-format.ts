import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import { DESTROYED_KEY_COUNT_MAX, ROOT_KEY_COUNT_MAX } from '../protocol/limits.js'
import {
  encodeCertificateBody,
  isRootSuite,
  readRootCertificate,
  type RootCertificate,
} from '../protocol/statements.js'
import { ed25519Signer } from '../protocol/crypto/keys.js'
import { certificateOf, ROOT_SECRET_SIZE_BYTES_MAX } from '../protocol/crypto/root-private.js'
import { Secret } from '../protocol/crypto/secret.js'
import { parseKeyName, type DestroyedKey, type RootKey, type RootKeys } from './root-keys.js'

/**
 * The plaintext of a keyring’s file: u32 size ‖ CBOR with the public halves ‖ the secrets: identity seed and origin secret, 32
 * bytes each, then for each root key its private key and its origin key, of the sizes that the CBOR says. So no secret ever
 * passes through a decoder. Version 1, which is still read, had X25519 keys only, all secrets of 32 bytes, and two states.
 */

export interface KeyringParts {
  readonly identitySeed: Secret
  readonly originSecret: Secret
  readonly keys: RootKeys
  readonly revision: number
}

const FORMAT = 'keyrise/v2/keyring'
const FORMAT_1 = 'keyrise/v1/keyring'
const FORMAT_ANY = /^keyrise\/v([1-9]\d{0,5})\/keyring$/
const FORMAT_VERSION = 2
const SEED_SIZE = 32
const CODE = 'ERR_KEYRING_INVALID'

const refuse = (detail: string): never => {
  throw new KeyriseError(CODE, { detail })
}

/** @returns to be zero-filled. */
export const encodeKeyring = ({ identitySeed, originSecret, keys, revision }: KeyringParts): Bytes => {
  using signer = ed25519Signer(identitySeed)
  const meta = encodeCbor([
    FORMAT,
    {
      identity: signer.publicKey,
      revision,
      keys: keys.live.map(({ state, destroyAtMs, certificate, privateKey, originKey }) => ({
        ...certificate,
        state,
        destroyAtMs,
        sizes: [privateKey.size, originKey.size],
      })),
      destroyed: keys.destroyed.map((key) => ({ ...key })),
    },
  ])
  const secrets = [
    identitySeed,
    originSecret,
    ...keys.live.flatMap(({ privateKey, originKey }) => [privateKey, originKey]),
  ]
  const plaintext = allocate(4 + meta.length + secrets.reduce((size, secret) => size + secret.size, 0))
  new DataView(plaintext.buffer).setUint32(0, meta.length)
  plaintext.set(meta, 4)
  let end = 4 + meta.length
  for (const secret of secrets) {
    secret.expose((bytes) => {
      plaintext.set(bytes, end)
    })
    end += secret.size
  }
  return plaintext
}

/**
 * Reads what was authenticated: what is wrong here is of another version, or a fault of ours.
 * @param plaintext - its secrets are moved out: zero-filled where they were.
 * @throws {KeyriseError} ERR_KEYRING_INVALID, ERR_KEYRING_NEWER.
 */
export const parseKeyring = (plaintext: Bytes): KeyringParts => {
  const metaSize = plaintext.length >= 4 ? new DataView(plaintext.buffer).getUint32(0) : plaintext.length
  if (4 + metaSize > plaintext.length) refuse('sizes')
  const stated = readMeta(plaintext.subarray(4, 4 + metaSize))
  const sizes = [SEED_SIZE, SEED_SIZE, ...stated.keys.flatMap((key) => key.sizes)]
  if (plaintext.length !== 4 + metaSize + sizes.reduce((sum, size) => sum + size, 0)) refuse('sizes')
  let end = 4 + metaSize
  const secrets = sizes.map((size) => Secret.take(plaintext.subarray(end, (end += size))))
  try {
    return joined(stated, secrets)
  } catch (error) {
    for (const secret of secrets) secret[Symbol.dispose]()
    throw error
  }
}

const joined = ({ identity, revision, keys, destroyed }: Stated, secrets: readonly Secret[]): KeyringParts => {
  const [identitySeed, originSecret, ...halves] = secrets as [Secret, Secret, ...Secret[]]
  using signer = ed25519Signer(identitySeed)
  if (!equalPublicBytes(signer.publicKey, identity)) refuse('its halves do not match')
  const live = keys.map(({ state, destroyAtMs, certificate }, index): RootKey => {
    const [privateKey, originKey] = halves.slice(2 * index, 2 * index + 2) as [Secret, Secret]
    const { key, suite } = certificate
    const made = certificateOf(key, { suite, privateKey, originKey })
    if (!equalPublicBytes(encodeCertificateBody(made), encodeCertificateBody(certificate)))
      refuse('its halves do not match')
    return { key, suite, state, destroyAtMs, certificate, privateKey, originKey }
  })
  if (!isWhole(live, destroyed)) refuse('its keys or their states')
  return { identitySeed, originSecret, keys: { live, destroyed }, revision }
}

/** True for what changes of root keys make: of each id the newest version is enabled, in order, each name once. */
const isWhole = (live: readonly RootKey[], destroyed: readonly DestroyedKey[]): boolean => {
  const newest = new Map<string, number>()
  const isInOrder = live.every(({ key, state, destroyAtMs }) => {
    const { id, version } = parseKeyName(key, CODE)
    const after = newest.get(id)
    newest.set(id, version)
    const isFirst = after === undefined
    if ((state === 'enabled') !== isFirst || (destroyAtMs !== null && state !== 'disabled')) return false
    return isFirst || version < after
  })
  const names = [...live, ...destroyed].map(({ key }) => key)
  return live.length > 0 && isInOrder && new Set(names).size === names.length
}

interface StatedKey extends Pick<RootKey, 'state' | 'destroyAtMs'> {
  readonly certificate: RootCertificate
  readonly sizes: readonly [privateKey: number, originKey: number]
}
interface Stated {
  readonly identity: Bytes
  readonly revision: number
  readonly keys: readonly StatedKey[]
  readonly destroyed: readonly DestroyedKey[]
}

const readMeta = (bytes: Bytes): Stated => {
  const meta = decodeCbor(bytes)
  if (!Array.isArray(meta) || meta.length !== 2) return refuse('not a keyring')
  switch (meta[0]) {
    case FORMAT:
      return readVersion2(meta[1])
    case FORMAT_1:
      return readVersion1(meta[1])
    default:
      return refuseFormat(meta[0])
  }
}

const refuseFormat = (format: unknown): never => {
  const version = typeof format === 'string' ? Number(FORMAT_ANY.exec(format)?.[1]) : NaN
  if (version > FORMAT_VERSION) throw new KeyriseError('ERR_KEYRING_NEWER', { detail: `format ${String(version)}` })
  return refuse('not a keyring')
}

const readVersion2 = (claimed: unknown): Stated => {
  const fields = new FieldReader(claimed, ['identity', 'revision', 'keys', 'destroyed'], CODE)
  return {
    identity: fields.bytes('identity', 32),
    revision: fields.count('revision', Number.MAX_SAFE_INTEGER - 1, 1),
    keys: fields.list('keys', ROOT_KEY_COUNT_MAX, readKey),
    destroyed: fields.list('destroyed', DESTROYED_KEY_COUNT_MAX, readDestroyed),
  }
}

const readVersion1 = (claimed: unknown): Stated => {
  const fields = new FieldReader(claimed, ['identity', 'keys'], CODE)
  const keys = fields.list('keys', ROOT_KEY_COUNT_MAX, readKey1)
  return { identity: fields.bytes('identity', 32), revision: keys.length, keys, destroyed: [] }
}

const CERTIFICATE_FIELDS = ['key', 'suite', 'encryptionKey', 'originKey']

const readKey = (claimed: unknown): StatedKey => {
  const fields = new FieldReader(claimed, [...CERTIFICATE_FIELDS, 'state', 'destroyAtMs', 'sizes'], CODE)
  const state = fields.text('state', 16)
  if (state !== 'enabled' && state !== 'decrypt-only' && state !== 'disabled') return fields.refuse('state')
  const [privateKey = 0, originKey = 0, ...more] = fields.list('sizes', 2, readSize)
  if (more.length > 0 || privateKey === 0 || originKey === 0) return fields.refuse('sizes')
  return {
    state,
    destroyAtMs: fields.has('destroyAtMs') ? fields.count('destroyAtMs') : null,
    certificate: readRootCertificate(fields),
    sizes: [privateKey, originKey],
  }
}

const readSize = (claimed: unknown): number =>
  new FieldReader({ size: claimed }, ['size'], CODE).count('size', ROOT_SECRET_SIZE_BYTES_MAX, 1)

const readKey1 = (claimed: unknown): StatedKey => {
  const fields = new FieldReader(claimed, [...CERTIFICATE_FIELDS, 'state'], CODE)
  const state = fields.text('state', 16)
  const certificate = readRootCertificate(fields)
  if ((state !== 'enabled' && state !== 'decrypt-only') || certificate.suite !== 'x25519') return fields.refuse('state')
  return { state, destroyAtMs: null, certificate, sizes: [SEED_SIZE, SEED_SIZE] }
}

const readDestroyed = (claimed: unknown): DestroyedKey => {
  const fields = new FieldReader(claimed, ['key', 'suite', 'destroyedAtMs'], CODE)
  const suite = fields.text('suite', 32)
  if (!isRootSuite(suite)) return fields.refuse('suite')
  const key = fields.text('key', 64)
  parseKeyName(key, CODE)
  return { key, suite, destroyedAtMs: fields.count('destroyedAtMs') }
}
