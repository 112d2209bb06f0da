import { concatBytes, copyBytes, type Bytes } from './bytes.js'
import { encodeCbor } from './cbor.js'
import { FieldReader } from './check.js'
import { isErrorCode, KeyriseError, type ErrorCode } from './errors.js'
import { KMS_ITEM_COUNT_MAX, REASON_LENGTH_MAX, RECEIPT_SIZE_BYTES_MAX } from './limits.js'
import { parseFlowId, type FlowId } from './names.js'
import { sha256 } from './sha256.js'
import { readTagged } from './statements.js'

/**
 * Receipts: what a KMS says that it did, or refused, each signed by its identity and chained to the one before. A receipt is a body,
 * deterministic CBOR that names itself, and behind it the signature, 64 bytes. docs/receipts.md.
 */

/** What receipts are left of. */
export const RECEIPT_KINDS = [
  // What an attested enclave was given, or has changed
  'open',
  'claim',
  'unwrap',
  'stream',
  'destroy',
  'migration',
  // What was refused: one by one, and those that came too fast for that, counted
  'denial',
  'denials',
  // What operators did
  'init',
  'unlock',
  'seal',
  'backup',
  'restore',
  'rotation',
  'rekey',
  'key-state',
  'rewrap',
  'policy',
  'approval',
  'override',
  'break-glass',
] as const
export type ReceiptKind = (typeof RECEIPT_KINDS)[number]

/** What a receipt is about, as far as it applies. Digests are SHA-256, 32 bytes. */
export interface ReceiptFields {
  /** Why it was not done; left out where it was. */
  readonly outcome?: ErrorCode
  readonly flow?: FlowId
  /** The head of the flow when it was done; left out before the first commit. */
  readonly epoch?: number
  readonly headDigest?: Bytes
  readonly incarnation?: number
  /** Of the image that asked. */
  readonly measurement?: Bytes
  /** Of the evidence of its session. */
  readonly evidenceDigest?: Bytes
  /** Of the request, as the session carried it. */
  readonly requestDigest?: Bytes
  /** What was asked for, where it was refused. */
  readonly operation?: string
  readonly itemCount?: number
  readonly openedCount?: number
  /** `digestOfItems` of the headers that opened. */
  readonly openedDigest?: Bytes
  /** A root key, `root@1`, and the state that it is in now. */
  readonly key?: string
  readonly state?: string
  /** Of the file that it is about: a policy, a backup. */
  readonly digest?: Bytes
  /** In words; up to REASON_LENGTH_MAX characters. */
  readonly reason?: string
  /** Names of those who approved of it. */
  readonly approvers?: readonly string[]
  /** Of `denials`: how many of each code. */
  readonly counts?: Readonly<Record<string, number>>
}

/** Where in the chain a receipt stands. */
export interface ReceiptLink {
  /** From 1 on, one after the other. */
  readonly sequence: number
  /** `receiptDigest` of the receipt before; `firstLink` says what the first one has. */
  readonly previous: Bytes
}

export interface Receipt extends ReceiptLink, ReceiptFields {
  /** The KMS identity whose receipt it is, 32 bytes. */
  readonly kms: Bytes
  /** Since the epoch, by the KMS’s clock. */
  readonly timeMs: number
  readonly kind: ReceiptKind
}

const TAG = 'keyrise/v1/receipt'
const CODE = 'ERR_REQUEST_INVALID'
const SIGNATURE_SIZE = 64
const NAME_LENGTH_MAX = 64
const APPROVER_COUNT_MAX = 32

/** Where the first receipt of a KMS stands: no other KMS’s does. */
export const firstLink = (identity: Uint8Array): ReceiptLink => ({
  sequence: 1,
  previous: sha256(encodeCbor(['keyrise/v1/receipts', identity])),
})

/** Of a receipt with its signature: what the next one is chained to. */
export const receiptDigest = (receipt: Uint8Array): Bytes => sha256(receipt)

/** Where the receipt after `receipt` stands. */
export const linkAfter = (receipt: Uint8Array, { sequence }: Pick<ReceiptLink, 'sequence'>): ReceiptLink => ({
  sequence: sequence + 1,
  previous: receiptDigest(receipt),
})

/** Of headers or other items, in order: the SHA-256 of their SHA-256 digests, one after the other. */
export const digestOfItems = (items: readonly Uint8Array[]): Bytes => sha256(...items.map((item) => sha256(item)))

