import { encodeCbor, decodeCbor, type Cbor } from './cbor.js'
import { allocate, type Bytes } from './bytes.js'
import { FieldReader } from './check.js'
import { isErrorCode, KeyriseError, type ErrorCode } from './errors.js'
import {
  DELIVERED_SEGMENT_SIZE_BYTES_MAX,
  KMS_FRAME_SIZE_BYTES_MAX,
  SEALED_SEGMENT_SIZE_BYTES_MAX,
  STREAM_SIZE_BYTES_MAX,
} from './limits.js'
import { sha256 } from './sha256.js'

/**
 * Frames between an enclave and a KMS. The host relays them unread. Outer frames are CBOR; what a session carries is sealed
 * by HPKE (RFC 9180) and has three parts, so that secrets never pass through the CBOR reader: see `encodeParts`. A segment is
 * a megabyte that says nothing to the reader: it stands behind its frame, see `makeBody`.
 */

/** What the enclave sends, in order: `challenge`, `handshake`, then `call`s. A host sends `segment`s of the streams that a session opened. */
export type KmsRequest =
  | { readonly op: 'identity' }
  | { readonly op: 'challenge' }
  | {
      readonly op: 'handshake'
      readonly handshake: Bytes
      readonly enclaveKey: Bytes
      readonly encapsulated: Bytes
      readonly evidence: Bytes
    }
  | { readonly op: 'call'; readonly session: Bytes; readonly sealed: Bytes }
  /** `stream`: an id, 16 bytes. `sealed`: the chunks of one segment, as they are stored. */
  | { readonly op: 'segment'; readonly stream: Bytes; readonly index: number; readonly sealed: Uint8Array }

/** What the KMS answers, by the `op` asked; or `{ error }`. */
export interface KmsReplies {
  /** `identity`: Ed25519, 32 bytes: what a launch must trust. `ready`: false while sealed. */
  identity: { readonly identity: Bytes; readonly ready: boolean }
  /** `handshake`: an id, 16 bytes. `nonce`: 32 bytes, for the evidence. `kmsKey`: an ephemeral X25519 key, 32 bytes. */
  challenge: { readonly handshake: Bytes; readonly nonce: Bytes; readonly kmsKey: Bytes }
  /** `session`: an id, 16 bytes. `signature`: Ed25519 by the KMS identity over `handshakeTranscript(…)`. */
  handshake: { readonly session: Bytes; readonly encapsulated: Bytes; readonly signature: Bytes }
  call: { readonly sealed: Bytes }
  /** `sealed`: the chunks, sealed again under the delivery key, then the segment’s digest: crypto/delivery.ts. */
  segment: { readonly sealed: Bytes }
}

const REQUEST_KEYS = ['op', 'handshake', 'enclaveKey', 'encapsulated', 'evidence', 'session', 'sealed'] as const
const SEGMENT_KEYS = ['op', 'stream', 'index'] as const
const SEGMENT_INDEX_MAX = STREAM_SIZE_BYTES_MAX / (1024 * 1024)
const EVIDENCE_SIZE_BYTES_MAX = 8192
/** An outer frame is one flat map. */
const FRAME_ITEM_COUNT_MAX = 64

export const encodeKmsRequest = (request: KmsRequest): Bytes => {
  if (request.op !== 'segment') return encodeCbor(request)
  const { sealed, ...head } = request
  const { frame, body } = makeBody(encodeCbor(head), sealed.length)
  body.set(sealed)
  return frame
}

/** @throws {KeyriseError} ERR_REQUEST_INVALID. */
export const decodeKmsRequest = (claimed: Uint8Array): KmsRequest => {
  if (claimed.length > KMS_FRAME_SIZE_BYTES_MAX) throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'too large' })
  if (claimed[0] === BODY_MARK) return decodeSegmentRequest(claimed)
  const fields = new FieldReader(decodeOr('ERR_REQUEST_INVALID', claimed), REQUEST_KEYS, 'ERR_REQUEST_INVALID')
  const op = fields.text('op', 16)
  switch (op) {
    case 'identity':
    case 'challenge':
      return { op }
    case 'handshake':
      return {
        op,
        handshake: fields.bytes('handshake', 16),
        enclaveKey: fields.bytes('enclaveKey', 32),
        encapsulated: fields.bytes('encapsulated', 32),
        evidence: fields.bytes('evidence', 1, EVIDENCE_SIZE_BYTES_MAX),
      }
    case 'call':
      return { op, session: fields.bytes('session', 16), sealed: fields.bytes('sealed', 16, KMS_FRAME_SIZE_BYTES_MAX) }
    default:
      throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'op' })
  }
}

