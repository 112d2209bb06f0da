import { copyBytes, equalPublicBytes, type Bytes } from './bytes.js'
import { decodeCbor, encodeCbor, type Cbor } from './cbor.js'
import { FieldReader } from './check.js'
import { KeyriseError } from './errors.js'
import { throwClaimed } from './kms.js'
import {
  HEADER_SIZE_BYTES_MAX,
  KMS_ITEM_COUNT_MAX,
  PREDECESSOR_COUNT_MAX,
  RECEIPT_SIZE_BYTES_MAX,
  ROOT_KEY_COUNT_MAX,
  ROSTER_VALUE_SIZE_BYTES_MAX,
  STORED_HEADER_COUNT_MAX,
  STREAM_COUNT_MAX,
  STREAM_SIZE_BYTES_MAX,
} from './limits.js'
import { parseFlowId, parsePath, parseStoreId, type FlowId, type StoreId } from './names.js'

/**
 * What an enclave asks inside a session (`call`), and what it gets. Requests are pure CBOR (`meta`); replies carry raw
 * secrets beside it (kms.ts, `encodeParts`). A session serves one flow, the one that `open` named.
 */

/** A committed state of a flow: its epoch and the digest of that epoch's payload, 32 bytes. */
export interface Head {
  readonly epoch: number
  readonly digest: Bytes
}

/** Null is a flow's head before its first commit. */
export const equalHeads = (a: Head | null, b: Head | null): boolean =>
  a === null || b === null ? a === b : a.epoch === b.epoch && equalPublicBytes(a.digest, b.digest)

/** A header where it lies: its name in a store, and the SHA-256 of it, 32 bytes. */
export interface HeaderReference {
  readonly name: string
  readonly digest: Bytes
}

/** A payload that is to be streamed: see `stream`. */
export interface StreamItem {
  readonly header: Bytes
  /** The payload’s, 16 bytes. */
  readonly nonce: Bytes
  /** Of the plaintext. */
  readonly sizeBytes: number
}

export type SessionRequest =
  /**
   * Who holds the flow now, and under which keys to seal. Changes nothing, but for making the flow known at its first launch.
   * `holds`: the incarnation under which the caller holds it already; 0 before its claim.
   */
  | { readonly op: 'open'; readonly flow: FlowId; readonly task: FlowId; readonly holds: number }
  /**
   * Takes the flow over: the one compare-and-swap of a recovery. `head` and `incarnation` are as `open` gave them; `adopt`
   * is an honest head + 1 that a crash left unacknowledged. `stale`: the state is not the ledger's, and an operator accepted
   * that; `adopt` is then any epoch above the head.
   */
  | {
      readonly op: 'claim'
      readonly head: Head | null
      readonly incarnation: number
      readonly adopt: (Head & { readonly incarnation: number }) | null
      readonly stale: boolean
    }
  | { readonly op: 'commit'; readonly incarnation: number; readonly parent: Head | null; readonly head: Head }
  /** Headers of envelopes sealed to root keys; the file keys come back. */
  | { readonly op: 'unwrap'; readonly headers: readonly Bytes[] }
  /** The same of headers that the KMS reads itself, in a store that its operator registered: what they are is known beforehand. */
  | { readonly op: 'unwrap-stored'; readonly store: StoreId; readonly headers: readonly HeaderReference[] }
  /**
   * Headers of envelopes sealed to root keys whose payloads come in segments, outside the session (kms.ts, `segment`): a stream
   * for each, and the key that it is delivered under. `done`: streams to forget.
   */
  | { readonly op: 'stream'; readonly items: readonly StreamItem[]; readonly done: readonly Bytes[] }
  | {
      readonly op: 'publish'
      readonly incarnation: number
      readonly signingKey: Bytes
      readonly values: Readonly<Record<string, Bytes>>
    }
  | { readonly op: 'roster' }
  | { readonly op: 'destroy'; readonly incarnation: number }

