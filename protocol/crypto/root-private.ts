import {
  constants,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPair,
  privateEncrypt,
  type KeyObject,
  type RSAKeyPairOptions,
} from 'node:crypto'
import { allocate, asciiBytes, copyBytes, type Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import {
  isRsa,
  proofMessage,
  proofTranscript,
  type ProofParts,
  type RootCertificate,
  type RootSuite,
} from '../statements.js'
import { KEY_SIZE, x25519PrivateKeyObject, x25519PublicKey } from './curves.js'
import { encodeHybridIdentity, hybridIdentity, hybridPublicKey } from './hybrid.js'
import { ed25519Signer } from './keys.js'
import { sha256 } from './primitives.js'
import { encodeX25519Identity, x25519Identity, type Identity } from './recipients.js'
import { Secret } from './secret.js'
import { sshRsaIdentity } from './ssh-rsa.js'

/** The private halves of a root key, and what only they can do, whatever its suite. Only the KMS and its custody have them. */

export interface RootSecrets {
  readonly suite: RootSuite
  /** X25519, 32 bytes; the seed of X-Wing, 32 bytes; or RSA as PKCS #8 in DER. */
  readonly privateKey: Secret
  /** An Ed25519 seed, 32 bytes; or a second RSA key, as PKCS #8 in DER. */
  readonly originKey: Secret
}

/** More than PKCS #8 of an RSA key of 4096 bits, which has 2,376 bytes or so. */
export const ROOT_SECRET_SIZE_BYTES_MAX = 4096

/** New halves of a suite that takes no time to make. */
export const makeSeeds = (suite: 'x25519' | 'mlkem768x25519', random: Random): RootSecrets => ({
  suite,
  privateKey: Secret.random(KEY_SIZE, random),
  originKey: Secret.random(KEY_SIZE, random),
})

/** New halves: RSA’s take OpenSSL a second or more, on a thread of its own. @param random - for seeds; RSA’s numbers are OpenSSL’s. */
export const makeRootSecrets = async (suite: RootSuite, random: Random): Promise<RootSecrets> => {
  if (suite === 'x25519' || suite === 'mlkem768x25519') return makeSeeds(suite, random)
  const modulusLength = suite === 'rsa-oaep-3072' ? 3072 : 4096
  const [privateKey, originKey] = [await generateRsa(modulusLength), await generateRsa(modulusLength)]
  return { suite, privateKey, originKey }
}

const generateRsa = (modulusLength: number): Promise<Secret> =>
  new Promise((resolve, reject) => {
    const options: RSAKeyPairOptions<'der', 'der'> = {
      modulusLength,
      publicExponent: 65_537,
      publicKeyEncoding: { type: 'spki', format: 'der' },
      privateKeyEncoding: { type: 'pkcs8', format: 'der' },
    }
    generateKeyPair('rsa', options, (error, _public, der) => {
      if (error === null) resolve(Secret.take(der))
      else reject(error)
    })
  })

const rsaPrivateKey = (der: Secret): KeyObject =>
  der.expose((bytes) =>
    // A view of the secret, not a copy.
    createPrivateKey({ key: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), format: 'der', type: 'pkcs8' }),
  )

const rsaPublicDer = (der: Secret): Bytes =>
  copyBytes(createPublicKey(rsaPrivateKey(der)).export({ type: 'spki', format: 'der' }))

/** Both public halves, under the key’s name. */
export const certificateOf = (key: string, { suite, privateKey, originKey }: RootSecrets): RootCertificate => {
  if (isRsa(suite)) return { key, suite, encryptionKey: rsaPublicDer(privateKey), originKey: rsaPublicDer(originKey) }
  using signer = ed25519Signer(originKey)
  const encryptionKey = suite === 'x25519' ? x25519PublicKey(privateKey) : hybridPublicKey(privateKey)
  return { key, suite, encryptionKey, originKey: signer.publicKey }
}

/**
 * The encryption half as a KeyObject, which crosses to a pool’s worker without its bytes being seen. OpenSSL has no X-Wing, so its
 * seed crosses as a secret key, and the worker that expands it holds bytes: docs/keys.md.
 */
export const rootKeyObject = ({ suite, privateKey }: Pick<RootSecrets, 'suite' | 'privateKey'>): KeyObject => {
  if (isRsa(suite)) return rsaPrivateKey(privateKey)
  return suite === 'x25519' ? x25519PrivateKeyObject(privateKey) : privateKey.expose((seed) => createSecretKey(seed))
}

/** Opens what was sealed to the key. @param key - as `rootKeyObject` made it. Where it is disposable, dispose of it. */
export const rootIdentity = (suite: RootSuite, key: KeyObject): Identity & Partial<Disposable> => {
  if (isRsa(suite)) return sshRsaIdentity(key)
  if (suite === 'x25519') return x25519Identity(key)
  using seed = Secret.take(key.export())
  return hybridIdentity(seed)
}

/** Signs what `verifyProof` accepts, by the origin half of a root key; the key is made ready once. */
export const originProver = ({
  suite,
  originKey,
}: Pick<RootSecrets, 'suite' | 'originKey'>): ((parts: ProofParts) => Bytes) => {
  if (!isRsa(suite)) {
    const signer = ed25519Signer(originKey)
    return (parts) => signer.sign(proofTranscript(parts))
  }
  const key = rsaPrivateKey(originKey)
  return (parts) => {
    const message = proofMessage(sha256(proofTranscript(parts)), parts.epoch)
    return copyBytes(privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, message))
  }
}

/** The private half as a file that `age -i` takes, of a line or PEM in ASCII. The caller zero-fills it. */
export const encodeRootIdentity = ({ suite, privateKey }: Pick<RootSecrets, 'suite' | 'privateKey'>): Bytes => {
  if (suite === 'x25519') return encodeX25519Identity(privateKey)
  if (suite === 'mlkem768x25519') return encodeHybridIdentity(privateKey)
  return privateKey.expose(encodePem)
}

const PEM_START = asciiBytes('-----BEGIN PRIVATE KEY-----\n')
const PEM_END = asciiBytes('-----END PRIVATE KEY-----\n')
const PEM_LINE_LENGTH = 64
const BASE64 = asciiBytes('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')
const [PADDING, NEWLINE] = [0x3d, 0x0a]

/** RFC 7468 §3, in bytes from end to end. */
const encodePem = (der: Uint8Array): Bytes => {
  const bodyLength = Math.ceil(der.length / 3) * 4
  const lineCount = Math.ceil(bodyLength / PEM_LINE_LENGTH)
  const pem = allocate(PEM_START.length + bodyLength + lineCount + PEM_END.length)
  pem.set(PEM_START)
  let end = PEM_START.length
  for (let index = 0; index < bodyLength; index++) {
    pem[end++] = digitAt(der, index)
    if ((index + 1) % PEM_LINE_LENGTH === 0 || index + 1 === bodyLength) pem[end++] = NEWLINE
  }
  pem.set(PEM_END, end)
  return pem
}

/** The digit at `index` of the base64 of `bytes`. */
const digitAt = (bytes: Uint8Array, index: number): number => {
  const bit = index * 6
  const offset = Math.floor(bit / 8)
  if (offset >= bytes.length) return PADDING
  const pair = ((bytes[offset] as number) << 8) | (bytes[offset + 1] ?? 0)
  return BASE64[(pair >> (10 - (bit % 8))) & 63] as number
}