/** `sealed` is a view of the frame. */
const decodeSegmentRequest = (claimed: Uint8Array): KmsRequest => {
  const code = 'ERR_REQUEST_INVALID'
  const { head, body } = splitBody(claimed, code)
  const fields = new FieldReader(decodeOr(code, head), SEGMENT_KEYS, code)
  if (fields.text('op', 16) !== 'segment') return fields.refuse('op')
  if (body.length === 0 || body.length > SEALED_SEGMENT_SIZE_BYTES_MAX) return fields.refuse('sealed')
  return {
    op: 'segment',
    stream: fields.bytes('stream', 16),
    index: fields.count('index', SEGMENT_INDEX_MAX),
    sealed: body,
  }
}

/** No CBOR map begins with it. */
const BODY_MARK = 0
const BODY_HEAD_SIZE_BYTES = 3

/** BODY_MARK, the size of the head (u16, big-endian), the head, and room for the body. */
const makeBody = (head: Uint8Array, bodySizeBytes: number): { readonly frame: Bytes; readonly body: Bytes } => {
  const bodyStart = BODY_HEAD_SIZE_BYTES + head.length
  const frame = allocate(bodyStart + bodySizeBytes)
  new DataView(frame.buffer).setUint16(1, head.length)
  frame.set(head, BODY_HEAD_SIZE_BYTES)
  return { frame, body: frame.subarray(bodyStart) }
}

/** Views into `frame`, which begins with BODY_MARK. */
const splitBody = (frame: Uint8Array, code: ErrorCode): { head: Uint8Array; body: Uint8Array } => {
  const headEnd = BODY_HEAD_SIZE_BYTES + (frame[1] ?? 0) * 256 + (frame[2] ?? 0)
  if (headEnd > frame.length) throw new KeyriseError(code, { detail: 'frame sizes' })
  return { head: frame.subarray(BODY_HEAD_SIZE_BYTES, headEnd), body: frame.subarray(headEnd) }
}

/** What answers `segment`: an empty head, then the delivery, which the caller writes into `delivered`. */
export const makeSegmentReply = (deliveredSizeBytes: number): { readonly frame: Bytes; readonly delivered: Bytes } => {
  const { frame, body } = makeBody(encodeCbor({}), deliveredSizeBytes)
  return { frame, delivered: body }
}

export const encodeKmsReply = (reply: Cbor): Bytes => encodeCbor(reply)
export const encodeKmsError = (code: ErrorCode): Bytes => encodeCbor({ error: code })

const REPLY_READERS: {
  readonly [Op in keyof KmsReplies]: readonly [keys: readonly string[], read: (fields: FieldReader) => KmsReplies[Op]]
} = {
  identity: [['identity', 'ready'], (f) => ({ identity: f.bytes('identity', 32), ready: f.flag('ready') })],
  challenge: [
    ['handshake', 'nonce', 'kmsKey'],
    (f) => ({ handshake: f.bytes('handshake', 16), nonce: f.bytes('nonce', 32), kmsKey: f.bytes('kmsKey', 32) }),
  ],
  handshake: [
    ['session', 'encapsulated', 'signature'],
    (f) => ({
      session: f.bytes('session', 16),
      encapsulated: f.bytes('encapsulated', 32),
      signature: f.bytes('signature', 64),
    }),
  ],
  call: [['sealed'], (f) => ({ sealed: f.bytes('sealed', 16, KMS_FRAME_SIZE_BYTES_MAX) })],
  segment: [['sealed'], (f) => ({ sealed: f.bytes('sealed', 1, DELIVERED_SEGMENT_SIZE_BYTES_MAX) })],
}

/**
 * Reads the answer to a request of kind `op`. Outer errors are unauthenticated hints.
 * @throws {KeyriseError} the code that the KMS names, or ERR_KMS_FAILED where the answer is not one.
 */
