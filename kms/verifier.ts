import { equalPublicBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { readEvidence, type Claims } from '../protocol/evidence.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import type { Policy } from './policy.js'

/** Appraises evidence. RATS (RFC 9334): the Verifier. One for each kind of platform. */
export interface Verifier {
  /**
   * @param expected - what the evidence must be bound to: this handshake, and the key of its other end.
   * @returns claims to rely on. @throws {KeyriseError} ERR_EVIDENCE_REFUSED, naming what is wrong.
   */
  appraise(
    claimed: Uint8Array,
    expected: { readonly nonce: Uint8Array; readonly confirmationKey: Uint8Array },
  ): Promise<Claims>
}

/** Appraises evidence of simulated platforms (protocol/evidence.ts), each known by its Ed25519 key. */
export class SimulatedVerifier implements Verifier {
  readonly #platforms: readonly Uint8Array[]
  readonly #allowDebug: boolean

  /** @param policy - of which only `platforms` and `allowDebug` are read. */
  constructor({ platforms, allowDebug = false }: Pick<Policy, 'platforms' | 'allowDebug'>) {
    this.#platforms = platforms
    this.#allowDebug = allowDebug
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- other verifiers fetch certificates
  async appraise(
    claimed: Uint8Array,
    expected: { readonly nonce: Uint8Array; readonly confirmationKey: Uint8Array },
  ): Promise<Claims> {
    const { toSign, signature, claims } = readEvidence(claimed)
    if (!this.#platforms.some((key) => verifyEd25519(key, toSign, signature)))
      return refuse('no platform that the policy lists signed it')
    if (!equalPublicBytes(claims.nonce, expected.nonce)) return refuse('it was made for another handshake')
    if (!equalPublicBytes(claims.confirmationKey, expected.confirmationKey)) return refuse('it binds another key')
    if (claims.debug && !this.#allowDebug) return refuse('it is of a debug image, and the policy has no allowDebug')
    return claims
  }
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_EVIDENCE_REFUSED', { detail })
}
