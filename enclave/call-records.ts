import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import type { Bytes } from '../protocol/bytes.js'
import { CALL_RECORD_COUNT_MAX, CALL_RECORDS_SIZE_BYTES_MAX, IDEMPOTENCY_KEY_LENGTH_MAX } from '../protocol/limits.js'
import { parseEntryName, parseStoredName, type EntryName } from '../protocol/names.js'

/**
 * What a flow keeps of its keyed calls: one entry of the runtime's own, stored with each of their checkpoints. Records are in
 * the order in which they were last stored, oldest first.
 */
export interface CallRecord {
  /** SHA-256 of the ECALL's name and argument. */
  readonly digest: Bytes
  /** Of the call's checkpoints, in order: a rerun gets them instead of storing again. */
  readonly epochs: readonly number[]
  /** What a rerun reads of entries that those checkpoints changed. None are kept once there is an outcome. */
  readonly images: readonly BeforeImage[]
  /** How the call ended, encoded; null while it is not known to have ended. */
  readonly outcome: Bytes | null
}

/** What an entry was before the call's own checkpoint changed it. */
export interface BeforeImage {
  readonly entry: EntryName
  /** Which of the call's checkpoints changed it, from 0. */
  readonly checkpoint: number
  /** The entry that holds the bytes; null where there was nothing. */
  readonly kept: EntryName | null
}

/** By key. */
export type CallRecords = ReadonlyMap<string, CallRecord>

const CODE = 'ERR_PAYLOAD_INVALID'
/** Of an outcome without its reply, and of the rest of a record. */
const RECORD_SIZE_BYTES = 256
const ITEM_COUNT_MAX = 1_000_000
const COUNT_MAX = 65_536

export const encodeRecords = (records: CallRecords): Bytes =>
  encodeCbor({
    v: 1,
    calls: [...records].map(([key, { digest, epochs, images, outcome }]) => ({
      key,
      digest,
      epochs,
      images: images.map(({ entry, checkpoint, kept }) => [entry, checkpoint, kept]),
      outcome,
    })),
  })

/** @param bytes - verified: they come out of an epoch file of this flow. @throws {KeyriseError} ERR_PAYLOAD_INVALID, … */
export const decodeRecords = (bytes: Uint8Array): CallRecords => {
  const whole = new FieldReader(decodeCbor(bytes, ITEM_COUNT_MAX), ['v', 'calls'], CODE)
  whole.count('v', 1, 1)
  return new Map(
    whole.list('calls', COUNT_MAX, (claimed): [string, CallRecord] => {
      const fields = new FieldReader(claimed, ['key', 'digest', 'epochs', 'images', 'outcome'], CODE)
      return [
        fields.text('key', IDEMPOTENCY_KEY_LENGTH_MAX),
        {
          digest: fields.bytes('digest', 32),
          epochs: fields.list('epochs', COUNT_MAX, (epoch) =>
            new FieldReader({ epoch }, ['epoch'], CODE).count('epoch'),
          ),
          images: fields.list('images', COUNT_MAX, (image) => readImage(fields, image)),
          outcome: fields.has('outcome') ? fields.bytes('outcome', 0, CALL_RECORDS_SIZE_BYTES_MAX) : null,
        },
      ]
    }),
  )
}

const readImage = (fields: FieldReader, claimed: unknown): BeforeImage => {
  if (!Array.isArray(claimed) || claimed.length !== 3) return fields.refuse('images')
  const [entry, checkpoint, kept] = claimed as unknown[]
  return {
    entry: parseEntryName(entry),
    checkpoint: new FieldReader({ checkpoint }, ['checkpoint'], CODE).count('checkpoint'),
    kept: kept === null ? null : parseStoredName(kept),
  }
}

/**
 * `records` with `record` as the newest, less the oldest where they are too many or too large.
 * @param isKept - true for a call that is in flight: its record stays, whatever its age.
 */
export const withRecord = (
  records: CallRecords,
  key: string,
  record: CallRecord,
  isKept: (key: string) => boolean,
): { records: CallRecords; dropped: readonly CallRecord[] } => {
  const next = new Map(records)
  next.delete(key)
  next.set(key, record)
  const dropped: CallRecord[] = []
  let sizeBytes = [...next.values()].reduce((size, kept) => size + sizeOf(kept), 0)
  for (const [oldest, old] of next) {
    if (next.size <= CALL_RECORD_COUNT_MAX && sizeBytes <= CALL_RECORDS_SIZE_BYTES_MAX) break
    if (oldest === key || isKept(oldest)) continue
    next.delete(oldest)
    dropped.push(old)
    sizeBytes -= sizeOf(old)
  }
  return { records: next, dropped }
}

const sizeOf = ({ outcome, epochs, images }: CallRecord): number =>
  RECORD_SIZE_BYTES + (outcome?.length ?? 0) + 9 * epochs.length + RECORD_SIZE_BYTES * images.length
