import { copyBytes, type Bytes } from './bytes.js'
import { decodeCborMaps, encodeCbor, type Cbor } from './cbor.js'
import { isBytes, prepareSign1, readSign1 } from './cose.js'
import { KeyriseError } from './errors.js'
import { isProductId, type ImageSigner } from './image-signature.js'

/**
 * Evidence: an EAT (RFC 9711) as a CWT claims set in a COSE_Sign1 (RFC 9052 §4.2), signed with EdDSA. Claims used:
 * 8 `cnf` (RFC 8747: the session's key), 10 `eat_nonce`, 263 `dbgstat`, 265 `eat_profile`, 270 `swname`,
 * 273 `measurements`; for the SVN, the digest of the launch configuration and, of a signed image, its signer and
 * product id, which have no registered key, private ones.
 */
const EAT_PROFILE = 'tag:keyrise,2026:simulated-platform'

const CLAIM = {
  cnf: 8,
  eatNonce: 10,
  dbgstat: 263,
  eatProfile: 265,
  swname: 270,
  measurements: 273,
  svn: -70_001,
  configDigest: -70_002,
  signer: -70_003,
  productId: -70_004,
} as const
const COSE_KEY = { kty: 1, okp: 1, crv: -1, x25519: 4, x: -2 } as const
/** RFC 9711 §4.2.9: `enabled`, and `disabled-permanently`. */
const DEBUG_STATUS = { enabled: 0, disabled: 3 } as const
/** CoAP Content-Format of a raw SHA-256: application/octet-stream. */
const OCTET_STREAM = 42

/** What a token says about one running instance. */
export interface Claims {
  readonly nonce: Bytes
  /** X25519, 32 bytes. */
  readonly confirmationKey: Bytes
  /** SHA-256 of the string that runs. */
  readonly measurement: Bytes
  readonly name: string
  readonly svn: number
  /** SHA-256 of the launch configuration's bytes: the KMS identity that the enclave trusts, and its limits. */
  readonly configDigest: Bytes
  /** The image is a debug image: it tells what goes on inside. */
  readonly debug: boolean
  /** Whose signature the platform verified over the measurement; null where the image has none. */
  readonly signed: ImageSigner | null
}

/** The payload, what to sign, and how the signature joins them into a token. */
export const prepareEvidence = (claims: Claims): { toSign: Bytes; join: (signature: Uint8Array) => Bytes } => {
  const { signed } = claims
  const key = new Map<number, Cbor>([
    [COSE_KEY.kty, COSE_KEY.okp],
    [COSE_KEY.crv, COSE_KEY.x25519],
    [COSE_KEY.x, claims.confirmationKey],
  ])
  return prepareSign1(
    encodeCbor(
      new Map<number, Cbor>([
        [CLAIM.cnf, new Map([[1, key]])],
        [CLAIM.eatNonce, claims.nonce],
        [CLAIM.dbgstat, claims.debug ? DEBUG_STATUS.enabled : DEBUG_STATUS.disabled],
        [CLAIM.eatProfile, EAT_PROFILE],
        [CLAIM.swname, claims.name],
        [CLAIM.measurements, [[OCTET_STREAM, claims.measurement]]],
        [CLAIM.svn, claims.svn],
        [CLAIM.configDigest, claims.configDigest],
        ...(signed === null
          ? []
          : ([
              [CLAIM.signer, signed.signer],
              [CLAIM.productId, signed.productId],
            ] as const)),
      ]),
    ),
  )
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_EVIDENCE_REFUSED', { detail })
}

/**
 * Splits a token. Nothing in `claims` counts until `signature` over `toSign` was verified with a platform's key.
 * @throws {KeyriseError} ERR_EVIDENCE_REFUSED.
 */
export const readEvidence = (claimed: Uint8Array): { toSign: Bytes; signature: Bytes; claims: Claims } => {
  try {
    const token = readSign1(claimed)
    if (typeof token === 'string') return refuse(token)
    const { toSign, signature, payload } = token
    return { toSign, signature, claims: readClaims(decodeCborMaps(payload)) }
  } catch (error) {
    if (error instanceof KeyriseError && error.code === 'ERR_EVIDENCE_REFUSED') throw error
    return refuse('not a COSE_Sign1')
  }
}

const readClaims = (claimed: unknown): Claims => {
  if (!(claimed instanceof Map)) return refuse('claims')
  const bytes = (value: unknown, size: number, what: string): Bytes =>
    isBytes(value, size) ? copyBytes(value) : refuse(what)
  if (claimed.get(CLAIM.eatProfile) !== EAT_PROFILE) refuse('eat_profile')
  const cnf: unknown = claimed.get(CLAIM.cnf)
  const key: unknown = cnf instanceof Map ? cnf.get(1) : undefined
  if (!(key instanceof Map) || key.get(COSE_KEY.kty) !== COSE_KEY.okp || key.get(COSE_KEY.crv) !== COSE_KEY.x25519)
    return refuse('cnf')
  const measurements: unknown = claimed.get(CLAIM.measurements)
  const first: unknown = Array.isArray(measurements) && measurements.length === 1 ? measurements[0] : undefined
  const name: unknown = claimed.get(CLAIM.swname)
  const svn: unknown = claimed.get(CLAIM.svn)
  const debug: unknown = claimed.get(CLAIM.dbgstat)
  if (debug !== DEBUG_STATUS.enabled && debug !== DEBUG_STATUS.disabled) return refuse('dbgstat')
  if (typeof name !== 'string' || name.length > 64) return refuse('swname')
  return {
    nonce: bytes(claimed.get(CLAIM.eatNonce), 32, 'eat_nonce'),
    confirmationKey: bytes(key.get(COSE_KEY.x), 32, 'cnf'),
    measurement: bytes(Array.isArray(first) ? first[1] : undefined, 32, 'measurements'),
    name,
    svn: Number.isSafeInteger(svn) && (svn as number) >= 0 ? (svn as number) : refuse('svn'),
    configDigest: bytes(claimed.get(CLAIM.configDigest), 32, 'config digest'),
    debug: debug === DEBUG_STATUS.enabled,
    signed: readSigned(claimed.get(CLAIM.signer), claimed.get(CLAIM.productId)),
  }
}

/** Both, or neither. */
const readSigned = (signer: unknown, productId: unknown): ImageSigner | null => {
  if (signer === undefined && productId === undefined) return null
  if (!isBytes(signer, 32)) return refuse('signer')
  return isProductId(productId) ? { signer: copyBytes(signer), productId } : refuse('product id')
}
