import { concatBytes, type Bytes } from '../protocol/bytes.js'
import { encodeCbor } from '../protocol/cbor.js'
import { RECEIPT_SIZE_BYTES_MAX } from '../protocol/limits.js'

/** A file of receipts: a CBOR sequence (RFC 8742) of byte strings, each a receipt, oldest first. Nothing in it is secret. */

/** How many are encoded at once. */
const PIECE_COUNT = 512

/** The bytes of a file, in pieces. */
export function* encodeReceiptsFile(receipts: readonly Uint8Array[]): Generator<Bytes> {
  for (let first = 0; first < receipts.length; first += PIECE_COUNT)
    yield concatBytes(...receipts.slice(first, first + PIECE_COUNT).map((receipt) => encodeCbor(receipt)))
}

/** Where a file holds something else than receipts, from `offset` on. */
export class NotReceipts {
  readonly offset: number

  constructor(offset: number) {
    this.offset = offset
  }
}

/** The receipts of a file, as views of it; at last, where it goes on with something else, that. */
export function* readReceiptsFile(claimed: Uint8Array): Generator<Uint8Array | NotReceipts> {
  for (let offset = 0; offset < claimed.length;) {
    const head = readHead(claimed, offset)
    if (head === undefined || head.end > claimed.length) {
      yield new NotReceipts(offset)
      return
    }
    yield claimed.subarray(head.start, head.end)
    offset = head.end
  }
}

/** RFC 8949 §3: byte strings of 24 to 255 bytes, and of up to 65535, by the additional information of their first byte. */
const HEADS = new Map([
  [0x58, 1],
  [0x59, 2],
])

/** Where a byte string that may be a receipt begins and ends. */
const readHead = (bytes: Uint8Array, offset: number): { start: number; end: number } | undefined => {
  const sizeBytes = HEADS.get(bytes[offset] ?? 0)
  if (sizeBytes === undefined) return undefined
  const start = offset + 1 + sizeBytes
  const size = bytes.subarray(offset + 1, start).reduce((sum, byte) => sum * 256 + byte, 0)
  return size <= RECEIPT_SIZE_BYTES_MAX ? { start, end: start + size } : undefined
}