export interface OpenReply {
  /** Certificates of the root keys to seal to, newest first: see `decodeCertificateBody`. */
  readonly certificates: readonly Bytes[]
  /** The incarnation that holds the flow; 0 when none ever did. */
  readonly incarnation: number
  readonly head: Head | null
  /** An operator accepted that the next recovery takes what the store shows: docs/kms.md. */
  readonly staleAccepted: boolean
  readonly receipt: Bytes
  /** The image that has the flow, where the caller’s may take it over: its measurement, 32 bytes, and its SVN. */
  readonly migratesFrom: { readonly image: Bytes; readonly svn: number } | null
  /** Measurements of images that had it before that one, the newest first. */
  readonly predecessors: readonly Bytes[]
}
export interface ItemStatus {
  /** The root key that opened the item, as `root@1`; or the code that says why it did not open. */
  readonly key: string | null
  readonly error: string | null
  /** Bytes of `secrets` that belong to the item, in order; 0 where it failed. */
  readonly sizeBytes: number
}
export interface StreamStatus extends ItemStatus {
  /** Its id, 16 bytes; null where the item did not open. */
  readonly stream: Bytes | null
}
/** secrets: the file keys, 16 bytes for each item that opened. proof: `encodeProofs`. `epoch`: of the head, in the ledger. */
export interface UnwrapReply {
  readonly items: readonly ItemStatus[]
  readonly epoch: number
  readonly receipt: Bytes
}
/** `receipt`: the KMS’s of this very answer (receipts.ts), durable before it left. */
export interface SessionReplies {
  /** secrets: the flow's origin keys, 32 bytes each: the caller’s image’s, that of `migratesFrom`, those of `predecessors`. */
  open: OpenReply
  /** `acknowledgement`: the KMS identity’s signature over what the ledger now holds (`encodeAcknowledgement`), 64 bytes. */
  claim: { readonly incarnation: number; readonly acknowledgement: Bytes; readonly receipt: Bytes }
  /** `receipt`: where the commit took the flow over from another image; else null. */
  commit: { readonly acknowledgement: Bytes; readonly receipt: Bytes | null }
  unwrap: UnwrapReply
  /** The answer to `unwrap` of the same headers, with ERR_STATE_LOST for one that the store does not have. */
  'unwrap-stored': UnwrapReply
  /** secrets: the delivery keys, 32 bytes for each item that opened. proof, epoch: as of `unwrap`. */
  stream: { readonly items: readonly StreamStatus[]; readonly epoch: number; readonly receipt: Bytes }
  publish: Record<never, never>
  roster: { readonly roster: Bytes; readonly signature: Bytes }
  destroy: { readonly receipt: Bytes }
}

const CODE = 'ERR_REQUEST_INVALID'
const REQUEST_KEYS = [
  'op',
  'flow',
  'task',
  'holds',
  'head',
  'incarnation',
  'adopt',
  'stale',
  'parent',
  'headers',
  'store',
  'items',
  'done',
  'signingKey',
  'values',
]

const readHead = (claimed: unknown): Head => {
  const fields = new FieldReader(claimed, ['epoch', 'digest'], CODE)
  return { epoch: fields.count('epoch', Number.MAX_SAFE_INTEGER, 1), digest: fields.bytes('digest', 32) }
}
const readHeadOrNull = (claimed: unknown): Head | null =>
  claimed === null || claimed === undefined ? null : readHead(claimed)

const readAdopted = (claimed: unknown): (Head & { incarnation: number }) | null => {
  if (claimed === null || claimed === undefined) return null
  const fields = new FieldReader(claimed, ['epoch', 'digest', 'incarnation'], CODE)
  return {
    epoch: fields.count('epoch', Number.MAX_SAFE_INTEGER, 1),
    digest: fields.bytes('digest', 32),
    incarnation: fields.count('incarnation'),
  }
}

const readBytes =
  (sizeMax: number) =>
  (claimed: unknown): Bytes => {
    if (!(claimed instanceof Uint8Array) || claimed.length > sizeMax)
      throw new KeyriseError(CODE, { detail: 'an item' })
    return copyBytes(claimed)
  }

