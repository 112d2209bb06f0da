import type { KeyObject } from 'node:crypto'
import { parseHeader, type Header } from '../protocol/age-header.js'
import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { makeSegmentReply } from '../protocol/kms.js'
import type { FlowId } from '../protocol/names.js'
import type { ItemStatus } from '../protocol/session.js'
import type { RootSuite } from '../protocol/statements.js'
import type { Segment } from '../protocol/crypto/delivery.js'
import { checkSingle, unwrapHeader, verifyOrigin, type Origin } from '../protocol/crypto/envelope.js'
import { FILE_KEY_SIZE, type Identity } from '../protocol/crypto/recipients.js'
import { rootIdentity } from '../protocol/crypto/root-private.js'
import { Secret } from '../protocol/crypto/secret.js'
import { resealSegment, SEGMENT_KEYS_SIZE } from './reseal.js'

/** What a thread that unseals holds: private keys as KeyObjects, which cross to a worker without their bytes being seen. */
export interface UnsealKeys {
  /** The KMS identity: whose origin tags count. */
  readonly authority: Bytes
  readonly rootKeys: readonly { readonly key: string; readonly suite: RootSuite; readonly privateKey: KeyObject }[]
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
  /** Parts that wait; none where it works at once. */
  readonly queueCount?: number
  /** @throws {KeyriseError} ERR_CALLS_LIMIT: too much waits already; ERR_KMS_FAILED. */
  unseal(task: UnsealTask): Promise<Unsealed>
  /** @throws {KeyriseError} ERR_ENVELOPE_INVALID: it does not open; ERR_CALLS_LIMIT, ERR_KMS_FAILED; what `writeKeys` throws. */
  reseal(request: SegmentRequest): Promise<Resealed>
  close(): Promise<void>
}

/** The keys as a thread uses them: public halves are derived once. */
export interface UnsealIdentities {
  readonly authority: Bytes
  /** In the order of `rootKeys`. */
  readonly identities: readonly (Identity & Partial<Disposable>)[]
}

export const prepareKeys = ({ authority, rootKeys }: UnsealKeys): UnsealIdentities => ({
  authority,
  identities: rootKeys.map(({ suite, privateKey }) => rootIdentity(suite, privateKey)),
})

/** What a thread answers: numbers and bytes, since hundreds of objects would take longer to cross than to make. */
export interface OpenedItems {
  /** For each item the place of the root key that opened it, or NOT_OPENED, or FAILED. */
  readonly outcomes: Int32Array
  /** The file keys of those that opened, one after the other; whoever gets it zero-fills it. */
  readonly secrets: Bytes
}
const NOT_OPENED = -1
const FAILED = -2

/**
 * Opens each item, or says that it does not open. An item is released only after an enclave of this flow and image is proven
 * to have sealed it; why one does not open stays here.
 */
export const openItems = (
  { authority, identities }: UnsealIdentities,
  items: readonly Uint8Array[],
  { kind, flow, image, originKey }: Omit<UnsealTask, 'items'>,
): OpenedItems => {
  using originSecret = Secret.take(originKey.export())
  const context: Context = { identities, kind, flow, image, origin: { authority, key: originSecret } }
  const outcomes = new Int32Array(items.length)
  const secrets = allocate(items.length * FILE_KEY_SIZE)
  let end = 0
  items.forEach((item, index) => {
    const outcome = tryOpen(item, context, secrets.subarray(end, end + FILE_KEY_SIZE))
    outcomes[index] = outcome
    if (outcome >= 0) end += FILE_KEY_SIZE
  })
  // The buffer moves between threads whole.
  return { outcomes, secrets: end === secrets.length ? secrets : joinAndWipe([secrets.subarray(0, end)]) }
}

/** Results of parts of one request, in order, as one. The parts are zero-filled. */
export const joinOpened = ({ rootKeys }: UnsealKeys, parts: readonly OpenedItems[]): Unsealed => ({
  items: parts.flatMap(({ outcomes }) =>
    Array.from(outcomes, (outcome): ItemStatus => {
      const key = rootKeys[outcome]?.key
      if (key !== undefined) return { key, error: null, sizeBytes: FILE_KEY_SIZE }
      return { key: null, error: outcome === NOT_OPENED ? 'ERR_ENVELOPE_INVALID' : 'ERR_KMS_FAILED', sizeBytes: 0 }
    }),
  ),
  secrets: joinAndWipe(parts.map(({ secrets }) => secrets)),
})

/** Unseals on the calling thread. */
export class InlineUnsealer implements Unsealer {
  readonly #keys: UnsealKeys
  readonly #identities: UnsealIdentities

  constructor(keys: UnsealKeys) {
    this.#keys = keys
    this.#identities = prepareKeys(keys)
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the interface is asynchronous for the pool’s sake
  async unseal(task: UnsealTask): Promise<Unsealed> {
    return joinOpened(this.#keys, [openItems(this.#identities, task.items, task)])
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the same
  async reseal({ segment, sealed, known, writeKeys }: SegmentRequest): Promise<Resealed> {
    const keys = allocate(SEGMENT_KEYS_SIZE)
    const { frame, delivered } = makeSegmentReply(segment.deliveredSizeBytes)
    try {
      writeKeys(keys)
      const digest = resealSegment({ keys, segment, known, sealed, into: delivered })
      if (digest === undefined) throw new KeyriseError('ERR_ENVELOPE_INVALID')
      return { digest, reply: frame }
    } finally {
      keys.fill(0)
    }
  }

  close(): Promise<void> {
    for (const identity of this.#identities.identities) identity[Symbol.dispose]?.()
    return Promise.resolve()
  }
}

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

interface Context extends Pick<UnsealTask, 'kind' | 'flow' | 'image'> {
  readonly identities: readonly Identity[]
  readonly origin: Origin
}

/** @returns the outcome; only where the item opened is anything in `into`. */
const tryOpen = (item: Uint8Array, context: Context, into: Bytes): number => {
  try {
    return openItem(item, context, into)
  } catch (error) {
    return isKeyriseError(error) ? NOT_OPENED : FAILED
  }
}

const openItem = (item: Uint8Array, { identities, kind, flow, image, origin }: Context, into: Bytes): number => {
  const header = parseHeader(item)
  const { place, fileKey } = unwrapByAny(header, identities)
  using _ = fileKey
  const context = verifyOrigin(header, fileKey, origin)
  if (context.flow !== flow || !equalPublicBytes(context.image, image)) throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  if (kind === 'stream') checkSingle(header)
  fileKey.expose((bytes) => into.set(bytes))
  return place
}

/** The file key, and the place of the root key that gave it. */
const unwrapByAny = (header: Header, identities: readonly Identity[]): { place: number; fileKey: Secret } => {
  for (const [place, identity] of identities.entries()) {
    try {
      return { place, fileKey: unwrapHeader(header, [identity]) }
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_IDENTITY_MISMATCH')) throw error
    }
  }
  throw new KeyriseError('ERR_IDENTITY_MISMATCH')
}
