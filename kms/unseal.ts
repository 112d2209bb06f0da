import type { KeyObject } from 'node:crypto'
import { parseHeader, type Header } from '../protocol/age-header.js'
import { allocate, copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { encodeSegmentReply } from '../protocol/kms.js'
import type { FlowId } from '../protocol/names.js'
import type { ItemStatus } from '../protocol/session.js'
import type { Segment } from '../protocol/crypto/delivery.js'
import { checkSingle, unwrapHeader, verifyOrigin, type Origin } from '../protocol/crypto/envelope.js'
import { x25519Identity, type Identity } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'
import { resealSegment, SEGMENT_KEYS_SIZE } from './reseal.js'

/** What a thread that unseals holds: private keys as KeyObjects, which cross to a worker without their bytes being seen. */
export interface UnsealKeys {
  /** The KMS identity: whose origin tags count. */
  readonly authority: Bytes
  readonly rootKeys: readonly { readonly key: string; readonly privateKey: KeyObject }[]
}

/** Headers of one flow, whose file keys come back. `stream`: of envelopes with one layer only. */
export interface UnsealTask {
  readonly kind: 'unwrap' | 'stream'
  readonly items: readonly Bytes[]
  readonly flow: FlowId
  readonly image: Bytes
  readonly originKey: KeyObject
}

export interface Unsealed {
  readonly items: readonly ItemStatus[]
  /** What opened, one after the other; the caller zero-fills it. */
  readonly secrets: Bytes
}

/** A segment of a stream, as it is stored, to be sealed again for its delivery. */
export interface SegmentRequest {
  readonly segment: Segment
  /** `segment.sealedSizeBytes`, claimed; borrowed until the promise settles. */
  readonly sealed: Uint8Array
  /** The digest of what was answered under this index before. */
  readonly known: Bytes | undefined
  /** Fills SEGMENT_KEYS_SIZE bytes when the segment’s turn has come, or throws where its stream has ended. */
  readonly writeKeys: (into: Uint8Array) => void
}
export interface Resealed {
  /** Of the segment as it is stored. */
  readonly digest: Bytes
  /** The frame that answers: the delivery is in it already, since a megabyte is not copied twice. */
  readonly reply: Bytes
}

/** Unseals somewhere: on this thread, or on a pool. */
export interface Unsealer {
  /** @throws {KeyriseError} ERR_CALLS_LIMIT: too much waits already; ERR_KMS_FAILED. */
  unseal(task: UnsealTask): Promise<Unsealed>
  /** @throws {KeyriseError} ERR_ENVELOPE_INVALID: it does not open; ERR_CALLS_LIMIT, ERR_KMS_FAILED; what `writeKeys` throws. */
  reseal(request: SegmentRequest): Promise<Resealed>
  close(): Promise<void>
}

/**
 * Opens each item, or says that it does not open. An item is released only after an enclave of this flow and image is proven
 * to have sealed it; why one does not open stays here.
 */
export const unsealItems = (keys: UnsealKeys, { kind, items, flow, image, originKey }: UnsealTask): Unsealed => {
  using originSecret = Secret.take(originKey.export())
  const origin: Origin = { authority: keys.authority, key: originSecret }
  const identities = keys.rootKeys.map(({ key, privateKey }) => ({ key, identity: x25519Identity(privateKey) }))
  const opened = items.map((item) => tryOpen(() => openItem(item, kind, { identities, flow, image, origin })))
  const secrets = joinAndWipe(opened.map(({ secret }) => secret))
  return { items: opened.map(({ status }) => status), secrets }
}

/** Unseals on the calling thread. */
export class InlineUnsealer implements Unsealer {
  readonly #keys: UnsealKeys

  constructor(keys: UnsealKeys) {
    this.#keys = keys
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the interface is asynchronous for the pool’s sake
  async unseal(task: UnsealTask): Promise<Unsealed> {
    return unsealItems(this.#keys, task)
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the same
  async reseal({ segment, sealed, known, writeKeys }: SegmentRequest): Promise<Resealed> {
    const keys = allocate(SEGMENT_KEYS_SIZE)
    const into = allocate(segment.deliveredSizeBytes)
    try {
      writeKeys(keys)
      const digest = resealSegment({ keys, segment, known, sealed, into })
      if (digest === undefined) throw new KeyriseError('ERR_ENVELOPE_INVALID')
      return { digest, reply: encodeSegmentReply(into) }
    } finally {
      keys.fill(0)
    }
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** Results of parts of one request, in order, as one. The parts are zero-filled. */
export const joinUnsealed = (parts: readonly Unsealed[]): Unsealed => ({
  items: parts.flatMap(({ items }) => items),
  secrets: joinAndWipe(parts.map(({ secrets }) => secrets)),
})

const joinAndWipe = (parts: readonly Uint8Array[]): Bytes => {
  const whole = allocate(parts.reduce((size, part) => size + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
    part.fill(0)
  }
  return whole
}

interface Context {
  readonly identities: readonly { readonly key: string; readonly identity: Identity }[]
  readonly flow: FlowId
  readonly image: Bytes
  readonly origin: Origin
}
interface Opened {
  readonly status: ItemStatus
  readonly secret: Uint8Array
}

const NOTHING = new Uint8Array(0)

const tryOpen = (open: () => Opened): Opened => {
  try {
    return open()
  } catch (error) {
    const code = isKeyriseError(error) ? 'ERR_ENVELOPE_INVALID' : 'ERR_KMS_FAILED'
    return { status: { key: null, error: code, sizeBytes: 0 }, secret: NOTHING }
  }
}

const openItem = (item: Bytes, kind: UnsealTask['kind'], { identities, flow, image, origin }: Context): Opened => {
  const header = parseHeader(item)
  const { key, fileKey } = unwrapByAny(header, identities)
  using _ = fileKey
  const context = verifyOrigin(header, fileKey, origin)
  if (context.flow !== flow || !equalPublicBytes(context.image, image)) throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  if (kind === 'stream') checkSingle(header)
  const secret = fileKey.expose(copyBytes)
  return { status: { key, error: null, sizeBytes: secret.length }, secret }
}

/** The file key, and which root key gave it. */
const unwrapByAny = (header: Header, identities: Context['identities']): { key: string; fileKey: Secret } => {
  for (const { key, identity } of identities) {
    try {
      return { key, fileKey: unwrapHeader(header, [identity]) }
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_IDENTITY_MISMATCH')) throw error
    }
  }
  throw new KeyriseError('ERR_IDENTITY_MISMATCH')
}