const readReference = (claimed: unknown): HeaderReference => {
  const f = new FieldReader(claimed, ['name', 'digest'], CODE)
  return { name: parsePath(f.claimed('name')), digest: f.bytes('digest', 32) }
}

const readStreamItem = (claimed: unknown): StreamItem => {
  const f = new FieldReader(claimed, ['header', 'nonce', 'sizeBytes'], CODE)
  return {
    header: f.bytes('header', 0, HEADER_SIZE_BYTES_MAX),
    nonce: f.bytes('nonce', 16),
    sizeBytes: f.count('sizeBytes', STREAM_SIZE_BYTES_MAX),
  }
}
const readStreamId = (claimed: unknown): Bytes => new FieldReader({ id: claimed }, ['id'], CODE).bytes('id', 16)

const readMigratesFrom = (claimed: unknown): { image: Bytes; svn: number } => {
  const fields = new FieldReader(claimed, ['image', 'svn'], CODE)
  return { image: fields.bytes('image', 32), svn: fields.count('svn') }
}
const readMeasurement = (claimed: unknown): Bytes =>
  new FieldReader({ image: claimed }, ['image'], CODE).bytes('image', 32)

/** Values that a member publishes: checked names, bounded bytes. */
export const readPublished = (claimed: unknown): Record<string, Bytes> => {
  if (typeof claimed !== 'object' || claimed === null || Array.isArray(claimed) || claimed instanceof Uint8Array)
    throw new KeyriseError(CODE, { detail: 'values' })
  if (Object.keys(claimed).length > 16) throw new KeyriseError(CODE, { detail: 'values' })
  return Object.fromEntries(
    Object.entries(claimed).map(([name, value]) => [parsePath(name), readBytes(ROSTER_VALUE_SIZE_BYTES_MAX)(value)]),
  )
}

export const encodeSessionRequest = (request: SessionRequest): Bytes => encodeCbor(request as unknown as Cbor)

/** @throws {KeyriseError} ERR_REQUEST_INVALID, ERR_NAME_INVALID, ERR_CBOR_INVALID. */
export const decodeSessionRequest = (claimed: Uint8Array): SessionRequest => {
  const f = new FieldReader(decodeCbor(claimed), REQUEST_KEYS, CODE)
  const op = f.text('op', 16)
  switch (op) {
    case 'open':
      return {
        op,
        flow: parseFlowId(f.claimed('flow')),
        task: parseFlowId(f.claimed('task')),
        holds: f.count('holds'),
      }
    case 'claim':
      return {
        op,
        head: readHeadOrNull(f.claimed('head')),
        incarnation: f.count('incarnation'),
        adopt: readAdopted(f.claimed('adopt')),
        stale: f.flag('stale'),
      }
    case 'commit':
      return {
        op,
        incarnation: f.count('incarnation'),
        parent: readHeadOrNull(f.claimed('parent')),
        head: readHead(f.claimed('head')),
      }
    case 'unwrap':
      return { op, headers: f.list('headers', KMS_ITEM_COUNT_MAX, readBytes(HEADER_SIZE_BYTES_MAX)) }
    case 'unwrap-stored':
      return {
        op,
        store: parseStoreId(f.claimed('store')),
        headers: f.list('headers', STORED_HEADER_COUNT_MAX, readReference),
      }
    case 'stream':
      return {
        op,
        items: f.list('items', STREAM_COUNT_MAX, readStreamItem),
        done: f.list('done', STREAM_COUNT_MAX, readStreamId),
      }
    case 'publish':
      return {
        op,
        incarnation: f.count('incarnation'),
        signingKey: f.bytes('signingKey', 32),
        values: readPublished(f.claimed('values')),
      }
    case 'roster':
      return { op }
    case 'destroy':
      return { op, incarnation: f.count('incarnation') }
    default:
      return f.refuse('op')
  }
}

