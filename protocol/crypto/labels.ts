import { asciiBytes, type Bytes } from '../bytes.js'

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

/** Sizes are public, so this may lie on the V8 heap, which is the fastest to get. */
const sizePrefix = (size: number): Bytes => {
  const bytes = new Uint8Array(8)
  for (let index = 7, rest = size; rest > 0; index--, rest = Math.floor(rest / 256)) bytes[index] = rest % 256
  return bytes
}
