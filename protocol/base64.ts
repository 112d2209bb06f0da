import { allocate, asciiBytes, type Bytes } from './bytes.js'

/** Base64 (RFC 4648 §4) without padding, canonical: one text for each value. Of public bytes. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const NO_DIGIT = 64
/** The value of each ASCII character. */
const VALUES = allocate(128).fill(NO_DIGIT)
asciiBytes(ALPHABET).forEach((code, value) => (VALUES[code] = value))

/** Undefined where `claimed` is anything else. */
export const decodeBase64NoPad = (claimed: string): Bytes | undefined => {
  if (claimed.length % 4 === 1) return undefined
  const bytes = allocate(Math.floor((claimed.length * 3) / 4))
  let [pending, bitCount, offset] = [0, 0, 0]
  for (let index = 0; index < claimed.length; index++) {
    const value = VALUES[claimed.charCodeAt(index)] ?? NO_DIGIT
    if (value === NO_DIGIT) return undefined
    pending = ((pending << 6) | value) & 0x3fff
    bitCount += 6
    if (bitCount < 8) continue
    bitCount -= 8
    bytes[offset++] = pending >>> bitCount
  }
  return (pending & ((1 << bitCount) - 1)) === 0 ? bytes : undefined
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
