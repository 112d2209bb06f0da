import { createSecretKey } from 'node:crypto'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { type ItemStatus } from '../protocol/session.js'
import { encodeProofs, type ProofParts } from '../protocol/statements.js'
import { deriveOriginKey } from '../protocol/crypto/keys.js'
import { originProver } from '../protocol/crypto/root-private.js'
import type { Sealer } from './flow-desk.js'
import type { Keyring } from './keyring.js'
import type { Unsealed, Unsealer, UnsealTask } from './unseal.js'

/** What leaves the KMS because of its keys: certificates, origin keys, what envelopes held, and proofs of where it came from. */
export class Release {
  readonly #certificates = new Map<string, readonly Bytes[]>()
  readonly #keyring: Keyring
  readonly #unsealer: Unsealer
  /** By the key’s name: to make one ready takes longer than to sign with it. */
  readonly #provers = new Map<string, (parts: ProofParts) => Bytes>()

  constructor(keyring: Keyring, unsealer: Unsealer) {
    this.#keyring = keyring
    this.#unsealer = unsealer
  }

  /** Of the root keys for what is sealed to `id`: the one to seal to, then the others that open. @throws {KeyriseError} ERR_KEY_UNKNOWN. */
  certificates(id: string): readonly Bytes[] {
    const known = this.#certificates.get(id) ?? this.#keyring.certificates(id)
    this.#certificates.set(id, known)
    return known
  }

  /** The keyring has changed: what is certified follows. */
  renew(): void {
    this.#certificates.clear()
    this.forget()
  }

  /** Lets go of the keys that proofs were signed with; the next proof makes its key ready again. */
  forget(): void {
    this.#provers.clear()
  }

  /** Ed25519 by the KMS identity over a structure that names itself. */
  sign(message: Uint8Array): Bytes {
    return this.#keyring.sign(message)
  }

  /** The key under which this image tags what it seals for this flow. The caller zero-fills it. */
  originKey({ flow, image }: Sealer): Bytes {
    using key = deriveOriginKey(this.#keyring.originSecret, flow, image)
    return key.expose(copyBytes)
  }

  /** Opens what enclaves of this flow and image sealed to root keys. The caller zero-fills `secrets`. */
  unseal({ flow, image }: Sealer, kind: UnsealTask['kind'], items: readonly Bytes[]): Promise<Unsealed> {
    using key = deriveOriginKey(this.#keyring.originSecret, flow, image)
    return this.#unsealer.unseal({ kind, items, flow, image, originKey: key.expose((bytes) => createSecretKey(bytes)) })
  }

  /** A signature by the origin half of each root key that opened one of `items` (M12). */
  prove(items: readonly ItemStatus[], parts: ProofParts): Bytes {
    const used = this.#keyring.rootKeys.filter(({ key }) => items.some((item) => item.key === key))
    return encodeProofs(used.map((root) => ({ key: root.key, signature: this.#proverOf(root)(parts) })))
  }

  #proverOf(root: Keyring['rootKeys'][number]): (parts: ProofParts) => Bytes {
    const known = this.#provers.get(root.key)
    if (known !== undefined) return known
    const prover = originProver(root)
    this.#provers.set(root.key, prover)
    return prover
  }
}
