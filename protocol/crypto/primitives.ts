import type { KeyObject } from 'node:crypto'
import { randomFillSync } from 'node:crypto'
import type { Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import type { Secret } from './secret.js'

export const nodeRandom: Random = { fill: (bytes) => randomFillSync(bytes) }
/** SHA-256 of public bytes. */
export const sha256 = (..._parts: readonly Uint8Array[]): Bytes => {
  throw new Error('being written')
}
/** HMAC-SHA256, 32 bytes; `key` is borrowed. */
export const hmac = (_key: Uint8Array, ..._parts: readonly Uint8Array[]): Bytes => {
  throw new Error('being written')
}
/** HKDF-SHA256 (RFC 5869). */
export const hkdf = (_secret: Uint8Array, _salt: Uint8Array, _info: Uint8Array, _size: number): Bytes => {
  throw new Error('being written')
}
/** Constant-time equality of tags and other secrets of one size. */
export const equalSecret = (_a: Uint8Array, _b: Uint8Array): boolean => {
  throw new Error('being written')
}
/** X25519 private key, 32 bytes, as a KeyObject: it can be cloned to a pool worker, and V8 never sees the bytes. */
export const x25519PrivateKeyObject = (_privateKey: Secret): KeyObject => {
  throw new Error('being written')
}
export const x25519PublicKey = (_privateKey: Secret | KeyObject): Bytes => {
  throw new Error('being written')
}
/** RFC 7748 §6.1. @throws {KeyriseError} ERR_KEY_INVALID: a low-order `publicKey`. */
export const x25519Agree = (_privateKey: Secret | KeyObject, _publicKey: Uint8Array): Secret => {
  throw new Error('being written')
}
