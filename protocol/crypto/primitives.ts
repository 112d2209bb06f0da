import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hash,
  randomFillSync,
  scryptSync,
  timingSafeEqual,
} from 'node:crypto'
import { allocate, copyBytes, type Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import { copyInto, isShared } from './shared-memory.js'

/**
 * The symmetric primitives; curves.ts has the others. All are OpenSSL's, through `node:crypto`: constant-time, several times
 * as fast as JavaScript, and without the array and BigInt copies of a secret that no `fill(0)` reaches. noble is the reference
 * that the tests hold them against, and hashes public bytes in `protocol/`, which may not import Node. HPKE is panva's `hpke`,
 * on WebCrypto but for small frames: session.ts. ML-KEM-768 is noble's, since Node has it from version 24 only: x-wing.ts. RSA-OAEP is OpenSSL's:
 * ssh-rsa.ts.
 *
 * Node hands results over in Buffers; `adopt` makes them ours: most have an ArrayBuffer of their own outside the V8 heap, what
 * lies in a larger one is copied out and zero-filled there.
 */
const adopt = (buffer: Uint8Array): Bytes => {
  if (buffer.buffer.byteLength === buffer.length) return new Uint8Array(buffer.buffer as ArrayBuffer)
  const bytes = copyBytes(buffer)
  buffer.fill(0)
  return bytes
}

export const nodeRandom: Random = { fill: (bytes) => randomFillSync(bytes) }

/** Constant-time equality of tags, of one size; sizes are public. */
export const equalSecret = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b)

const gather = (parts: readonly Uint8Array[], into: Uint8Array, offset = 0): void => {
  const isIntoShared = isShared(into)
  let end = offset
  for (const part of parts) {
    if (isIntoShared) copyInto(into.subarray(end), part)
    else into.set(part, end)
    end += part.length
  }
}

// Hashes: FIPS 180-4, RFC 2104, RFC 5869, RFC 7914

/** SHA-256 of public bytes. */
export const sha256 = (...parts: readonly Uint8Array[]): Bytes => {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  return adopt(digest.digest())
}

const HASH_SIZE = 32
const BLOCK_SIZE = 64
/** What one-shot hashes of an HMAC are made over; zeroes between uses. A header of a few recipients fits. */
const innerInput = allocate(BLOCK_SIZE + 1024)
const outerInput = allocate(BLOCK_SIZE + HASH_SIZE)

const setPad = (into: Uint8Array, key: Uint8Array, pad: number): void => {
  into.fill(pad, 0, BLOCK_SIZE)
  for (let index = 0; index < key.length; index++) into[index] = (key[index] as number) ^ pad
}

/** HMAC-SHA256, 32 bytes; `key` is borrowed. As the two hashes that it is (RFC 2104 §2) where they are short: one call each. */
export const hmac = (key: Uint8Array, ...parts: readonly Uint8Array[]): Bytes => {
  let size = BLOCK_SIZE
  for (const part of parts) size += part.length
  if (size > innerInput.length || key.length > BLOCK_SIZE) return hmacOfAny(key, parts)
  setPad(innerInput, key, 0x36)
  gather(parts, innerInput, BLOCK_SIZE)
  setPad(outerInput, key, 0x5c)
  const inner = hash('sha256', innerInput.subarray(0, size), 'buffer')
  outerInput.set(inner, BLOCK_SIZE)
  const mac = adopt(hash('sha256', outerInput, 'buffer'))
  inner.fill(0)
  innerInput.fill(0, 0, size)
  outerInput.fill(0)
  return mac
}

const hmacOfAny = (key: Uint8Array, parts: readonly Uint8Array[]): Bytes => {
  const mac = createHmac('sha256', key)
  for (const part of parts) mac.update(part)
  return adopt(mac.digest())
}

/** SHA3-256 (FIPS 202) of secrets, 32 bytes. */
export const sha3 = (...parts: readonly Uint8Array[]): Bytes => {
  const digest = createHash('sha3-256')
  for (const part of parts) digest.update(part)
  return adopt(digest.digest())
}

/** SHAKE256 (FIPS 202) of a secret. */
export const shake256 = (secret: Uint8Array, size: number): Bytes =>
  adopt(createHash('shake256', { outputLength: size }).update(secret).digest())

/** HKDF-Extract (RFC 5869 §2.2): 32 bytes, a secret. */
export const extract = (secret: Uint8Array, salt: Uint8Array): Bytes => hmac(salt, secret)

/** HKDF-Expand (RFC 5869 §2.3). @param pseudorandomKey - from `extract`; borrowed. */
export const expand = (pseudorandomKey: Uint8Array, info: Uint8Array, size: number): Bytes => {
  if (size > 255 * HASH_SIZE) throw new RangeError('HKDF gives at most 255 blocks')
  // The first block is all of it, as nearly always.
  if (size === HASH_SIZE) return hmac(pseudorandomKey, info, FIRST)
  let block = NO_BLOCK
  try {
    const output = allocate(size)
    for (let offset = 0, counter = 1; offset < size; offset += HASH_SIZE, counter++) {
      const next = hmac(pseudorandomKey, block, info, Uint8Array.of(counter))
      block.fill(0)
      block = next
      output.set(block.subarray(0, size - offset), offset)
    }
    return output
  } finally {
    block.fill(0)
  }
}

