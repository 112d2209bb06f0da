import { parseHeader, type Header, type Stanza } from '../age-header.js'
import type { ByteSink } from '../age-stream.js'
import type { Bytes } from '../bytes.js'
import { behindHeader, sealerBehind } from './envelope-stream.js'
import {
  checkContext,
  sealBehind,
  sealHeader,
  unwrapHeader,
  wrapHeader,
  type CheckOptions,
  type SealedHeader,
  type SealOptions,
} from './envelope.js'
import { claimedLayer, layerStanza } from './layer-stanza.js'
import { findContextStanza, verifyEveryOrigin, type Origin } from './origin.js'
import { payloadOpener } from './payload-stream.js'
import { checkNonce, openPayload } from './payload.js'
import type { Identity } from './recipients.js'
import type { Secret } from './secret.js'

/**
 * New recipients for a file. A rewrap changes its header only, and is enough where a key is replaced by another that nobody
 * stole. Whoever could open the file once may have kept its file key: against them only a reseal helps. Both change the
 * outermost layer of several. Layout: docs/envelope.md §10.
 */

export interface RewrapOptions extends Pick<SealOptions, 'recipients' | 'random'>, CheckOptions {
  /** One of them opens the file as it is. */
  readonly identities: readonly Identity[]
}

/** The layer’s stanza: it has one encoding only. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
const layerStanzas = (header: Header): Stanza[] => {
  const place = claimedLayer(header)
  return place.count > 1 ? [layerStanza(place)] : []
}

/**
 * The header anew, for `recipients` and nobody else: file key, context, origin tags and layer stay, every other stanza goes. In
 * front of the payload as it is, the result is the file; its digest is the same.
 * @param claimed - a header, or a file that starts with one.
 * @throws {KeyriseError} ERR_IDENTITY_MISMATCH, ERR_HEADER_MALFORMED (a passphrase beside another stanza too),
 * ERR_HEADER_LIMIT, ERR_HEADER_MAC, ERR_WORK_FACTOR, ERR_ORIGIN_INVALID, ERR_CONTEXT_MISMATCH, ERR_KEY_INVALID.
 */
export const rewrapHeader = (claimed: Uint8Array, options: RewrapOptions): Bytes =>
  rewrap(parseHeader(claimed), options)

const rewrap = (header: Header, options: RewrapOptions): Bytes => {
  using fileKey = unwrapHeader(header, options.identities)
  checkContext(header, fileKey, options)
  const context = findContextStanza(header)
  return wrapHeader(fileKey, options, [...(context === undefined ? [] : [context]), ...layerStanzas(header)])
}

/**
 * Rewraps the file that is pushed: its new header, then the payload as it comes, which is not verified.
 * @throws {KeyriseError} as `rewrapHeader`, from `push` and `end`, before anything is passed on.
 */
export const rewrapper = (options: RewrapOptions, next: ByteSink): ByteSink =>
  behindHeader((header) => {
    next.push(rewrap(header, options))
    return next
  }, next)

export interface ResealOptions extends RewrapOptions {
  /** Of every authority that vouches for the file, to vouch for it again. */
  readonly originKeys?: readonly Origin[]
}

/** The file keys to open with and to seal with; the caller disposes of both. */
const beginReseal = (header: Header, options: ResealOptions): { fileKey: Secret; sealed: SealedHeader } => {
  const { recipients, originKeys = [], random } = options
  const fileKey = unwrapHeader(header, options.identities)
  try {
    const context = checkContext(header, fileKey, options)
    verifyEveryOrigin(header, fileKey, originKeys)
    const sealOptions = { recipients, random, originKeys, ...(context === undefined ? {} : { context }) }
    return { fileKey, sealed: sealHeader(sealOptions, layerStanzas(header)) }
  } catch (error) {
    fileKey[Symbol.dispose]()
    throw error
  }
}

/**
 * The same plaintext under a new file key, for `recipients` and nobody else: the context and the layer stay, the origin tags are
 * verified and made anew. Its digest is another.
 * @throws {KeyriseError} as `openEnvelope` and `sealEnvelope`; ERR_ORIGIN_INVALID: `originKeys` are not those of all its tags.
 */
export const resealEnvelope = (envelope: Uint8Array, options: ResealOptions): Bytes => {
  const header = parseHeader(envelope)
  const payload = envelope.subarray(header.sizeBytes)
  const { fileKey: key, sealed } = beginReseal(header, options)
  using fileKey = key
  using _ = sealed.fileKey
  checkNonce(payload.length)
  const plaintext = openPayload(fileKey, payload)
  try {
    return sealBehind(sealed, plaintext, options.random)
  } finally {
    plaintext.fill(0)
  }
}

/**
 * Reseals what is pushed, as `resealEnvelope` does, with memory for a header and a few chunks. What `next` has is a file only
 * once it is ended: until then it lacks its last chunk, and nothing opens it whole.
 * @throws {KeyriseError} as `resealEnvelope`, from `push` and `end`.
 */
export const resealer = (options: ResealOptions, next: ByteSink): ByteSink =>
  behindHeader((header) => {
    const { fileKey: key, sealed } = beginReseal(header, options)
    using fileKey = key
    const sealer = sealerBehind(sealed, options.random, next)
    return payloadOpener(fileKey, {
      push(plaintext) {
        try {
          sealer.push(plaintext)
        } finally {
          plaintext.fill(0)
        }
      },
      end: () => sealer.end(),
      [Symbol.dispose]: () => sealer[Symbol.dispose](),
    })
  }, next)
