import { allocate, asciiBytes, type Bytes } from '../bytes.js'

/**
 * Bech32 (BIP 173, without its length limit), bytes to bytes, so that a secret can be encoded and then wiped: libraries give
 * strings. Only encoding: nothing in Keyrise reads a key as text.
 */

const CHARSET = asciiBytes('qpzry9x8gf2tvdw0s3jn54khce6mua7l')
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3] as const
const CHECKSUM_SIZE = 6

/** BIP 173 `polymod`, one value at a time. */
const step = (checksum: number, value: number): number => {
  const top = checksum >>> 25
  let next = ((checksum & 0x1ffffff) << 5) ^ value
  GENERATOR.forEach((generator, bit) => (next ^= generator & -((top >>> bit) & 1)))
  return next
}

/** Bytes as groups of five bits, the last one padded with zeroes. */
const regroup = (bytes: Uint8Array, into: Uint8Array): void => {
  let pending = 0
  let bitCount = 0
  let index = 0
  for (const byte of bytes) {
    pending = ((pending << 8) | byte) & 0xfff
    for (bitCount += 8; bitCount >= 5; bitCount -= 5) into[index++] = (pending >>> (bitCount - 5)) & 31
  }
  if (bitCount > 0) into[index] = (pending << (5 - bitCount)) & 31
}

/** @param prefix - the human-readable part, in lower case. @returns ASCII in lower case, which the caller wipes if it is secret. */
export const encodeBech32 = (prefix: string, bytes: Uint8Array): Bytes => {
  const start = prefix.length + 1
  const text = allocate(start + Math.ceil((bytes.length * 8) / 5) + CHECKSUM_SIZE)
  text.set(asciiBytes(`${prefix}1`))
  const values = text.subarray(start)
  regroup(bytes, values)

  let checksum = 1
  for (const code of asciiBytes(prefix)) checksum = step(checksum, code >>> 5)
  checksum = step(checksum, 0)
  for (const code of asciiBytes(prefix)) checksum = step(checksum, code & 31)
  for (const value of values) checksum = step(checksum, value)
  checksum ^= 1
  for (let index = 0; index < CHECKSUM_SIZE; index++) {
    values[values.length - CHECKSUM_SIZE + index] = (checksum >>> (5 * (CHECKSUM_SIZE - 1 - index))) & 31
  }
  for (let index = 0; index < values.length; index++) values[index] = CHARSET[values[index] as number] as number
  return text
}
