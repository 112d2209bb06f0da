import { copyBytes, equalPublicBytes, type Bytes } from './bytes.js'
import { decodeCborMaps, encodeCbor } from './cbor.js'

/** COSE_Sign1 (RFC 9052 §4.2) with EdDSA over Ed25519: evidence and the signatures of images are these. */

const [ALG, EDDSA] = [1, -8] as const
const SIGNATURE_SIZE_BYTES = 64
const PROTECTED = encodeCbor(new Map([[ALG, EDDSA]]))

/** RFC 9052 §4.4: what is signed. */
const signedBytes = (payload: Uint8Array): Bytes => encodeCbor(['Signature1', PROTECTED, new Uint8Array(0), payload])

/** What to sign, and how the signature joins the payload into a message. */
export const prepareSign1 = (payload: Uint8Array): { toSign: Bytes; join: (signature: Uint8Array) => Bytes } => ({
  toSign: signedBytes(payload),
  // [protected, unprotected, payload, signature]; the empty unprotected map is a Map so that it stays one.
  join: (signature) => encodeCbor([PROTECTED, new Map<number, number>(), payload, signature]),
})

export interface ClaimedSign1 {
  readonly toSign: Bytes
  readonly signature: Bytes
  readonly payload: Bytes
}

/**
 * Splits a message. Nothing in the payload counts until `signature` over `toSign` was verified.
 * @returns what is wrong, as text, where it is none of ours. @throws {KeyriseError} ERR_CBOR_INVALID.
 */
export const readSign1 = (claimed: Uint8Array): ClaimedSign1 | string => {
  const message = decodeCborMaps(claimed)
  if (!Array.isArray(message) || message.length !== 4) return 'not a COSE_Sign1'
  const [protectedHeader, unprotectedHeader, payload, signature] = message as unknown[]
  if (!isBytes(protectedHeader, PROTECTED.length) || !PROTECTED.every((byte, index) => byte === protectedHeader[index]))
    return 'algorithm'
  if (!(unprotectedHeader instanceof Map) || unprotectedHeader.size > 0) return 'an unprotected header'
  if (!isBytes(payload) || !isBytes(signature, SIGNATURE_SIZE_BYTES)) return 'not a COSE_Sign1'
  return { toSign: signedBytes(payload), signature: copyBytes(signature), payload: copyBytes(payload) }
}

/** COSE’s tag for a COSE_Sign1 (RFC 9052 §2), a list of four, and a byte string of up to 23 bytes: RFC 8949 §3. */
const [TAG_SIGN1, LIST_OF_FOUR, BYTE_STRING, SHORT_SIZE_BYTES_MAX] = [0xd2, 0x84, 0x40, 23] as const

/** The protected header that bytes begin with, as a COSE_Sign1 does, tagged or not; the rest is not looked at. */
export const claimedProtectedHeader = (claimed: Uint8Array): Uint8Array | undefined => {
  const start = claimed[0] === TAG_SIGN1 ? 1 : 0
  const sizeBytes = (claimed[start + 1] ?? 0) - BYTE_STRING
  if (claimed[start] !== LIST_OF_FOUR || sizeBytes < 0 || sizeBytes > SHORT_SIZE_BYTES_MAX) return undefined
  return claimed.subarray(start + 2, start + 2 + sizeBytes)
}

/** True where a message claims to be signed with EdDSA. */
export const claimsEdDsa = (claimed: Uint8Array): boolean => {
  const header = claimedProtectedHeader(claimed)
  return header !== undefined && equalPublicBytes(header, PROTECTED)
}

/** True for bytes, of exactly `size` where it is given. */
export const isBytes = (value: unknown, size?: number): value is Uint8Array =>
  value instanceof Uint8Array && (size === undefined || value.length === size)
