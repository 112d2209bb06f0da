import { allocate, asciiBytes, type Bytes } from './bytes.js'

/**
 * Base64 (RFC 4648 §4) without padding, canonical: one text for each value. Of public bytes. Read straight from the bytes of a
 * header: with a library, which reads strings, a header took half as long again to parse.
 */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const NO_DIGIT = 64
/** The value of each byte. */
const VALUES = allocate(256).fill(NO_DIGIT)
asciiBytes(ALPHABET).forEach((code, value) => (VALUES[code] = value))

const decodedSize = (digitCount: number): number => Math.floor((digitCount * 3) / 4)
const valueAt = (claimed: Uint8Array, index: number): number => VALUES[claimed[index] as number] as number

/** Decodes one line, and says whether it is one. */
const decodeInto = (claimed: Uint8Array, start: number, end: number, into: Bytes, offset: number): boolean => {
  let index = start
  let written = offset
  for (; index + 4 <= end; index += 4) {
    const a = valueAt(claimed, index)
    const b = valueAt(claimed, index + 1)
    const c = valueAt(claimed, index + 2)
    const d = valueAt(claimed, index + 3)
    if (((a | b | c | d) & NO_DIGIT) !== 0) return false
    into[written++] = (a << 2) | (b >> 4)
    into[written++] = (b << 4) | (c >> 2)
    into[written++] = (c << 6) | d
  }
  const restLength = end - index
  if (restLength === 0) return true
  if (restLength === 1) return false
  const a = valueAt(claimed, index)
  const b = valueAt(claimed, index + 1)
  const c = restLength === 3 ? valueAt(claimed, index + 2) : 0
  if (((a | b | c) & NO_DIGIT) !== 0) return false
  into[written++] = (a << 2) | (b >> 4)
  if (restLength === 2) return (b & 15) === 0
  into[written] = (b << 4) | (c >> 2)
  return (c & 3) === 0
}

/**
 * Undefined where `claimed` is anything else.
 * @param columns - digits in each line but the last, a multiple of 4, where there are several: bytes between lines are skipped.
 */
export const decodeBase64Lines = (claimed: Uint8Array, columns: number): Bytes | undefined => {
  const lineCount = Math.floor(claimed.length / (columns + 1))
  const bytes = allocate(decodedSize(claimed.length - lineCount))
  for (let line = 0, offset = 0; line <= lineCount; line++, offset += decodedSize(columns)) {
    const start = line * (columns + 1)
    if (!decodeInto(claimed, start, Math.min(start + columns, claimed.length), bytes, offset)) return undefined
  }
  return bytes
}

/** Undefined where `claimed` is anything else. */
export const decodeBase64NoPad = (claimed: string): Bytes | undefined => {
  const codes = new Uint8Array(claimed.length)
  // No character beyond a byte is a digit, nor is the last byte.
  for (let index = 0; index < codes.length; index++) codes[index] = Math.min(claimed.charCodeAt(index), 0xff)
  const bytes = allocate(decodedSize(codes.length))
  return decodeInto(codes, 0, codes.length, bytes, 0) ? bytes : undefined
}

export const encodeBase64NoPad = (bytes: Uint8Array): string => {
  let text = ''
  let [pending, bitCount] = [0, 0]
  for (let index = 0; index < bytes.length; index++) {
    pending = ((pending << 8) | (bytes[index] as number)) & 0x3fff
    for (bitCount += 8; bitCount >= 6; bitCount -= 6) text += ALPHABET[(pending >>> (bitCount - 6)) & 63] as string
  }
  return bitCount === 0 ? text : text + (ALPHABET[(pending << (6 - bitCount)) & 63] as string)
}