export const encodeSessionReply = <Op extends keyof SessionReplies>(_op: Op, reply: SessionReplies[Op]): Bytes =>
  encodeCbor(reply as unknown as Cbor)
export const encodeSessionError = (code: string): Bytes => encodeCbor({ error: code })

const ITEM_KEYS = ['key', 'error', 'sizeBytes']
const readStatus = (f: FieldReader): ItemStatus => ({
  key: f.has('key') ? f.text('key', 64) : null,
  error: f.has('error') ? f.text('error', 64) : null,
  sizeBytes: f.count('sizeBytes'),
})
const readItem = (claimed: unknown): ItemStatus => readStatus(new FieldReader(claimed, ITEM_KEYS, CODE))
const readStream = (claimed: unknown): StreamStatus => {
  const f = new FieldReader(claimed, [...ITEM_KEYS, 'stream'], CODE)
  return { ...readStatus(f), stream: f.has('stream') ? f.bytes('stream', 16) : null }
}
const readReceipt = (f: FieldReader): Bytes => f.bytes('receipt', 1, RECEIPT_SIZE_BYTES_MAX)
const nothing = (): Record<never, never> => ({})

const UNWRAP_READER: readonly [readonly string[], (f: FieldReader) => UnwrapReply] = [
  ['items', 'epoch', 'receipt'],
  (f) => ({
    items: f.list('items', KMS_ITEM_COUNT_MAX, readItem),
    epoch: f.count('epoch'),
    receipt: readReceipt(f),
  }),
]

const REPLY_READERS: {
  readonly [Op in keyof SessionReplies]: readonly [
    keys: readonly string[],
    read: (f: FieldReader) => SessionReplies[Op],
  ]
} = {
  open: [
    ['certificates', 'incarnation', 'head', 'staleAccepted', 'migratesFrom', 'predecessors', 'receipt'],
    (f) => ({
      certificates: f.list('certificates', ROOT_KEY_COUNT_MAX, readBytes(4096)),
      incarnation: f.count('incarnation'),
      head: readHeadOrNull(f.claimed('head')),
      staleAccepted: f.flag('staleAccepted'),
      receipt: readReceipt(f),
      migratesFrom: f.has('migratesFrom') ? readMigratesFrom(f.claimed('migratesFrom')) : null,
      predecessors: f.list('predecessors', PREDECESSOR_COUNT_MAX, readMeasurement),
    }),
  ],
  claim: [
    ['incarnation', 'acknowledgement', 'receipt'],
    (f) => ({
      incarnation: f.count('incarnation'),
      acknowledgement: f.bytes('acknowledgement', 64),
      receipt: readReceipt(f),
    }),
  ],
  commit: [
    ['acknowledgement', 'receipt'],
    (f) => ({
      acknowledgement: f.bytes('acknowledgement', 64),
      receipt: f.has('receipt') ? readReceipt(f) : null,
    }),
  ],
  unwrap: UNWRAP_READER,
  'unwrap-stored': UNWRAP_READER,
  stream: [
    ['items', 'epoch', 'receipt'],
    (f) => ({
      items: f.list('items', STREAM_COUNT_MAX, readStream),
      epoch: f.count('epoch'),
      receipt: readReceipt(f),
    }),
  ],
  publish: [[], nothing],
  roster: [
    ['roster', 'signature'],
    (f) => ({ roster: f.bytes('roster', 1, 1024 * 1024), signature: f.bytes('signature', 64) }),
  ],
  destroy: [['receipt'], (f) => ({ receipt: readReceipt(f) })],
}

/** @throws {KeyriseError} the code that the KMS names (authenticated, since the session carried it), or ERR_REQUEST_INVALID. */
export const decodeSessionReply = <Op extends keyof SessionReplies>(
  op: Op,
  claimed: Uint8Array,
): SessionReplies[Op] => {
  const [keys, read] = REPLY_READERS[op]
  const f = new FieldReader(decodeCbor(claimed), [...keys, 'error'], CODE)
  if (f.has('error')) throwClaimed(f.claimed('error'))
  return read(f)
}
