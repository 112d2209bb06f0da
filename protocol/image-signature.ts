import { concatBytes, copyBytes, toHex, type Bytes } from './bytes.js'
import { decodeCborMaps, encodeCbor } from './cbor.js'
import { isBytes, prepareSign1, readSign1 } from './cose.js'
import { KeyriseError } from './errors.js'
import { sha256 } from './sha256.js'

/**
 * The signature of an image, in SGX’s terms: a COSE_Sign1 whose payload is deterministic CBOR, a map of text keys:
 * `format`, `measurement` (MRENCLAVE), `productId` (ISVPRODID) and `publicKey`, of which `signer` (MRSIGNER) is the digest.
 * The SVN stands in the measured manifest. It lies beside the image, because a string cannot contain its own signature.
 */
const FORMAT = 'keyrise-image-signature/1'

/** SGX’s ISVPRODID has 16 bits. */
export const PRODUCT_ID_MAX = 0xffff
/** A signature is about 250 bytes. */
export const IMAGE_SIGNATURE_SIZE_BYTES_MAX = 1024

const KEY_SIZE_BYTES = 32
const MEASUREMENT_SIZE_BYTES = 32
/** RFC 8410 §4: an Ed25519 SubjectPublicKeyInfo up to its key. */
const SPKI_PREFIX = Uint8Array.from([0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00])

/**
 * Encodings of the points of order 1, 2, 4 and 8 (RFC 8032 §5.1.2), without the bit of the sign: under such a key anybody can sign
 * anything, and OpenSSL says that it is right.
 */
const SMALL_ORDER: ReadonlySet<string> = new Set([
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
])

const isSmallOrder = (publicKey: Uint8Array): boolean => {
  const unsigned = copyBytes(publicKey)
  unsigned[KEY_SIZE_BYTES - 1] = (unsigned[KEY_SIZE_BYTES - 1] ?? 0) & 0x7f
  return SMALL_ORDER.has(toHex(unsigned))
}

/** Who answers for an image, and as which product of theirs. */
export interface ImageSigner {
  /** SHA-256 of the signer’s public key as a SubjectPublicKeyInfo in DER, 32 bytes: MRSIGNER. */
  readonly signer: Bytes
  /** 0…PRODUCT_ID_MAX. Apart from other products of the same signer: ISVPRODID. */
  readonly productId: number
}

export interface SignatureClaims {
  readonly measurement: Uint8Array
  readonly productId: number
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array
}

/** SHA-256 of `openssl pkey -in KEY -pubout -outform DER`. */
export const signerOf = (publicKey: Uint8Array): Bytes => sha256(concatBytes(SPKI_PREFIX, publicKey))

/** @throws {KeyriseError} ERR_CONFIG_INVALID: the product id is not one. */
export const prepareSignature = (claims: SignatureClaims): ReturnType<typeof prepareSign1> => {
  const { measurement, productId, publicKey } = claims
  if (!isProductId(productId))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `the product id: 0 to ${String(PRODUCT_ID_MAX)}` })
  return prepareSign1(encodeCbor({ format: FORMAT, measurement, productId, publicKey }))
}

export const isProductId = (claimed: unknown): claimed is number =>
  Number.isSafeInteger(claimed) && (claimed as number) >= 0 && (claimed as number) <= PRODUCT_ID_MAX

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_IMAGE_SIGNATURE', { detail })
}

/**
 * Splits a signature. Nothing in `claims` counts until `signature` over `toSign` was verified with `claims.publicKey`, and the
 * measurement compared with the image’s own.
 * @throws {KeyriseError} ERR_IMAGE_SIGNATURE.
 */
export const readSignature = (
  claimed: Uint8Array,
): { toSign: Bytes; signature: Bytes; claims: SignatureClaims & ImageSigner } => {
  if (claimed.length > IMAGE_SIGNATURE_SIZE_BYTES_MAX) return refuse('its size')
  const message = orRefused(() => readSign1(claimed))
  if (typeof message === 'string') return refuse(message)
  const { toSign, signature, payload } = message
  const fields = orRefused(() => decodeCborMaps(payload))
  if (!(fields instanceof Map) || fields.size !== 4 || fields.get('format') !== FORMAT) return refuse('its format')
  const [measurement, productId, publicKey] = [
    fields.get('measurement') as unknown,
    fields.get('productId') as unknown,
    fields.get('publicKey') as unknown,
  ]
  if (!isBytes(measurement, MEASUREMENT_SIZE_BYTES)) return refuse('its measurement')
  if (!isProductId(productId)) return refuse('its product id')
  if (!isBytes(publicKey, KEY_SIZE_BYTES) || isSmallOrder(publicKey)) return refuse('its public key')
  const claims = {
    measurement: copyBytes(measurement),
    productId,
    publicKey: copyBytes(publicKey),
    signer: signerOf(publicKey),
  }
  return { toSign, signature, claims }
}

const orRefused = <T>(read: () => T): T => {
  try {
    return read()
  } catch {
    return refuse('not a COSE_Sign1')
  }
}
