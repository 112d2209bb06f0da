import { allocate, concatBytes, copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { KeyriseError } from '../protocol/errors.js'
import { sha256 } from '../protocol/crypto/primitives.js'

/**
 * The bytes of a log: frames, each written and synced as one, each chained to all before it.
 *   check, 4 bytes of SHA-256(chain ‖ size) ‖ size, u32 big-endian ‖ body ‖ SHA-256(chain ‖ size ‖ body), the next chain
 * The body is a CBOR list of records. The check tells a frame that a crash cut short from one whose size was changed.
 */
const CHECK_BYTES = 4
const SIZE_BYTES = 4
const HEAD_BYTES = CHECK_BYTES + SIZE_BYTES
const CHAIN_BYTES = 32
const FIRST_CHAIN = sha256(new TextEncoder().encode('keyrise/v1/log'))

export const FRAME_BODY_SIZE_BYTES_MAX = 128 * 1024
/** With what stands around the body. */
export const FRAME_SIZE_BYTES_MAX = HEAD_BYTES + FRAME_BODY_SIZE_BYTES_MAX + CHAIN_BYTES
/** The unit in which a disk loses unsynced data; what is lost reads as zeros. */
const SECTOR_BYTES = 512

/** The end of a valid log: where the next frame goes, and what it is chained to. */
export interface LogEnd {
  readonly size: number
  readonly chain: Bytes
}
export const LOG_START: LogEnd = { size: 0, chain: FIRST_CHAIN }

/** The frame of `records` that follows `end`, and the end after it. */
export const encodeFrame = (end: LogEnd, records: readonly Uint8Array[]): { frame: Bytes; end: LogEnd } => {
  const body = encodeCbor(records)
  if (body.length > FRAME_BODY_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a ledger record' })
  const size = encodeSize(body.length)
  const chain = sha256(end.chain, size, body)
  const frame = concatBytes(checkOf(end.chain, size), size, body, chain)
  return { frame, end: { size: end.size + frame.length, chain } }
}

/**
 * Verifies a whole log.
 * @returns its records, and its end: before the last frame where that is what a crash left of a write in progress.
 * @throws {KeyriseError} ERR_LEDGER_DAMAGED for anything else.
 */
export const decodeLog = (claimed: Bytes): { records: Bytes[]; end: LogEnd } => {
  const records: Bytes[] = []
  let end = LOG_START
  while (end.size < claimed.length) {
    const rest = claimed.subarray(end.size)
    const frame = decodeFrame(rest, end)
    if (frame === undefined) {
      // The first frame came by a rename, whole.
      if (end.size > 0 && isCutShort(rest, end)) break
      throw new KeyriseError('ERR_LEDGER_DAMAGED', { detail: `byte ${end.size}` })
    }
    for (const record of frame.records) records.push(record)
    end = frame.end
  }
  if (records.length === 0) throw new KeyriseError('ERR_LEDGER_DAMAGED', { detail: 'it is empty' })
  return { records, end }
}

const encodeSize = (size: number): Bytes => {
  const bytes = allocate(SIZE_BYTES)
  new DataView(bytes.buffer).setUint32(0, size)
  return bytes
}

const checkOf = (chain: Uint8Array, size: Uint8Array): Uint8Array => sha256(chain, size).subarray(0, CHECK_BYTES)

/** The size of the whole frame that `rest` starts with; undefined when its head is not intact. */
const frameSize = (rest: Uint8Array, chain: Uint8Array): number | undefined => {
  if (rest.length < HEAD_BYTES) return undefined
  const size = rest.subarray(CHECK_BYTES, HEAD_BYTES)
  if (!equalPublicBytes(checkOf(chain, size), rest.subarray(0, CHECK_BYTES))) return undefined
  return HEAD_BYTES + new DataView(size.buffer, size.byteOffset).getUint32(0) + CHAIN_BYTES
}

const decodeFrame = (rest: Uint8Array, before: LogEnd): { records: Bytes[]; end: LogEnd } | undefined => {
  const size = frameSize(rest, before.chain)
  if (size === undefined || rest.length < size) return undefined
  const body = rest.subarray(HEAD_BYTES, size - CHAIN_BYTES)
  const chain = sha256(before.chain, rest.subarray(CHECK_BYTES, HEAD_BYTES), body)
  if (!equalPublicBytes(chain, rest.subarray(size - CHAIN_BYTES, size))) return undefined
  const records = decodeCbor(body)
  if (!Array.isArray(records)) return undefined
  return { records: records.map((record: Uint8Array) => copyBytes(record)), end: { size: before.size + size, chain } }
}

/**
 * True when `rest`, which starts no valid frame, is what a crash can leave of one: it ends too early, or a sector of it
 * never arrived. A frame that was whole once, or that others follow, is damage.
 */
const isCutShort = (rest: Uint8Array, end: LogEnd): boolean => {
  if (rest.length < HEAD_BYTES) return true
  const size = frameSize(rest, end.chain)
  if (size !== undefined) return rest.length < size || (rest.length === size && hasLostSector(rest, end.size, size))
  return rest.length <= FRAME_SIZE_BYTES_MAX && hasLostSector(rest, end.size, HEAD_BYTES)
}

/** True when a sector that holds any of the first `size` of `bytes`, which stand at `offset` of the file, is all zeros there. */
const hasLostSector = (bytes: Uint8Array, offset: number, size: number): boolean => {
  for (let start = 0; start < size;) {
    const next = Math.min(bytes.length, start + SECTOR_BYTES - ((offset + start) % SECTOR_BYTES))
    if (bytes.subarray(start, next).every((byte) => byte === 0)) return true
    start = next
  }
  return false
}
