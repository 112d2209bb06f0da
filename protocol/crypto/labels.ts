import { allocate, asciiBytes, type Bytes } from '../bytes.js'

const LABEL_PREFIX = 'keyrise/v1/'

/**
 * The input of a derivation, digest or tag of ours: its label, then each part behind its size (u64, big-endian). No two lists of
 * parts share an encoding, and since no label holds a zero byte, nor do two labels. Layout: docs/envelope.md §2.
 */
export const labelled = (purpose: string, ...parts: readonly Uint8Array[]): Uint8Array[] => [
  asciiBytes(`${LABEL_PREFIX}${purpose}`),
  ...parts.flatMap((part) => [sizePrefix(part.length), part]),
]

const sizePrefix = (size: number): Bytes => {
  const bytes = allocate(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(size))
  return bytes
}
