import { parseHeader } from '../protocol/age-header.js'
import type { Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Random } from '../protocol/ports.js'
import { encodeCertificateBody, joinCertificate } from '../protocol/statements.js'
import { openEnvelope, sealEnvelope } from '../protocol/crypto/envelope.js'
import { ed25519Signer, type KeyPairSigner } from '../protocol/crypto/keys.js'
import { scryptIdentity, scryptRecipient } from '../protocol/crypto/recipients.js'
import { makeSeeds, type RootSecrets } from '../protocol/crypto/root-private.js'
import { Secret } from '../protocol/crypto/secret.js'
import { encodeKeyring, parseKeyring, type KeyringParts } from './keyring-format.js'
import {
  enabledKey,
  openingKeys,
  ROOT_ID,
  withNext,
  type DestroyedKey,
  type RootKey,
  type RootKeys,
} from './root-keys.js'

/** How long scrypt takes: 2^18 is 256 MiB and about a second. */
export const KEYRING_LOG_N = 18
export const KEYRING_SIZE_BYTES_MAX = 1024 * 1024
const SECRET_BYTES = 32
const CODE = 'ERR_KEYRING_INVALID'

/**
 * All the keys of a KMS. As a file: an age passphrase file with both halves of every pair (keyring-format.ts), so that all of
 * them are in custody.
 */
export class Keyring implements Disposable {
  /** The KMS identity, Ed25519: 32 bytes that every enclave trusts by name. */
  readonly identity: Bytes
  /** Derives the keys under which enclaves tag what they seal. */
  readonly originSecret: Secret
  readonly #identitySeed: Secret
  /** Made once: to import the seed takes thirty times as long as to sign with it. */
  readonly #signer: KeyPairSigner
  #keys: RootKeys
  #revision: number

  private constructor({ identitySeed, originSecret, keys, revision }: KeyringParts) {
    this.#identitySeed = identitySeed
    this.originSecret = originSecret
    this.#keys = keys
    this.#revision = revision
    this.#signer = ed25519Signer(identitySeed)
    this.identity = this.#signer.publicKey
  }

  /** A new identity and `root@1`. @param secrets - of the root key, taken over; X25519 unless told. */
  static create(random: Random, secrets: RootSecrets = makeSeeds('x25519', random)): Keyring {
    const fresh = (): Secret => Secret.random(SECRET_BYTES, random)
    const keys = withNext({ live: [], destroyed: [] }, ROOT_ID, secrets)
    return new Keyring({ identitySeed: fresh(), originSecret: fresh(), keys, revision: 1 })
  }

  get keys(): RootKeys {
    return this.#keys
  }

  /** Those that have their secret halves, the newest first. */
  get rootKeys(): readonly [RootKey, ...RootKey[]] {
    return this.#keys.live as [RootKey, ...RootKey[]]
  }

  get destroyedKeys(): readonly DestroyedKey[] {
    return this.#keys.destroyed
  }

  /** Counts the changes: of two copies of one keyring, the one with the higher number is the newer. */
  get revision(): number {
    return this.#revision
  }

  /**
   * Takes changed root keys over, and disposes of the secrets that they no longer have. In memory: `seal` makes the file.
   * @param keys - made from `keys` of this keyring by root-keys.ts.
   */
  change(keys: RootKeys): void {
    const before = this.#keys.live
    this.#keys = keys
    this.#revision++
    const kept = new Set(keys.live.map(({ privateKey }) => privateKey))
    disposeOf(before.filter(({ privateKey }) => !kept.has(privateKey)))
  }

  /** Makes a newest version of `root`; those before stay, to open. In memory, as `change`. @throws {KeyriseError} ERR_SIZE_LIMIT. */
  rotate(random: Random): void {
    this.change(withNext(this.#keys, ROOT_ID, makeSeeds('x25519', random)))
  }

  /**
   * @param claimed - the file. @param passphrase - borrowed.
   * @throws {KeyriseError} ERR_PASSPHRASE_WRONG; ERR_KEYRING_INVALID: damaged; ERR_KEYRING_NEWER.
   */
  static open(claimed: Uint8Array, passphrase: Secret): Keyring {
    const plaintext = unseal(claimed, passphrase)
    try {
      return new Keyring(parseKeyring(plaintext))
    } catch (error) {
      throw isKeyriseError(error, CODE, 'ERR_KEYRING_NEWER') ? error : new KeyriseError(CODE)
    } finally {
      plaintext.fill(0)
    }
  }

  /** scrypt’s, of a keyring’s file that opened. */
  static workFactor(file: Uint8Array): number {
    return Number(parseHeader(file).stanzas[0]?.args[2] ?? KEYRING_LOG_N)
  }

  /**
   * The file that `open` opens. @param options.passphrase - borrowed. @param options.logN - scrypt’s work factor.
   * @param options.keys - that `change` would take over; those of this keyring unless told.
   */
  seal(options: {
    readonly passphrase: Secret
    readonly random: Random
    readonly logN?: number
    readonly keys?: RootKeys
  }): Bytes {
    const { passphrase, random, logN = KEYRING_LOG_N, keys = this.#keys } = options
    const plaintext = encodeKeyring({
      identitySeed: this.#identitySeed,
      originSecret: this.originSecret,
      keys,
      revision: keys === this.#keys ? this.#revision : this.#revision + 1,
    })
    try {
      return sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, logN)], random })
    } finally {
      plaintext.fill(0)
    }
  }

  /** Ed25519 by the KMS identity over a structure that names itself (docs/kms.md). */
  sign(message: Uint8Array): Bytes {
    return this.#signer.sign(message)
  }

  /** The enabled version of `id` first, to seal to; then the others that open, to verify what comes back. @throws {KeyriseError} ERR_KEY_UNKNOWN. */
  certificates(id = ROOT_ID): Bytes[] {
    const first = enabledKey(this.#keys, id)
    return [first, ...openingKeys(this.#keys).filter((key) => key !== first)].map(({ certificate }) => {
      const body = encodeCertificateBody(certificate)
      return joinCertificate(body, this.sign(body))
    })
  }

  [Symbol.dispose](): void {
    this.#signer[Symbol.dispose]()
    this.#identitySeed[Symbol.dispose]()
    this.originSecret[Symbol.dispose]()
    disposeOf(this.#keys.live)
  }
}

const disposeOf = (keys: readonly RootKey[]): void => {
  for (const { privateKey, originKey } of keys) {
    privateKey[Symbol.dispose]()
    originKey[Symbol.dispose]()
  }
}

const unseal = (claimed: Uint8Array, passphrase: Secret): Bytes => {
  if (claimed.length > KEYRING_SIZE_BYTES_MAX) throw new KeyriseError(CODE, { detail: 'size' })
  try {
    return openEnvelope(claimed, { identities: [scryptIdentity(passphrase)] }).plaintext
  } catch (error) {
    throw new KeyriseError(isKeyriseError(error, 'ERR_IDENTITY_MISMATCH') ? 'ERR_PASSPHRASE_WRONG' : CODE, {
      cause: error,
    })
  }
}
