import { createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import { open, type FileHandle } from 'node:fs/promises'
import { allocate, copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import {
  IMAGE_SIGNATURE_SIZE_BYTES_MAX,
  prepareSignature,
  readSignature,
  signerOf,
  type ImageSigner,
} from '../protocol/image-signature.js'
import type { Image } from './image.js'

/** A signature of an image, verified when it was read, and by the platform again before anything runs. */
export interface ImageSignature extends ImageSigner {
  /** The COSE_Sign1 itself: what lies in the file beside the image. */
  readonly bytes: Bytes
}

export type SignedImage<Definition = unknown> = Image<Definition> & { readonly signature: ImageSignature }

/** Beside an image, and never in it: a string cannot contain its own signature. */
export const signatureFile = (imageFile: string): string => `${imageFile}.sig`

/**
 * Signs the measurement of an image. The same key, product id and image give the same signature.
 * @param options.key - the signer’s, Ed25519: `createPrivateKey` of a file by `keyrise image keygen` or `openssl genpkey`.
 * @param options.productId - 0…65,535.
 * @returns the image with the signature, in place of any that it had.
 * @throws {KeyriseError} ERR_KEY_INVALID, ERR_CONFIG_INVALID.
 */
export const signImage = <Definition>(
  image: Image<Definition>,
  { key, productId }: { readonly key: KeyObject; readonly productId: number },
): SignedImage<Definition> => {
  const publicKey = publicKeyOf(key)
  const { toSign, join } = prepareSignature({ measurement: image.measurement, productId, publicKey })
  const signature = verifySignature(join(sign(null, toSign, key)), image.measurement)
  return Object.freeze({ ...image, signature })
}

/** The signer that a key stands for: what a policy may name. @throws {KeyriseError} ERR_KEY_INVALID. */
export const signerOfKey = (key: KeyObject): Bytes => signerOf(publicKeyOf(key))

const publicKeyOf = (key: KeyObject): Bytes => {
  if (key.type !== 'private' || key.asymmetricKeyType !== 'ed25519')
    throw new KeyriseError('ERR_KEY_INVALID', { detail: 'a signer’s key is an Ed25519 private key' })
  // RFC 8410 §4: the last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key.
  return copyBytes(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32))
}

/**
 * @param claimed - private to the caller.
 * @param measurement - of the image that it is to be a signature of.
 * @throws {KeyriseError} ERR_IMAGE_SIGNATURE.
 */
export const verifySignature = (claimed: Uint8Array, measurement: Uint8Array): ImageSignature => {
  const { toSign, signature, claims } = readSignature(claimed)
  const { publicKey, signer, productId } = claims
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') }
  if (!isVerified(toSign, createPublicKey({ key: jwk, format: 'jwk' }), signature)) return refuse('it was changed')
  if (!equalPublicBytes(claims.measurement, measurement)) return refuse('it is another image’s')
  return Object.freeze({ bytes: copyBytes(claimed), signer, productId })
}

const isVerified = (toSign: Uint8Array, key: KeyObject, signature: Uint8Array): boolean => {
  try {
    return verify(null, toSign, key, signature)
  } catch {
    return false
  }
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_IMAGE_SIGNATURE', { detail })
}

/** The signature beside an image file; undefined where there is none. @throws {KeyriseError} ERR_IMAGE_SIGNATURE. */
export const readSignatureFile = async (path: string, measurement: Uint8Array): Promise<ImageSignature | undefined> => {
  const claimed = await readBounded(path)
  return claimed === undefined ? undefined : verifySignature(claimed, measurement)
}

const readBounded = async (path: string): Promise<Bytes | undefined> => {
  let file: FileHandle
  try {
    file = await open(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    return refuse(`${path} cannot be read`)
  }
  try {
    const buffer = allocate(IMAGE_SIGNATURE_SIZE_BYTES_MAX + 1)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0)
    return copyBytes(buffer.subarray(0, bytesRead))
  } catch {
    return refuse(`${path} cannot be read`)
  } finally {
    await file.close()
  }
}
