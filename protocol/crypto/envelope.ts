import type { Header } from '../age-header.js'
import type { Bytes } from '../bytes.js'
import type { EnvelopeContext } from '../context.js'
import type { Random } from '../ports.js'
import type { Identity, Recipient } from './recipients.js'
import type { Secret } from './secret.js'

/** Who vouches for contexts: a KMS, by its identity key, and the origin key that it derived for this flow and image. */
export interface Origin {
  readonly authority: Bytes
  readonly key: Secret
}

export interface SealOptions {
  readonly recipients: readonly Recipient[]
  readonly context?: EnvelopeContext
  /** One tag for each; needs `context`. */
  readonly originKeys?: readonly Origin[]
  readonly random: Random
}

export interface CheckOptions {
  /** Fields of the context that must be exactly these. */
  readonly expect?: Partial<EnvelopeContext>
  /** Whose tag must be there and right. */
  readonly origin?: Origin
}

export interface OpenedEnvelope {
  /** The caller zero-fills it when it is secret. */
  readonly plaintext: Bytes
  readonly context: EnvelopeContext | undefined
}

export const sealEnvelope = (_plaintext: Uint8Array, _options: SealOptions): Bytes => {
  throw new Error('being written')
}
/** The file key, after the header's MAC was verified with it. @throws {KeyriseError} ERR_IDENTITY_MISMATCH, ERR_HEADER_MAC, ERR_HEADER_MALFORMED, ERR_WORK_FACTOR. */
export const unwrapHeader = (_header: Header, _identities: readonly Identity[]): Secret => {
  throw new Error('being written')
}
export const openEnvelope = (_envelope: Uint8Array, _options: CheckOptions & { readonly identities: readonly Identity[] }): OpenedEnvelope => {
  throw new Error('being written')
}
/** The same with a file key that the KMS unwrapped. */
export const openPayloadOf = (_envelope: Uint8Array, _fileKey: Secret, _options: CheckOptions = {}): OpenedEnvelope => {
  throw new Error('being written')
}
/** The context that the header claims. @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_CBOR_INVALID, ERR_NAME_INVALID. */
export const claimedContext = (_header: Header): EnvelopeContext | undefined => {
  throw new Error('being written')
}
/** The context, after `origin`'s tag over it and the file key was verified. @throws {KeyriseError} ERR_ORIGIN_INVALID. */
export const verifyOrigin = (_header: Header, _fileKey: Secret, _origin: Origin): EnvelopeContext => {
  throw new Error('being written')
}
/** What an epoch lists: SHA-256 of context, payload nonce and chunks; a rewrap of the header keeps it. */
export const envelopeDigest = (_envelope: Uint8Array): Bytes => {
  throw new Error('being written')
}
