import { decodeBase64, encodeBase64, type Header, type Stanza } from '../age-header.js'
import { decodeBase64NoPad } from '../base64.js'
import { copyBytes, equalPublicBytes, type Bytes } from '../bytes.js'
import { decodeContext, encodeContext, type EnvelopeContext } from '../context.js'
import { isKeyriseError, KeyriseError } from '../errors.js'
import { labelled } from './labels.js'
import { equalSecret, hmac, sha256 } from './primitives.js'
import type { Secret } from './secret.js'

/**
 * The `keyrise/context` stanza: what an envelope is, and who vouches that an enclave of this flow and image made it. An age
 * file authenticates nobody, since whoever knows a recipient can make one; the origin tag does. Layout: docs/envelope.md §3.
 */

export const CONTEXT_TYPE = 'keyrise/context'
const FINGERPRINT_SIZE = 16
const COMMITMENT_SIZE = 32
const COMMITMENT_INFO = labelled('file-key-commitment')[0] as Bytes

/** Who vouches for contexts: a KMS, by its identity key, with the origin key that it derived for this flow and image. */
export interface Origin {
  /** Ed25519, 32 bytes. */
  readonly authority: Uint8Array
  /** 32 bytes, from `deriveOriginKey`. */
  readonly key: Secret
}

/** How a tag names its authority, in base64. The last one is kept: a KMS and its clients ask for one authority all the time. */
const fingerprint = (authority: Uint8Array): string => {
  if (last === undefined || !equalPublicBytes(last.authority, authority))
    last = {
      authority: copyBytes(authority),
      text: encodeBase64(sha256(authority).subarray(0, FINGERPRINT_SIZE)),
    }
  return last.text
}
let last: { readonly authority: Bytes; readonly text: string } | undefined

/**
 * HMAC-SHA256 over context and file key. The file key enters as a commitment, so that the tag stands for one file key and tells
 * nothing of it to who holds the origin key.
 */
const originTag = (originKey: Secret, contextBody: Uint8Array, fileKey: Secret): Bytes => {
  const commitment = fileKey.derive(COMMITMENT_INFO, COMMITMENT_SIZE)
  try {
    return originKey.expose((key) => hmac(key, ...labelled('origin', contextBody, commitment)))
  } finally {
    commitment.fill(0)
  }
}

/** The stanza, with a tag for each of `origins`. */
export const contextStanza = (context: EnvelopeContext, fileKey: Secret, origins: readonly Origin[]): Stanza => {
  const body = encodeContext(context)
  const pairs = origins.flatMap(({ authority, key }) => [
    fingerprint(authority),
    encodeBase64(originTag(key, body, fileKey)),
  ])
  return { args: [CONTEXT_TYPE, ...pairs], body }
}

/** The one context stanza. @throws {KeyriseError} ERR_HEADER_MALFORMED: there are several, or a fingerprint has no tag. */
export const findContextStanza = ({ stanzas }: Header): Stanza | undefined => {
  const [first, ...others] = stanzas.filter(({ args }) => args[0] === CONTEXT_TYPE)
  if (others.length > 0) throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'two contexts' })
  if (first !== undefined && first.args.length % 2 === 0)
    throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'a fingerprint without a tag' })
  return first
}

const decodeBody = (claimed: Uint8Array): EnvelopeContext => {
  try {
    return decodeContext(claimed)
  } catch (error) {
    throw isKeyriseError(error) ? new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'context' }) : error
  }
}

/**
 * The context that the header claims, which is no more than that: under a sub key only this flow could have claimed it, under
 * any other recipient `verifyOrigin` must vouch for it.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED.
 */
export const claimedContext = (header: Header): EnvelopeContext | undefined => {
  const stanza = findContextStanza(header)
  return stanza === undefined ? undefined : decodeBody(stanza.body)
}

/** Fingerprints of the authorities that have a tag; what cannot be one names nobody, and is left out. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
export const claimedAuthorities = (header: Header): Bytes[] => {
  const pairs = findContextStanza(header)?.args.slice(1) ?? []
  return pairs
    .filter((_, index) => index % 2 === 0)
    .map(decodeBase64NoPad)
    .filter((name): name is Bytes => name?.length === FINGERPRINT_SIZE)
}

/** The tag behind the fingerprint of `authority`. */
const findTag = ({ args: [, ...pairs] }: Stanza, authority: Uint8Array): Bytes | undefined => {
  const wanted = fingerprint(authority)
  const index = pairs.findIndex((text, position) => position % 2 === 0 && text === wanted)
  return index === -1 ? undefined : decodeBase64(pairs[index + 1] as string)
}

/**
 * The context, once `origin`’s tag over it and `fileKey` is verified.
 * @throws {KeyriseError} ERR_ORIGIN_INVALID: no such tag, or a wrong one; ERR_HEADER_MALFORMED.
 */
export const verifyOrigin = (header: Header, fileKey: Secret, origin: Origin): EnvelopeContext => {
  const stanza = findContextStanza(header)
  const tag = stanza && findTag(stanza, origin.authority)
  if (stanza === undefined || tag === undefined) throw new KeyriseError('ERR_ORIGIN_INVALID')
  const expected = originTag(origin.key, stanza.body, fileKey)
  try {
    if (!equalSecret(tag, expected)) throw new KeyriseError('ERR_ORIGIN_INVALID')
  } finally {
    expected.fill(0)
  }
  return decodeBody(stanza.body)
}

/**
 * Verifies every tag, for whoever makes them anew: none is lost, and none made for what nobody vouched for.
 * @throws {KeyriseError} ERR_ORIGIN_INVALID: a tag that is none of `origins`’, that is wrong, or that is missing.
 */
export const verifyEveryOrigin = (header: Header, fileKey: Secret, origins: readonly Origin[]): void => {
  const pairs = findContextStanza(header)?.args.slice(1) ?? []
  const authorities = new Set(origins.map(({ authority }) => fingerprint(authority)))
  if (pairs.length !== 2 * authorities.size) throw new KeyriseError('ERR_ORIGIN_INVALID')
  for (const origin of origins) verifyOrigin(header, fileKey, origin)
}
