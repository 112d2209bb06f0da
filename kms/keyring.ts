import { parseHeader } from '../protocol/age-header.js'
import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { ROOT_KEY_COUNT_MAX } from '../protocol/limits.js'
import type { Random } from '../protocol/ports.js'
import { encodeCertificateBody, joinCertificate, type RootCertificate } from '../protocol/statements.js'
import { openEnvelope, sealEnvelope } from '../protocol/crypto/envelope.js'
import { ed25519Signer, type KeyPairSigner } from '../protocol/crypto/keys.js'
import { x25519PublicKey } from '../protocol/crypto/curves.js'
import { scryptIdentity, scryptRecipient } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'

/** One version of a root key: an encryption half, and apart from it an origin half that signs what came out. */
export interface RootKey {
  /** `root@1` */
  readonly key: string
  readonly suite: 'x25519'
  /** Enclaves seal to the one that is enabled, the newest; the others stay to open what was sealed to them. */
  readonly state: 'enabled' | 'decrypt-only'
  /** X25519, 32 bytes. */
  readonly privateKey: Secret
  /** Ed25519, 32 bytes. */
  readonly originSeed: Secret
  readonly certificate: RootCertificate
}

/** How long scrypt takes: 2^18 is 256 MiB and about a second. */
export const KEYRING_LOG_N = 18
export const KEYRING_SIZE_BYTES_MAX = 1024 * 1024
const SECRET_BYTES = 32
const FORMAT = 'keyrise/v1/keyring'
const CODE = 'ERR_KEYRING_INVALID'

/**
 * All the keys of a KMS. As a file: an age passphrase file, whose plaintext is u32 size ‖ CBOR with the public halves ‖ the
 * secrets, 32 bytes each: identity seed, origin secret, then for each root key its private key and its origin seed. So both
 * halves of every pair are in custody, and no secret ever passes through a decoder.
 */
export class Keyring implements Disposable {
  /** The KMS identity, Ed25519: 32 bytes that every enclave trusts by name. */
  readonly identity: Bytes
  /** Derives the keys under which enclaves tag what they seal. */
  readonly originSecret: Secret
  readonly #identitySeed: Secret
  /** Made once: to import the seed takes thirty times as long as to sign with it. */
  readonly #signer: KeyPairSigner
  #rootKeys: readonly RootKey[]

  private constructor(identitySeed: Secret, originSecret: Secret, rootKeys: readonly RootKey[]) {
    this.#identitySeed = identitySeed
    this.originSecret = originSecret
    this.#rootKeys = rootKeys
    this.#signer = ed25519Signer(identitySeed)
    this.identity = this.#signer.publicKey
  }

  static create(random: Random): Keyring {
    const fresh = (): Secret => Secret.random(SECRET_BYTES, random)
    return new Keyring(fresh(), fresh(), [makeRootKey(1, fresh(), fresh())])
  }

  /** Newest first. */
  get rootKeys(): readonly [RootKey, ...RootKey[]] {
    return this.#rootKeys as [RootKey, ...RootKey[]]
  }