export const decodeKmsReply = <Op extends keyof KmsReplies>(op: Op, claimed: Uint8Array): KmsReplies[Op] => {
  if (claimed.length > KMS_FRAME_SIZE_BYTES_MAX) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'too large' })
  const value = op === 'segment' ? segmentReply(claimed) : decodeOr('ERR_KMS_FAILED', claimed)
  const [keys, read] = REPLY_READERS[op]
  const fields = new FieldReader(value, [...keys, 'error'], 'ERR_KMS_FAILED')
  if (fields.has('error')) throwClaimed(fields.claimed('error'))
  return read(fields)
}

/** The answer to `segment` as if all of it were CBOR. */
const segmentReply = (claimed: Uint8Array): unknown => {
  if (claimed[0] !== BODY_MARK) return decodeOr('ERR_KMS_FAILED', claimed)
  const { head, body } = splitBody(claimed, 'ERR_KMS_FAILED')
  new FieldReader(decodeOr('ERR_KMS_FAILED', head), [], 'ERR_KMS_FAILED')
  return { sealed: body }
}

/** Throws the code that a peer named, if it is one of ours. */
export const throwClaimed = (claimed: unknown): never => {
  throw new KeyriseError(isErrorCode(claimed) ? claimed : 'ERR_KMS_FAILED')
}

const decodeOr = (code: ErrorCode, claimed: Uint8Array): unknown => {
  try {
    return decodeCbor(claimed, FRAME_ITEM_COUNT_MAX)
  } catch (error) {
    throw new KeyriseError(code, { cause: error })
  }
}

/** What the KMS identity signs before the first application frame, in every session, first launch included. */
export const handshakeTranscript = (parts: {
  readonly nonce: Uint8Array
  readonly kmsKey: Uint8Array
  readonly enclaveKey: Uint8Array
  /** HPKE `enc` of the direction enclave → KMS, then of KMS → enclave. */
  readonly encapsulatedToKms: Uint8Array
  readonly encapsulatedToEnclave: Uint8Array
  readonly evidence: Uint8Array
  readonly session: Uint8Array
}): Bytes =>
  encodeCbor([
    'keyrise/v1/handshake',
    parts.nonce,
    parts.kmsKey,
    parts.enclaveKey,
    parts.encapsulatedToKms,
    parts.encapsulatedToEnclave,
    sha256(parts.evidence),
    parts.session,
  ])

/** HPKE `info` of both directions; the ephemerals are bound by HPKE itself, everything else by the signed transcript. */
export const SESSION_INFO = { toKms: 'keyrise/v1/session/to-kms', toEnclave: 'keyrise/v1/session/to-enclave' } as const

/** The plaintext of a session frame. `secrets` is raw bytes whose layout `meta` gives; `proof` says where it comes from. */
export interface Parts {
  readonly meta: Uint8Array
  readonly secrets: Uint8Array
  readonly proof: Uint8Array
}

/** u32 size of meta, u32 size of secrets, meta, secrets, proof (the rest). Big-endian. */
export const encodeParts = ({ meta, secrets, proof }: Parts): Bytes => {
  const frame = allocate(8 + meta.length + secrets.length + proof.length)
  const view = new DataView(frame.buffer)
  view.setUint32(0, meta.length)
  view.setUint32(4, secrets.length)
  frame.set(meta, 8)
  frame.set(secrets, 8 + meta.length)
  frame.set(proof, 8 + meta.length + secrets.length)
  return frame
}

/** Views into `frame`: wiping the frame wipes the secrets. @throws {KeyriseError} ERR_REQUEST_INVALID. */
export const decodeParts = (frame: Uint8Array): Parts => {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const metaSize = frame.length >= 8 ? view.getUint32(0) : Infinity
  const secretsSize = frame.length >= 8 ? view.getUint32(4) : Infinity
  if (8 + metaSize + secretsSize > frame.length)
    throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'frame sizes' })
  return {
    meta: frame.subarray(8, 8 + metaSize),
    secrets: frame.subarray(8 + metaSize, 8 + metaSize + secretsSize),
    proof: frame.subarray(8 + metaSize + secretsSize),
  }
}
