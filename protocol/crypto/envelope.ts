import { parseHeader, type Header, type Stanza } from '../age-header.js'
import { allocate, concatBytes, equalPublicBytes, type Bytes } from '../bytes.js'
import type { EnvelopeContext } from '../context.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import { unwrapHeader, verifyHeader, wrapHeader } from './file-key.js'
import { claimedLayer } from './layer-stanza.js'
import { claimedContext, contextStanza, findContextStanza, verifyOrigin, type Origin } from './origin.js'
import {
  checkNonce,
  openPayload,
  payloadDigest,
  payloadSize,
  PAYLOAD_NONCE_SIZE,
  PAYLOAD_SIZE_MIN,
  SEALED_SEGMENT_SIZE,
  sealPayloadInto,
  segmentDigest,
} from './payload.js'
import { FILE_KEY_SIZE, type Identity, type Recipient } from './recipients.js'
import { Secret } from './secret.js'

/** An envelope is an age v1 file, with a context where an enclave made it: docs/envelope.md. */

export { unwrapHeader, wrapHeader } from './file-key.js'
export { claimedContext, verifyOrigin, type Origin } from './origin.js'

const NO_SALT = new Uint8Array(0)

export interface SealOptions {
  /** At least one; a passphrase only alone, and without a context. */
  readonly recipients: readonly Recipient[]
  readonly context?: EnvelopeContext
  /** One tag for each; they need `context`. */
  readonly originKeys?: readonly Origin[]
  readonly random: Random
}

/** What must be true of an envelope before its payload is opened. */
export interface CheckOptions {
  /** Fields of the context that must be exactly these. */
  readonly expect?: Partial<EnvelopeContext>
  /** Whose tag must be there and right. */
  readonly origin?: Origin
}

export interface OpenedEnvelope {
  /** The caller wipes it when it is secret. */
  readonly plaintext: Bytes
  /** As the header claims it; vouched for where `origin` was given, or where only this flow has the identity that opened it. */
  readonly context: EnvelopeContext | undefined
}

/**
 * The header of a new file, and its file key, which the caller disposes of.
 * @param extensions - stanzas of ours that stand beside the recipients’.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED: a passphrase is not alone; ERR_HEADER_LIMIT; ERR_KEY_INVALID.
 */
export const sealHeader = (options: SealOptions, extensions: readonly Stanza[] = []): SealedHeader => {
  const { context, originKeys = [], random } = options
  if (context === undefined && originKeys.length > 0) throw new TypeError('An origin tag needs a context')

  const fileKey = Secret.random(FILE_KEY_SIZE, random)
  try {
    const ours = context === undefined ? extensions : [contextStanza(context, fileKey, originKeys), ...extensions]
    return { header: wrapHeader(fileKey, options, ours), fileKey }
  } catch (error) {
    fileKey[Symbol.dispose]()
    throw error
  }
}

export interface SealedHeader {
  readonly header: Bytes
  readonly fileKey: Secret
}

/** A whole file behind `sealed`’s header, whose file key is disposed of here. */
export const sealBehind = ({ header, fileKey: key }: SealedHeader, plaintext: Uint8Array, random: Random): Bytes => {
  using fileKey = key
  const envelope = allocate(header.length + payloadSize(plaintext.length))
  envelope.set(header)
  sealPayloadInto(fileKey, plaintext, random, envelope.subarray(header.length))
  return envelope
}

/**
 * Seals `plaintext` to all of `recipients` under a new file key.
 * @param plaintext - borrowed, unmodified.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED: a passphrase is not alone; ERR_HEADER_LIMIT; ERR_KEY_INVALID.
 */
export const sealEnvelope = (plaintext: Uint8Array, options: SealOptions): Bytes =>
  sealBehind(sealHeader(options), plaintext, options.random)