/**
 * HKDF-SHA256 as the HMACs that it is made of (RFC 5869 §2): twice as fast as `hkdfSync`, which also keeps a KeyObject of the
 * secret until it is collected.
 */
export const hkdf = (secret: Uint8Array, salt: Uint8Array, info: Uint8Array, size: number): Bytes => {
  const pseudorandomKey = extract(secret, salt)
  try {
    return expand(pseudorandomKey, info, size)
  } finally {
    pseudorandomKey.fill(0)
  }
}
const NO_BLOCK = allocate(0)
const FIRST = Uint8Array.of(1)

const SCRYPT_R = 8

/** scrypt with r = 8, p = 1 and N = 2^logN: 2^(logN + 10) bytes of memory, which the caller bounds. 32 bytes. */
export const scrypt = (passphrase: Uint8Array, salt: Uint8Array, logN: number): Bytes => {
  const N = 2 ** logN
  return adopt(scryptSync(passphrase, salt, HASH_SIZE, { N, r: SCRYPT_R, p: 1, maxmem: 128 * SCRYPT_R * (N + 16) }))
}

// ChaCha20-Poly1305: RFC 8439 §2.8, without associated data

const CIPHER = 'chacha20-poly1305'
export const TAG_SIZE = 16

/**
 * How much goes into one `update`. Node allocates a byte too many for the output, then copies it into a block right behind: at a
 * distance near a multiple of 4 KiB, as of 64 KiB, that copy takes half as long as the cipher.
 */
const PIECE_SIZE = 34 * 1024
/** Smaller outputs are not worth the call, and may lie in Node’s pool. */
const FREED_SIZE_MIN = 16 * 1024
/** So many go with one message. One series of runs took 7 % less processor time than with one each, another no less. */
const FREED_COUNT = 8

/** What `transform`, a cipher, makes of `bytes`, in pieces: it takes no buffer to write to. */
const update = (transform: { update(bytes: Uint8Array): Uint8Array }, bytes: Uint8Array): Uint8Array[] => {
  const outputs: Uint8Array[] = []
  for (let offset = 0; offset < bytes.length; offset += PIECE_SIZE)
    outputs.push(transform.update(bytes.subarray(offset, offset + PIECE_SIZE)))
  return outputs
}

type Drop = (message: undefined, transfer: readonly ArrayBuffer[]) => void
let drop: Drop | undefined
let dropped: ArrayBuffer[] = []

/**
 * Frees outputs soon, a few at a time. The collector sees a few bytes on the heap only, so that tens of MB would pile up, each
 * on cold pages. A closed port drops a message with all that was transferred in it (HTML, "message port post message steps").
 * Enclaves have no MessageChannel, and leave it to the collector.
 */
const free = (outputs: readonly Uint8Array[]): void => {
  for (const { buffer, byteLength } of outputs) {
    if (byteLength < FREED_SIZE_MIN || buffer.byteLength !== byteLength) continue
    dropped.push(buffer as ArrayBuffer)
    if (dropped.length < FREED_COUNT) continue
    drop ??= closedPort()
    drop(undefined, dropped)
    dropped = []
  }
}

const closedPort = (): Drop => {
  const { MessageChannel } = globalThis as Partial<typeof globalThis>
  if (MessageChannel === undefined) return () => undefined
  const { port1 } = new MessageChannel()
  port1.close()
  return (message, transfer) => {
    port1.postMessage(message, transfer)
  }
}

/** Fills `into`, which is TAG_SIZE larger than `plaintext`, with ciphertext and tag. */
export const sealChaCha = (key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, into: Uint8Array): void => {
  if (into.length !== plaintext.length + TAG_SIZE) throw new RangeError('Size of the output')
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_SIZE })
  const ciphertext = update(cipher, plaintext)
  cipher.final()
  gather(ciphertext, into)
  free(ciphertext)
  into.set(cipher.getAuthTag(), plaintext.length)
}

/** Fills `into`, which is TAG_SIZE smaller than `sealed`, once the tag is verified; false, and `into` untouched, where it is wrong. */
export const openChaCha = (key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, into: Uint8Array): boolean => {
  if (into.length !== sealed.length - TAG_SIZE) throw new RangeError('Size of the output')
  const plaintext = openChaChaPieces(key, nonce, sealed)
  if (plaintext === undefined) return false
  try {
    gather(plaintext, into)
    return true
  } finally {
    wipePieces(plaintext)
  }
}

/**
 * What the cipher’s own memory holds once the tag is verified, for whoever needs no copy; undefined where the tag is wrong.
 * @returns pieces that follow each other, for `wipePieces`.
 */
export const openChaChaPieces = (key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array): Uint8Array[] | undefined => {
  const size = sealed.length - TAG_SIZE
  if (size < 0) throw new RangeError('Size of the input')
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_SIZE })
  decipher.setAuthTag(sealed.subarray(size))
  const plaintext = update(decipher, sealed.subarray(0, size))
  if (endsWithTag(decipher)) return plaintext
  wipePieces(plaintext)
  return undefined
}

/** Zero-fills what `openChaChaPieces` gave, and takes its memory away: nobody may use it any more. */
export const wipePieces = (pieces: readonly Uint8Array[]): void => {
  for (const piece of pieces) piece.fill(0)
  free(pieces)
}

const endsWithTag = (decipher: { final(): unknown }): boolean => {
  try {
    decipher.final()
    return true
  } catch {
    return false
  }
}