  /** Makes a newest root key; those before stay, to open. In memory: `seal` makes the file. @throws {KeyriseError} ERR_SIZE_LIMIT. */
  rotate(random: Random): void {
    const [newest] = this.rootKeys
    if (this.#rootKeys.length >= ROOT_KEY_COUNT_MAX)
      throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${String(ROOT_KEY_COUNT_MAX)} root keys` })
    const fresh = (): Secret => Secret.random(SECRET_BYTES, random)
    const key = makeRootKey(versionOf(newest.key) + 1, fresh(), fresh())
    this.#rootKeys = [key, ...this.#rootKeys.map((older): RootKey => ({ ...older, state: 'decrypt-only' }))]
  }

  /**
   * @param claimed - the file. @param passphrase - borrowed.
   * @throws {KeyriseError} ERR_PASSPHRASE_WRONG; ERR_KEYRING_INVALID: damaged, or of another version.
   */
  static open(claimed: Uint8Array, passphrase: Secret): Keyring {
    const plaintext = unseal(claimed, passphrase)
    try {
      return parseKeyring(plaintext, (...parts) => new Keyring(...parts))
    } catch (error) {
      throw isKeyriseError(error, CODE) ? error : new KeyriseError(CODE)
    } finally {
      plaintext.fill(0)
    }
  }

  /** scrypt’s, of a keyring’s file that opened. */
  static workFactor(file: Uint8Array): number {
    return Number(parseHeader(file).stanzas[0]?.args[2] ?? KEYRING_LOG_N)
  }

  /** The file that `open` opens. @param options.passphrase - borrowed. @param options.logN - scrypt’s work factor. */
  seal(options: { readonly passphrase: Secret; readonly random: Random; readonly logN?: number }): Bytes {
    const { passphrase, random, logN = KEYRING_LOG_N } = options
    const meta = encodeCbor([
      FORMAT,
      { identity: this.identity, keys: this.rootKeys.map(({ state, certificate }) => ({ state, ...certificate })) },
    ])
    const secrets = [
      this.#identitySeed,
      this.originSecret,
      ...this.rootKeys.flatMap(({ privateKey, originSeed }) => [privateKey, originSeed]),
    ]
    const plaintext = allocate(4 + meta.length + secrets.length * SECRET_BYTES)
    try {
      new DataView(plaintext.buffer).setUint32(0, meta.length)
      plaintext.set(meta, 4)
      secrets.forEach((secret, index) => {
        secret.expose((bytes) => {
          plaintext.set(bytes, 4 + meta.length + index * SECRET_BYTES)
        })
      })
      return sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, logN)], random })
    } finally {
      plaintext.fill(0)
    }
  }

  /** Ed25519 by the KMS identity over a structure that names itself (docs/kms.md). */
  sign(message: Uint8Array): Bytes {
    return this.#signer.sign(message)
  }

  /** Certificates of the root keys, newest first: that one to seal to, all of them to verify what comes back. */
  certificates(): Bytes[] {
    return this.rootKeys.map(({ certificate }) => {
      const body = encodeCertificateBody(certificate)
      return joinCertificate(body, this.sign(body))
    })
  }

  [Symbol.dispose](): void {
    this.#signer[Symbol.dispose]()
    this.#identitySeed[Symbol.dispose]()
    this.originSecret[Symbol.dispose]()
    for (const { privateKey, originSeed } of this.rootKeys) {
      privateKey[Symbol.dispose]()
      originSeed[Symbol.dispose]()
    }
  }
}

const KEY_ID = /^root@([1-9]\d{0,8})$/

/** @throws {KeyriseError} ERR_KEYRING_INVALID. */
const versionOf = (key: string): number => {
  const version = KEY_ID.exec(key)?.[1]
  if (version === undefined) throw new KeyriseError(CODE, { detail: 'a key’s name' })
  return Number(version)
}

const makeRootKey = (version: number, privateKey: Secret, originSeed: Secret): RootKey => {
  using signer = ed25519Signer(originSeed)
  const certificate: RootCertificate = {
    key: `root@${String(version)}`,
    suite: 'x25519',
    encryptionKey: x25519PublicKey(privateKey),
    originKey: signer.publicKey,
  }
  return { key: certificate.key, suite: 'x25519', state: 'enabled', privateKey, originSeed, certificate }
}

const unseal = (claimed: Uint8Array, passphrase: Secret): Bytes => {
  try {
    return openEnvelope(claimed, { identities: [scryptIdentity(passphrase)] }).plaintext
  } catch (error) {
    throw new KeyriseError(isKeyriseError(error, 'ERR_IDENTITY_MISMATCH') ? 'ERR_PASSPHRASE_WRONG' : CODE, {
      cause: error,
    })
  }
}

type Parts = readonly [identitySeed: Secret, originSecret: Secret, rootKeys: readonly RootKey[]]

/** Reads the plaintext of a keyring, which was authenticated: what is wrong here is another version, or a fault of ours. */
const parseKeyring = (plaintext: Bytes, make: (...parts: Parts) => Keyring): Keyring => {
  const metaSize = plaintext.length >= 4 ? new DataView(plaintext.buffer).getUint32(0) : plaintext.length
  if (4 + metaSize > plaintext.length) throw new KeyriseError(CODE, { detail: 'sizes' })
  const meta = decodeCbor(plaintext.subarray(4, 4 + metaSize))
  if (!Array.isArray(meta) || meta.length !== 2 || meta[0] !== FORMAT)
    throw new KeyriseError(CODE, { detail: 'not a keyring of this version' })
  const fields = new FieldReader(meta[1], ['identity', 'keys'], CODE)
  const stated = fields.list('keys', ROOT_KEY_COUNT_MAX, readStated)
  if (plaintext.length !== 4 + metaSize + (2 + 2 * stated.length) * SECRET_BYTES)
    throw new KeyriseError(CODE, { detail: 'sizes' })
  const identity = fields.bytes('identity', 32)
  const taken: Secret[] = []
  const secretAt = (index: number): Secret => {
    const start = 4 + metaSize + index * SECRET_BYTES
    const secret = Secret.take(plaintext.subarray(start, start + SECRET_BYTES))
    taken.push(secret)
    return secret
  }
  try {
    const rootKeys = stated.map(({ state, certificate }, index) => ({
      ...makeRootKey(versionOf(certificate.key), secretAt(2 + 2 * index), secretAt(3 + 2 * index)),
      state,
    }))
    const keyring = make(secretAt(0), secretAt(1), rootKeys)
    if (!equalPublicBytes(keyring.identity, identity) || !isWhole(rootKeys, stated))
      throw new KeyriseError(CODE, { detail: 'its halves do not match' })
    return keyring
  } catch (error) {
    for (const secret of taken) secret[Symbol.dispose]()
    throw error
  }
}

/** True where the secret halves give the public ones, in the order and states that a rotation makes. */
const isWhole = (rootKeys: readonly RootKey[], stated: readonly Stated[]): boolean =>
  rootKeys.length > 0 &&
  rootKeys.every(({ certificate, state }, index) => {
    const claimed = stated[index]?.certificate ?? certificate
    const isInOrder = index === 0 || versionOf(certificate.key) < versionOf(rootKeys[index - 1]?.key ?? '')
    const isRightState = (state === 'enabled') === (index === 0)
    return (
      isInOrder && isRightState && equalPublicBytes(encodeCertificateBody(certificate), encodeCertificateBody(claimed))
    )
  })

type Stated = Pick<RootKey, 'state' | 'certificate'>
const readStated = (claimed: unknown): Stated => {
  const f = new FieldReader(claimed, ['state', 'key', 'suite', 'encryptionKey', 'originKey'], CODE)
  const state = f.text('state', 16)
  if ((state !== 'enabled' && state !== 'decrypt-only') || f.text('suite', 32) !== 'x25519')
    throw new KeyriseError(CODE, { detail: 'not a keyring of this version' })
  const certificate: RootCertificate = {
    key: f.text('key', 64),
    suite: 'x25519',
    encryptionKey: f.bytes('encryptionKey', 32),
    originKey: f.bytes('originKey', 32),
  }
  return { state, certificate }
}