/** Every field of the context is public. */
const matches = (context: EnvelopeContext, expected: Partial<EnvelopeContext>): boolean =>
  (Object.keys(expected) as (keyof EnvelopeContext)[]).every((field) => {
    const [actual, wanted] = [context[field], expected[field]]
    return actual instanceof Uint8Array && wanted instanceof Uint8Array
      ? equalPublicBytes(actual, wanted)
      : actual === wanted
  })

/**
 * The context of a file whose header is verified, checked.
 * @throws {KeyriseError} ERR_ORIGIN_INVALID, ERR_CONTEXT_MISMATCH, ERR_HEADER_MALFORMED.
 */
export const checkContext = (
  header: Header,
  fileKey: Secret,
  { expect, origin }: CheckOptions,
): EnvelopeContext | undefined => {
  const context = origin === undefined ? claimedContext(header) : verifyOrigin(header, fileKey, origin)
  if (expect !== undefined && (context === undefined || !matches(context, expect)))
    throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  return context
}

/** A layer alone is not what was sealed: `openLayers` opens all. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
export const checkSingle = (header: Header): void => {
  if (claimedLayer(header).count > 1)
    throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'one of several layers' })
}

/** The payload behind `header`, whose checks were made. @throws {KeyriseError} as `openEnvelope`. */
export const openBehind = (envelope: Uint8Array, header: Header, fileKey: Secret): Bytes => {
  const payload = envelope.subarray(header.sizeBytes)
  checkNonce(payload.length)
  return openPayload(fileKey, payload)
}

const openVerified = (envelope: Uint8Array, header: Header, fileKey: Secret, options: CheckOptions): OpenedEnvelope => {
  checkSingle(header)
  const context = checkContext(header, fileKey, options)
  return { plaintext: openBehind(envelope, header, fileKey), context }
}

/**
 * Opens an envelope with the first identity that fits: header MAC, origin, context, then the payload.
 * @param envelope - claimed; borrowed.
 * @throws {KeyriseError} ERR_IDENTITY_MISMATCH, ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT, ERR_HEADER_MAC, ERR_WORK_FACTOR,
 * ERR_ORIGIN_INVALID, ERR_CONTEXT_MISMATCH, ERR_PAYLOAD_INVALID, ERR_PAYLOAD_TRUNCATED.
 */
export const openEnvelope = (
  envelope: Uint8Array,
  options: CheckOptions & { readonly identities: readonly Identity[] },
): OpenedEnvelope => {
  const header = parseHeader(envelope)
  using fileKey = unwrapHeader(header, options.identities)
  return openVerified(envelope, header, fileKey, options)
}

/** The same with a file key that the KMS unwrapped. It is checked as strictly: the header’s MAC first. */
export const openPayloadOf = (envelope: Uint8Array, fileKey: Secret, options: CheckOptions = {}): OpenedEnvelope => {
  const header = parseHeader(envelope)
  verifyHeader(header, fileKey)
  return openVerified(envelope, header, fileKey, options)
}

/**
 * What an epoch lists of an envelope: SHA-256 over context, payload nonce and chunks. Not over the rest of the header, so that
 * the file keeps its digest when it is rewrapped for another recipient. Layout: docs/envelope.md §3.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT, ERR_PAYLOAD_TRUNCATED.
 */
export const envelopeDigest = (envelope: Uint8Array): Bytes => {
  const header = parseHeader(envelope)
  const payload = envelope.subarray(header.sizeBytes)
  if (payload.length < PAYLOAD_SIZE_MIN) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
  const chunks = payload.subarray(PAYLOAD_NONCE_SIZE)
  const leaves: Bytes[] = []
  for (let offset = 0; offset < chunks.length; offset += SEALED_SEGMENT_SIZE)
    leaves.push(segmentDigest(chunks.subarray(offset, offset + SEALED_SEGMENT_SIZE)))
  const context = findContextStanza(header)?.body ?? NO_SALT
  return payloadDigest(context, payload.subarray(0, PAYLOAD_NONCE_SIZE), concatBytes(...leaves))
}
