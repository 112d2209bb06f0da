import { allocate, asciiBytes, type Bytes } from '../bytes.js'

const LABEL_PREFIX = 'keyrise/v1/'

/**
 * The input of a derivation, digest or tag of ours: its label, then each part behind its size (u64, big-endian). No two lists of
 * parts share an encoding, and since no label holds a zero byte, nor do two labels. Layout: docs/envelope.md §2.
 */
export const labelled = (purpose: string, ...parts: readonly Uint8Array[]): Uint8Array[] => {
  const input: Uint8Array[] = [labelOf(purpose)]
  for (const part of parts) input.push(sizePrefix(part.length), part)
  return input
}

/** Labels are few, and made once. */
const labels = new Map<string, Bytes>()

const labelOf = (purpose: string): Bytes => {
  const known = labels.get(purpose)
  if (known !== undefined) return known
  const label = asciiBytes(`${LABEL_PREFIX}${purpose}`)
  labels.set(purpose, label)
  return label
}

const sizePrefix = (size: number): Bytes => {
  const bytes = allocate(8)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, Math.floor(size / 2 ** 32))
  view.setUint32(4, size)
  return bytes
}
