import { allocate, asciiBytes, copyBytes, type Bytes } from '../bytes.js'

/**
 * Bech32 (BIP 173, without its length limit), bytes to bytes, so that a secret can be encoded or decoded and then wiped:
 * libraries take and give strings.
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

/** The checksum’s state behind the human-readable part. */
const startOf = (prefix: string): number => {
  let checksum = 1
  for (const code of asciiBytes(prefix)) checksum = step(checksum, code >>> 5)
  checksum = step(checksum, 0)
  for (const code of asciiBytes(prefix)) checksum = step(checksum, code & 31)
  return checksum
}

/** @param prefix - the human-readable part, in lower case. @returns ASCII in lower case, which the caller wipes if it is secret. */
export const encodeBech32 = (prefix: string, bytes: Uint8Array): Bytes => {
  const start = prefix.length + 1
  const text = allocate(start + Math.ceil((bytes.length * 8) / 5) + CHECKSUM_SIZE)
  text.set(asciiBytes(`${prefix}1`))
  const values = text.subarray(start)
  regroup(bytes, values)

  let checksum = startOf(prefix)
  for (const value of values) checksum = step(checksum, value)
  checksum ^= 1
  for (let index = 0; index < CHECKSUM_SIZE; index++) {
    values[values.length - CHECKSUM_SIZE + index] = (checksum >>> (5 * (CHECKSUM_SIZE - 1 - index))) & 31
  }
  for (let index = 0; index < values.length; index++) values[index] = CHARSET[values[index] as number] as number
  return text
}

const isUpperCase = (code: number): boolean => code >= 0x41 && code <= 0x5a

/** Groups of five bits as bytes; false where the bits that are left over are too many, or not zeroes. */
const ungroup = (values: Uint8Array, into: Uint8Array): boolean => {
  let pending = 0
  let bitCount = 0
  let index = 0
  for (const value of values) {
    pending = ((pending << 5) | value) & 0xfff
    bitCount += 5
    if (bitCount < 8) continue
    bitCount -= 8
    into[index++] = pending >>> bitCount
  }
  return bitCount < 5 && (pending & ((1 << bitCount) - 1)) === 0
}

/**
 * The bytes in `text`, which the caller wipes if they are secret; undefined where it is not Bech32 under this prefix.
 * @param prefix - in lower case. @param text - claimed ASCII, of one case; borrowed.
 */
export const decodeBech32 = (prefix: string, text: Uint8Array): Bytes | undefined => {
  const [start, end] = [prefix.length + 1, text.length - CHECKSUM_SIZE]
  const values = copyBytes(text)
  const bytes = allocate(Math.max(0, Math.floor(((end - start) * 5) / 8)))
  const isUpper = text.some(isUpperCase)
  try {
    if (end < start || (isUpper && text.some((code) => code >= 0x61 && code <= 0x7a))) return undefined
    if (isUpper) values.forEach((code, index) => (values[index] = isUpperCase(code) ? code + 0x20 : code))
    if (asciiBytes(`${prefix}1`).some((code, index) => code !== values[index])) return undefined
    let checksum = startOf(prefix)
    for (let index = start; index < values.length; index++) {
      const value = CHARSET.indexOf(values[index] as number)
      if (value === -1) return undefined
      values[index] = value
      checksum = step(checksum, value)
    }
    return checksum === 1 && ungroup(values.subarray(start, end), bytes) ? copyBytes(bytes) : undefined
  } finally {
    values.fill(0)
    bytes.fill(0)
  }
}
