import type { Bytes } from '../bytes.js'
import type { FlowId } from '../names.js'
import type { Secret } from './secret.js'

/** The key of one step of a flow, 32 bytes. */
export const deriveSubKey = (_businessRoot: Secret, _step: string): Secret => {
  throw new Error('being written')
}
/** In the KMS: the key under which enclaves of `image` tag what they seal for `flow`, 32 bytes. */
export const deriveOriginKey = (_originSecret: Secret, _flow: FlowId, _image: Uint8Array): Secret => {
  throw new Error('being written')
}
/** The Ed25519 seed of the flow's signing key. */
export const deriveSigningSeed = (_businessRoot: Secret): Secret => {
  throw new Error('being written')
}
/** The X25519 private key of the flow. */
export const deriveAgreementKey = (_businessRoot: Secret): Secret => {
  throw new Error('being written')
}
/** 32 bytes shared by two flows: X25519, then HKDF bound to both public keys and `step`. @throws {KeyriseError} ERR_KEY_INVALID. */
export const agreeKey = (_privateKey: Secret, _peerKey: Uint8Array, _step: string): Secret => {
  throw new Error('being written')
}

export interface KeyPairSigner extends Disposable {
  /** Ed25519, 32 bytes. */
  readonly publicKey: Bytes
  /** 64 bytes. */
  sign(message: Uint8Array): Bytes
}
/** @param seed - 32 bytes, borrowed. */
export const ed25519Signer = (_seed: Secret): KeyPairSigner => {
  throw new Error('being written')
}
export const verifyEd25519 = (_publicKey: Uint8Array, _message: Uint8Array, _signature: Uint8Array): boolean => {
  throw new Error('being written')
}
