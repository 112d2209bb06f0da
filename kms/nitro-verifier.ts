import { verify } from 'node:crypto'
import { concatBytes, equalPublicBytes, fromHex, type Bytes } from '../protocol/bytes.js'
import { decodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Claims } from '../protocol/evidence.js'
import type { Clock } from '../protocol/ports.js'
import { sha256 } from '../protocol/sha256.js'
import { claimsEs384, readNitroDocument, type NitroDocument } from './nitro-document.js'
import type { Verifier } from './verifier.js'

/** SHA-256 of the AWS Nitro Enclaves root certificate, G1, in DER, as AWS publishes it. */
export const NITRO_ROOT_FINGERPRINT = fromHex(
  '641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b',
) as Bytes

/** What identifies an enclave image: PCR0, the image; PCR1, its kernel and boot; PCR2, its application. */
const MEASURED_PCRS = [0, 1, 2] as const
const USER_DATA_ITEM_COUNT_MAX = 16

export interface NitroVerifierOptions {
  /** Says when chains have to be valid. */
  readonly clock: Pick<Clock, 'nowMs'>
  /** SHA-256 of the root certificate that counts; AWS’s unless told. */
  readonly rootFingerprint?: Uint8Array
}

/**
 * Appraises AWS Nitro attestation documents (nitro-document.ts). The enclave asks its security module for one with `nonce`, the
 * handshake’s, `public_key`, its X25519 session key as 32 bytes, and as `user_data` the deterministic CBOR of
 * `{ name, svn, configDigest }`. Its measurement is the SHA-256 of PCR0, PCR1 and PCR2, one after the other.
 */
export class NitroVerifier implements Verifier {
  readonly format = 'nitro'
  readonly #clock: Pick<Clock, 'nowMs'>
  readonly #rootFingerprint: Uint8Array

  constructor({ clock, rootFingerprint = NITRO_ROOT_FINGERPRINT }: NitroVerifierOptions) {
    this.#clock = clock
    this.#rootFingerprint = rootFingerprint
  }

  recognises(claimed: Uint8Array): boolean {
    return claimsEs384(claimed)
  }

  async appraise(
    claimed: Uint8Array,
    expected: { readonly nonce: Uint8Array; readonly confirmationKey: Uint8Array },
  ): Promise<Claims> {
    const document = await this.authenticate(claimed)
    const { nonce, publicKey, userData } = document
    const pcrs = measuredPcrs(document)
    if (pcrs.every((byte) => byte === 0)) return refuse('it is a debug instance')
    if (nonce === undefined || publicKey === undefined) return refuse('it is bound to no handshake')
    if (!equalPublicBytes(nonce, expected.nonce)) return refuse('it was made for another handshake')
    if (!equalPublicBytes(publicKey, expected.confirmationKey)) return refuse('it binds another key')
    return {
      nonce,
      confirmationKey: publicKey,
      measurement: sha256(pcrs),
      debug: false,
      signed: null,
      ...readUserData(userData),
    }
  }

  /**
   * A document that a Nitro Security Module signed, whatever it says, in a chain that is valid now.
   * @throws {KeyriseError} ERR_EVIDENCE_REFUSED, naming what is wrong.
   */
  async authenticate(claimed: Uint8Array): Promise<NitroDocument> {
    const document = readNitroDocument(claimed)
    // With the first document: a KMS that sees none starts in half the time without what reads certificates.
    const { verifyChain } = await import('./certificate-chain.js')
    const { chain: claimedChain, toSign, signature } = document
    try {
      const certificate = verifyChain({
        rootFingerprint: this.#rootFingerprint,
        claimedChain,
        atMs: this.#clock.nowMs(),
      })
      if (verify('sha384', toSign, { key: certificate.publicKey, dsaEncoding: 'ieee-p1363' }, signature))
        return document
    } catch (error) {
      return refuse(error instanceof Error ? error.message : 'certificate chain')
    }
    return refuse('its signature')
  }
}

const measuredPcrs = ({ pcrs }: NitroDocument): Bytes =>
  concatBytes(...MEASURED_PCRS.map((index) => pcrs.get(index) ?? refuse(`PCR${index}`)))

const readUserData = (claimed: Uint8Array | undefined): Pick<Claims, 'name' | 'svn' | 'configDigest'> => {
  const fields = new FieldReader(decodeUserData(claimed), ['name', 'svn', 'configDigest'], 'ERR_EVIDENCE_REFUSED')
  return { name: fields.text('name', 64), svn: fields.count('svn'), configDigest: fields.bytes('configDigest', 32) }
}

const decodeUserData = (claimed: Uint8Array | undefined): unknown => {
  try {
    return claimed && decodeCbor(claimed, USER_DATA_ITEM_COUNT_MAX)
  } catch {
    return refuse('user_data')
  }
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_EVIDENCE_REFUSED', { detail })
}
