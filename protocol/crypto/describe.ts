import { parseHeader, type Header, type Stanza } from '../age-header.js'
import { toHex } from '../bytes.js'
import type { EnvelopeContext } from '../context.js'
import { KeyriseError } from '../errors.js'
import { claimedLayer, LAYER_TYPE, type LayerPlace } from './layer-stanza.js'
import { claimedAuthorities, claimedContext, CONTEXT_TYPE } from './origin.js'
import { openedSize, PAYLOAD_NONCE_SIZE, SEALED_CHUNK_SIZE } from './payload.js'
import { TAG_SIZE } from './primitives.js'

/** What an envelope says about itself to whoever has no key. All of it is a claim: only a key tells what is authentic. */

/** A stanza that may give the file key to somebody. */
export interface RecipientDescription {
  /** The stanza’s type, as `X25519`. */
  readonly type: string
  /** Who opens it, in words. */
  readonly opens: string
  /** What the stanza says of the key: its step, tag or work factor. */
  readonly hint?: string
}

export interface EnvelopeDescription {
  readonly headerSizeBytes: number
  readonly recipients: readonly RecipientDescription[]
  readonly context: EnvelopeContext | undefined
  /** Fingerprints, 16 bytes in hex, of the KMS identities with an origin tag. */
  readonly authorities: readonly string[]
  /** `count` is 1 where the file is no layer of several. */
  readonly layer: LayerPlace
}

const meaningOf = ({ args: [type, first = '', second = ''] }: Stanza): Omit<RecipientDescription, 'type'> => {
  switch (type) {
    case 'X25519':
      return { opens: 'an X25519 key; its stanza does not tell which' }
    case 'mlkem768x25519':
      return { opens: 'a post-quantum hybrid key (ML-KEM-768 and X25519); its stanza does not tell which' }
    case 'scrypt':
      return { opens: 'a passphrase', hint: `work factor 2^${second}` }
    case 'ssh-rsa':
      return { opens: 'an SSH key, RSA', hint: `tag ${first}` }
    case 'ssh-ed25519':
      return { opens: 'an SSH key, Ed25519, which Keyrise does not open', hint: `tag ${first}` }
    case 'keyrise/sub-key':
      return { opens: 'a sub key of a flow', hint: `step ${first}` }
    default:
      return { opens: 'unknown: passed over' }
  }
}

/**
 * Explains the header that `claimed` starts with, without a key.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED (a context or a layer that is none, too), ERR_HEADER_LIMIT.
 */
export const describeEnvelope = (claimed: Uint8Array): EnvelopeDescription => describeHeader(parseHeader(claimed))

/** The same of a header that was read already. */
export const describeHeader = (header: Header): EnvelopeDescription => ({
  headerSizeBytes: header.sizeBytes,
  recipients: header.stanzas
    .filter(({ args: [type] }) => type !== CONTEXT_TYPE && type !== LAYER_TYPE)
    .map((stanza) => ({ type: stanza.args[0], ...meaningOf(stanza) })),
  context: claimedContext(header),
  authorities: claimedAuthorities(header).map(toHex),
  layer: claimedLayer(header),
})

export interface PayloadDescription {
  readonly plaintextSizeBytes: number
  readonly chunkCount: number
}

/**
 * What a payload of this size holds, if it is whole.
 * @param payloadSizeBytes - of the file, without its header.
 * @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED, ERR_PAYLOAD_INVALID: no payload has this size; ERR_HEADER_MALFORMED: its nonce
 * is cut.
 */
export const describePayload = (payloadSizeBytes: number): PayloadDescription => {
  if (payloadSizeBytes < PAYLOAD_NONCE_SIZE)
    throw new KeyriseError('ERR_HEADER_MALFORMED', { detail: 'no payload nonce' })
  const chunksSize = payloadSizeBytes - PAYLOAD_NONCE_SIZE
  const chunkCount = Math.ceil(chunksSize / SEALED_CHUNK_SIZE)
  const lastSize = chunksSize - (chunkCount - 1) * SEALED_CHUNK_SIZE
  if (chunkCount === 0 || lastSize < TAG_SIZE) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
  if (chunkCount > 1 && lastSize === TAG_SIZE) throw new KeyriseError('ERR_PAYLOAD_INVALID')
  return { plaintextSizeBytes: openedSize(chunksSize), chunkCount }
}
