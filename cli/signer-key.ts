import { createPrivateKey, type KeyObject } from 'node:crypto'
import { allocate, asciiBytes, concatBytes, type Bytes } from '../protocol/bytes.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import { openInput } from './input.js'
import { readSmallFile } from './key-files.js'
import { openOutput } from './output.js'

/**
 * A signer’s key as `openssl genpkey -algorithm ed25519` writes it: PKCS #8 in PEM (RFC 7468 §10), readable by its owner alone. It is
 * bytes everywhere, which are wiped, and is never printed.
 */

const SECRET_MODE = 0o600
const SEED_SIZE_BYTES = 32
/** RFC 8410 §7: a PKCS #8 Ed25519 private key up to its seed. */
const PKCS8_PREFIX = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]
const BASE64 = asciiBytes('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')

/** Makes a key and its file. @throws {KeyriseError} ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE. */
export const makeSignerKey = async (path: string): Promise<KeyObject> => {
  using output = openOutput({ path, isForced: false, mode: SECRET_MODE })
  using seed = Secret.random(SEED_SIZE_BYTES, nodeRandom)
  const pkcs8 = seed.expose((bytes) => concatBytes(Uint8Array.from(PKCS8_PREFIX), bytes))
  const file = concatBytes(
    asciiBytes('-----BEGIN PRIVATE KEY-----\n'),
    encodeBase64(pkcs8),
    asciiBytes('\n-----END PRIVATE KEY-----\n'),
  )
  try {
    const key = createPrivateKey({ key: Buffer.from(pkcs8.buffer), format: 'der', type: 'pkcs8' })
    await output.write(file)
    output.commit({ isDurable: true })
    return key
  } finally {
    pkcs8.fill(0)
    file.fill(0)
  }
}

/** Of bytes whose number divides by three, as those of a key: one line without padding, wiped with the file that it becomes part of. */
const encodeBase64 = (bytes: Bytes): Bytes => {
  const digits = allocate((bytes.length / 3) * 4)
  for (let index = 0; index < digits.length; index++) {
    const bit = index * 6
    const pair = ((bytes[bit >>> 3] ?? 0) << 8) | (bytes[(bit >>> 3) + 1] ?? 0)
    digits[index] = BASE64[(pair >>> (10 - (bit & 7))) & 63] ?? 0
  }
  return digits
}

/** @throws {KeyriseError} ERR_FILE_UNREADABLE, ERR_CONFIG_INVALID: others may read it, or it is no such key. */
export const readSignerKey = async (path: string): Promise<KeyObject> => {
  const pem = await readPrivate(path)
  try {
    return createPrivateKey({ key: Buffer.from(pem.buffer), format: 'pem' })
  } catch {
    // Nothing of what OpenSSL says: it may quote the file.
    return refuse(`${path}: not a private key in PEM, or one behind a passphrase`)
  } finally {
    pem.fill(0)
  }
}

const readPrivate = async (path: string): Promise<Bytes> => {
  using input = openInput(path)
  if (input.sizeBytes !== undefined && (input.stats.mode & 0o077) !== 0)
    return refuse(`${path} may be read by other users: chmod 600`)
  return await readSmallFile(path)
}

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
}