/** What the KMS identity signs. Fields that are undefined are left out. */
export const encodeReceiptBody = (receipt: Receipt): Bytes => {
  const stated = Object.entries(receipt).filter(([, value]) => value !== undefined)
  return encodeCbor([TAG, Object.fromEntries(stated)])
}

/** @throws {KeyriseError} ERR_SIZE_LIMIT. */
export const joinReceipt = (body: Uint8Array, signature: Uint8Array): Bytes => {
  if (body.length + SIGNATURE_SIZE > RECEIPT_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a receipt' })
  return concatBytes(body, signature)
}

/** Splits a receipt; `decodeReceiptBody` reads the body. @throws {KeyriseError} ERR_REQUEST_INVALID. */
export const splitReceipt = (claimed: Uint8Array): { body: Bytes; signature: Bytes } => {
  if (claimed.length <= SIGNATURE_SIZE || claimed.length > RECEIPT_SIZE_BYTES_MAX)
    throw new KeyriseError(CODE, { detail: 'receipt' })
  return {
    body: copyBytes(claimed.subarray(0, -SIGNATURE_SIZE)),
    signature: copyBytes(claimed.subarray(-SIGNATURE_SIZE)),
  }
}

const KEYS = [
  ...['kms', 'sequence', 'previous', 'timeMs', 'kind', 'outcome', 'flow', 'epoch', 'headDigest', 'incarnation'],
  ...['measurement', 'evidenceDigest', 'requestDigest', 'operation', 'itemCount', 'openedCount', 'openedDigest'],
  ...['key', 'state', 'digest', 'reason', 'approvers', 'counts'],
]

/** What a body says; nothing of it counts before its signature was verified. @throws {KeyriseError} ERR_REQUEST_INVALID, ERR_CBOR_INVALID. */
export const decodeReceiptBody = (body: Uint8Array): Receipt => {
  const f = new FieldReader(readTagged(TAG, body), KEYS, CODE)
  const kind = f.text('kind', NAME_LENGTH_MAX)
  if (!isReceiptKind(kind)) return f.refuse('kind')
  return {
    kms: f.bytes('kms', 32),
    sequence: f.count('sequence', Number.MAX_SAFE_INTEGER, 1),
    previous: f.bytes('previous', 32),
    timeMs: f.count('timeMs'),
    kind,
    ...readFields(f),
  }
}

export const isReceiptKind = (claimed: string): claimed is ReceiptKind =>
  (RECEIPT_KINDS as readonly string[]).includes(claimed)

const readFields = (f: FieldReader): ReceiptFields => {
  const given = <K extends keyof ReceiptFields>(key: K, read: () => ReceiptFields[K]): Pick<ReceiptFields, K> =>
    (f.has(key) ? { [key]: read() } : {}) as Pick<ReceiptFields, K>
  const digest = (key: keyof ReceiptFields) => given(key, () => f.bytes(key, 32))
  const count = (key: keyof ReceiptFields, max?: number) => given(key, () => f.count(key, max))
  const name = (key: keyof ReceiptFields) => given(key, () => f.text(key, NAME_LENGTH_MAX))
  return {
    ...given('outcome', () => readCode(f)),
    ...given('flow', () => parseFlowId(f.claimed('flow'))),
    ...count('epoch'),
    ...digest('headDigest'),
    ...count('incarnation'),
    ...digest('measurement'),
    ...digest('evidenceDigest'),
    ...digest('requestDigest'),
    ...name('operation'),
    ...count('itemCount', KMS_ITEM_COUNT_MAX),
    ...count('openedCount', KMS_ITEM_COUNT_MAX),
    ...digest('openedDigest'),
    ...name('key'),
    ...name('state'),
    ...digest('digest'),
    ...given('reason', () => f.text('reason', REASON_LENGTH_MAX)),
    ...given('approvers', () => f.list('approvers', APPROVER_COUNT_MAX, readName)),
    ...given('counts', () => readCounts(f.claimed('counts'))),
  }
}

const readCode = (f: FieldReader): ErrorCode => {
  const code = f.text('outcome', NAME_LENGTH_MAX)
  return isErrorCode(code) ? code : f.refuse('outcome')
}

const readName = (claimed: unknown): string =>
  new FieldReader({ name: claimed }, ['name'], CODE).text('name', NAME_LENGTH_MAX)

const readCounts = (claimed: unknown): Record<string, number> => {
  const codes = typeof claimed === 'object' && claimed !== null ? Object.keys(claimed).filter(isErrorCode) : []
  const f = new FieldReader(claimed, codes, CODE)
  return Object.fromEntries(codes.map((code) => [code, f.count(code)]))
}
