import type { KeyObject } from 'node:crypto'
import type { Stanza } from '../age-header.js'
import type { Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import type { Secret } from './secret.js'

/** Wraps a file key for whoever holds the matching identity. */
export interface Recipient {
  wrap(fileKey: Secret, random: Random): Stanza
}
export interface Identity {
  /** The file key; undefined when the stanza is for another. @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_WORK_FACTOR. */
  unwrap(stanza: Stanza): Secret | undefined
}

export { x25519PrivateKeyObject } from './primitives.js'
export const x25519Recipient = (_publicKey: Uint8Array): Recipient => {
  throw new Error('being written')
}
export const x25519Identity = (_privateKey: Secret | KeyObject): Identity => {
  throw new Error('being written')
}
export const subKeyRecipient = (_step: string, _subKey: Secret): Recipient => {
  throw new Error('being written')
}
export const subKeyIdentity = (_step: string, _subKey: Secret): Identity => {
  throw new Error('being written')
}
/** Work factor 2^logN. */
export const scryptRecipient = (_passphrase: Secret, _logN = 18): Recipient => {
  throw new Error('being written')
}
export const scryptIdentity = (_passphrase: Secret, _logNMax = 20): Identity => {
  throw new Error('being written')
}
/** `AGE-SECRET-KEY-1…` in ASCII, which the caller zero-fills after use. */
export const encodeX25519Identity = (_privateKey: Secret): Bytes => {
  throw new Error('being written')
}
/** `age1…` */
export const encodeX25519Recipient = (_publicKey: Uint8Array): string => {
  throw new Error('being written')
}
