import { allocate, type Bytes } from '../../protocol/bytes.js'

/** Seeds of a KMS’s passphrase, and of another. */
export const [RIGHT, WRONG] = [0x2545f491, 0x19660d3c]

/** 32 bytes of xorshift32 (Marsaglia, 2003): the same in the host and in the search, and in no memory but the result’s. */
export const makePassphrase = (seed: number): Bytes => {
  const bytes = allocate(32)
  let state = seed
  for (let index = 0; index < bytes.length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[index] = state >>> 24
  }
  return bytes
}
