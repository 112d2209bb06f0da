import { equalPublicBytes } from '../protocol/bytes.js'
import { claimsEdDsa } from '../protocol/cose.js'
import { KeyriseError } from '../protocol/errors.js'
import { readEvidence, type Claims } from '../protocol/evidence.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import type { Policy } from './policy.js'

/**
 * Appraises evidence of one kind of platform. RATS (RFC 9334): a Verifier, which a KMS has one of for each format that its policy
 * lists. docs/attestation.md says what one has to check.
 */
export interface Verifier {
  /** The format’s name, by which a policy lists it: `simulated`, `nitro`. */
  readonly format: string
  /** True for bytes that claim to be of this format, whoever made them: that one verifier appraises them. Never throws. */
  recognises(claimed: Uint8Array): boolean
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
  readonly format = 'simulated'
  readonly #platforms: readonly Uint8Array[]
  readonly #allowDebug: boolean

  /** @param policy - of which only `platforms` and `allowDebug` are read. */
  constructor({ platforms, allowDebug = false }: Pick<Policy, 'platforms' | 'allowDebug'>) {
    this.#platforms = platforms
    this.#allowDebug = allowDebug
  }

  recognises(claimed: Uint8Array): boolean {
    return claimsEdDsa(claimed)
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

/** Verifiers by the format of what comes: one of several kinds of platform. */
export class Verifiers implements Pick<Verifier, 'appraise'> {
  readonly #verifiers: readonly Verifier[]

  /**
   * @param formats - those that the policy lists. @param available - of one format the last counts.
   * @throws {KeyriseError} ERR_CONFIG_INVALID: a format that none of them is of.
   */
  constructor(formats: readonly string[], available: readonly Verifier[]) {
    this.#verifiers = formats.map((format) => {
      const verifier = available.findLast((one) => one.format === format)
      if (verifier !== undefined) return verifier
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `evidence: this KMS has no verifier of ${format}` })
    })
  }

  appraise(...[claimed, expected]: Parameters<Verifier['appraise']>): Promise<Claims> {
    const verifier = this.#verifiers.find((one) => one.recognises(claimed))
    return verifier === undefined
      ? Promise.reject(new KeyriseError('ERR_EVIDENCE_REFUSED', { detail: 'its format is none that the policy lists' }))
      : verifier.appraise(claimed, expected)
  }
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_EVIDENCE_REFUSED', { detail })
}
