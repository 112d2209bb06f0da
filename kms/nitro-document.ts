import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeForeignCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { claimedProtectedHeader } from '../protocol/cose.js'
import { KeyriseError } from '../protocol/errors.js'

/**
 * An attestation document of AWS Nitro Enclaves, as the Nitro Security Module makes it: a COSE_Sign1 (RFC 9052 §4.2) with
 * ES384. Format: “Verifying the root of trust”, AWS Nitro Enclaves user guide. Nothing in it counts before `nitro-verifier.ts`
 * has verified chain and signature.
 */
export interface NitroDocument {
  /** RFC 9052 §4.4: what is signed. */
  readonly toSign: Bytes
  /** r, then s: 96 bytes. */
  readonly signature: Bytes
  readonly moduleId: string
  /** When it was made, ms since the epoch. */
  readonly timestampMs: number
  /** Platform configuration registers, 48 bytes each, by index. */
  readonly pcrs: ReadonlyMap<number, Bytes>
  /** DER: the root first, then the certificate whose key signs the document last. */
  readonly chain: readonly Bytes[]
  /** What the enclave asked for, each undefined where it asked for none. */
  readonly publicKey: Bytes | undefined
  readonly userData: Bytes | undefined
  readonly nonce: Bytes | undefined
}

const DOCUMENT_SIZE_BYTES_MAX = 32 * 1024
const ITEM_COUNT_MAX = 256
const PROTECTED = encodeCbor(new Map([[1, -35]]))
const SIGNATURE_SIZE = 96
const PCR_SIZE = 48
const PCR_COUNT_MAX = 32
const CERTIFICATE_SIZE_BYTES_MAX = 1024
const KEYS = ['module_id', 'digest', 'timestamp', 'pcrs', 'certificate', 'cabundle', 'public_key', 'user_data', 'nonce']
const CODE = 'ERR_EVIDENCE_REFUSED'

const refuse = (detail: string): never => {
  throw new KeyriseError(CODE, { detail })
}

/** True for bytes that claim to be such a document: nothing else here is signed with ES384. */
export const claimsEs384 = (claimed: Uint8Array): boolean => {
  const header = claimedProtectedHeader(claimed)
  return header !== undefined && equalPublicBytes(header, PROTECTED)
}

/** @throws {KeyriseError} ERR_EVIDENCE_REFUSED: it is no such document. */
export const readNitroDocument = (claimed: Uint8Array): NitroDocument => {
  if (claimed.length > DOCUMENT_SIZE_BYTES_MAX) return refuse('size')
  const parts = decode(claimed)
  if (!Array.isArray(parts) || parts.length !== 4) return refuse('not a COSE_Sign1')
  const [protectedHeader, unprotectedHeader, payload, signature] = parts as unknown[]
  if (!(unprotectedHeader instanceof Map) || unprotectedHeader.size > 0) return refuse('an unprotected header')
  const fields = new FieldReader(
    { protectedHeader, payload, signature },
    ['protectedHeader', 'payload', 'signature'],
    CODE,
  )
  if (!equalPublicBytes(fields.bytes('protectedHeader', 0, 64), PROTECTED)) return refuse('algorithm')
  const signed = fields.bytes('payload', 1, DOCUMENT_SIZE_BYTES_MAX)
  return {
    toSign: encodeCbor(['Signature1', PROTECTED, new Uint8Array(0), signed]),
    signature: fields.bytes('signature', SIGNATURE_SIZE),
    ...readPayload(decode(signed)),
  }
}

const decode = (claimed: Uint8Array): unknown => {
  try {
    return decodeForeignCbor(claimed, ITEM_COUNT_MAX)
  } catch {
    return refuse('not CBOR')
  }
}

const readPayload = (claimed: unknown): Omit<NitroDocument, 'toSign' | 'signature'> => {
  if (!(claimed instanceof Map) || ![...claimed.keys()].every((key) => typeof key === 'string'))
    return refuse('payload')
  const fields = new FieldReader(Object.fromEntries(claimed as Map<string, unknown>), KEYS, CODE)
  if (fields.text('digest', 16) !== 'SHA384') return refuse('digest')
  const certificate = (item: unknown): Bytes =>
    new FieldReader({ item }, ['item'], CODE).bytes('item', 1, CERTIFICATE_SIZE_BYTES_MAX)
  return {
    moduleId: fields.text('module_id', 256),
    timestampMs: fields.count('timestamp'),
    pcrs: readPcrs(fields.claimed('pcrs')),
    chain: [...fields.list('cabundle', 8, certificate), certificate(fields.claimed('certificate'))],
    publicKey: fields.has('public_key') ? fields.bytes('public_key', 1, 1024) : undefined,
    userData: fields.has('user_data') ? fields.bytes('user_data', 0, 512) : undefined,
    nonce: fields.has('nonce') ? fields.bytes('nonce', 0, 512) : undefined,
  }
}

const readPcrs = (claimed: unknown): ReadonlyMap<number, Bytes> => {
  if (!(claimed instanceof Map) || claimed.size > PCR_COUNT_MAX) return refuse('pcrs')
  return new Map(
    [...(claimed as Map<unknown, unknown>)].map(([index, value]) =>
      Number.isSafeInteger(index) && value instanceof Uint8Array && value.length === PCR_SIZE
        ? [index as number, copyBytes(value)]
        : refuse('pcrs'),
    ),
  )
}
