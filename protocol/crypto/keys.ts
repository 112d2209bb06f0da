import { asciiBytes, concatBytes, type Bytes } from '../bytes.js'
import { parsePath, type FlowId } from '../names.js'
import { ed25519FromSeed, ed25519Sign, x25519Agree, x25519PublicKey } from './curves.js'
import { labelled } from './labels.js'
import { Secret } from './secret.js'

/** Everything that is derived from a long-lived secret, each under a label of its own: docs/envelope.md §2. */

const DERIVED_SIZE = 32

const derive = (from: Secret, purpose: string, ...parts: readonly Uint8Array[]): Secret =>
  Secret.take(from.derive(concatBytes(...labelled(purpose, ...parts)), DERIVED_SIZE))

/** The key of one step of a flow, 32 bytes. @throws {KeyriseError} ERR_NAME_INVALID. */
export const deriveSubKey = (businessRoot: Secret, step: string): Secret =>
  derive(businessRoot, 'sub-key', asciiBytes(parsePath(step)))

/** In the KMS: the key under which enclaves of `image` tag what they seal for `flow`, 32 bytes. */
export const deriveOriginKey = (originSecret: Secret, flow: FlowId, image: Uint8Array): Secret =>
  derive(originSecret, 'origin-key', asciiBytes(flow), image)

/** The Ed25519 seed of the flow’s signing key. */
export const deriveSigningSeed = (businessRoot: Secret): Secret => derive(businessRoot, 'signing-seed')

/** The X25519 private key of the flow. */
export const deriveAgreementKey = (businessRoot: Secret): Secret => derive(businessRoot, 'agreement-key')

/**
 * 32 bytes that only the holders of the two keys can derive, bound to both public keys and to `step`; both sides get the same.
 * @throws {KeyriseError} ERR_KEY_INVALID: `peerKey` is not one; ERR_NAME_INVALID.
 */
export const agreeKey = (privateKey: Secret, peerKey: Uint8Array, step: string): Secret => {
  const stepBytes = asciiBytes(parsePath(step))
  const publicKeys = [x25519PublicKey(privateKey), peerKey].sort(comparePublicBytes)
  using shared = x25519Agree(privateKey, peerKey)
  return derive(shared, 'agreed-key', ...publicKeys, stepBytes)
}

const comparePublicBytes = (a: Uint8Array, b: Uint8Array): number => {
  const index = a.findIndex((byte, position) => byte !== b[position])
  return index === -1 ? 0 : (a[index] as number) - (b[index] as number)
}

/** An Ed25519 key pair that signs until it is disposed of. */
export interface KeyPairSigner extends Disposable {
  /** 32 bytes. */
  readonly publicKey: Bytes
  /** 64 bytes. A function of its own, to be passed on as it is. */
  readonly sign: (message: Uint8Array) => Bytes
}

/** @param seed - 32 bytes, borrowed: it may be disposed of when this returns. */
export const ed25519Signer = (seed: Secret): KeyPairSigner => {
  const { privateKey, publicKey } = ed25519FromSeed(seed)
  let live: typeof privateKey | undefined = privateKey
  return {
    publicKey,
    sign: (message) => {
      if (live === undefined) throw new Error('A signer was used after it was disposed of')
      return ed25519Sign(live, message)
    },
    [Symbol.dispose]() {
      live = undefined
    },
  }
}

/** RFC 8032 §5.1.7. False for whatever is not a signature of `message`. */
export { ed25519Verify as verifyEd25519 } from './curves.js'
