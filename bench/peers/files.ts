import { allocate, type Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'

/** A sealed file, or however else a peer calls it. */
export interface SealedFile {
  /** Opens it into memory that the peer provides. */
  readonly open: () => unknown
}

/** Somebody who seals bytes to a key and opens them again. Keys are made and parsed beforehand, once. */
export interface Peer {
  readonly name: string
  /** The largest payload that it can open, and why. */
  readonly limit?: { readonly sizeBytes: number; readonly why: string }
  seal(plaintext: Bytes): Promise<SealedFile>
}

/** `randomFillSync` takes 2^31 - 1 bytes at most. */
const PART_SIZE_BYTES = 2 ** 30

export const randomBytes = (sizeBytes: number): Bytes => {
  const bytes = allocate(sizeBytes)
  for (let offset = 0; offset < sizeBytes; offset += PART_SIZE_BYTES)
    nodeRandom.fill(bytes.subarray(offset, offset + PART_SIZE_BYTES))
  return bytes
}

/** @throws {Error} when they differ: a fast answer that is wrong counts nothing. */
export const expectEqual = (who: string, actual: Uint8Array, expected: Uint8Array): void => {
  if (Buffer.compare(actual, expected) !== 0) throw new Error(`${who}: the plaintext is another one`)
}
