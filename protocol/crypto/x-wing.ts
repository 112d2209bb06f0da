import type { KeyObject } from 'node:crypto'
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js'
import { allocate, asciiBytes, concatBytes, type Bytes } from '../bytes.js'
import { KeyriseError } from '../errors.js'
import type { Random } from '../ports.js'
import { KEY_SIZE, x25519Agree, x25519Ephemeral, x25519PrivateKeyObject, x25519PublicKey } from './curves.js'
import { sha3, shake256 } from './primitives.js'
import { Secret } from './secret.js'

/**
 * X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 (FIPS 203) and X25519 as one key encapsulation, safe while either is.
 * ML-KEM is noble's, the rest OpenSSL's. noble keeps no copy of a key, but leaves what it computed on the way to the collector.
 */

const MLKEM_PUBLIC_SIZE = 1184
const MLKEM_CIPHERTEXT_SIZE = 1088
const MLKEM_SEED_SIZE = 64
const MESSAGE_SIZE = 32
const LABEL = asciiBytes('\\.//^\\')

const XWING_SEED_SIZE = 32
export const XWING_PUBLIC_SIZE = MLKEM_PUBLIC_SIZE + KEY_SIZE
export const XWING_CIPHERTEXT_SIZE = MLKEM_CIPHERTEXT_SIZE + KEY_SIZE

/** A private key, expanded from its seed. */
export interface XWingKey extends Disposable {
  /** XWING_PUBLIC_SIZE bytes. */
  readonly publicKey: Bytes
  /** ML-KEM’s decapsulation key. */
  readonly mlkem: Secret
  readonly x25519: KeyObject
}

/** X-Wing §5.2. @param seed - 32 bytes, borrowed: it may be disposed of when this returns. */
export const expandXWingKey = (seed: Secret): XWingKey => {
  if (seed.size !== XWING_SEED_SIZE) throw new RangeError('An X-Wing seed has 32 bytes')
  const expanded = seed.expose((bytes) => shake256(bytes, MLKEM_SEED_SIZE + KEY_SIZE))
  try {
    const pair = ml_kem768.keygen(expanded.subarray(0, MLKEM_SEED_SIZE))
    const mlkem = Secret.take(pair.secretKey)
    using scalar = Secret.take(expanded.subarray(MLKEM_SEED_SIZE))
    const x25519 = x25519PrivateKeyObject(scalar)
    const publicKey = concatBytes(pair.publicKey, x25519PublicKey(x25519))
    return { publicKey, mlkem, x25519, [Symbol.dispose]: () => mlkem[Symbol.dispose]() }
  } finally {
    expanded.fill(0)
  }
}

/** X-Wing §5.3. @param mlkemSecret - wiped here. */
const combine = (mlkemSecret: Uint8Array, x25519Secret: Secret, share: Uint8Array, publicShare: Uint8Array): Secret => {
  try {
    return Secret.take(x25519Secret.expose((bytes) => sha3(mlkemSecret, bytes, share, publicShare, LABEL)))
  } finally {
    mlkemSecret.fill(0)
  }
}

const encapsulateMlkem = (publicKey: Uint8Array, random: Random) => {
  const message = random.fill(allocate(MESSAGE_SIZE))
  try {
    return ml_kem768.encapsulate(publicKey, message)
  } catch {
    // FIPS 203 §7.2: a coefficient is not reduced.
    throw new KeyriseError('ERR_KEY_INVALID', { detail: 'ML-KEM-768' })
  } finally {
    message.fill(0)
  }
}

/**
 * X-Wing §5.4: a secret for the holder of `publicKey`, and what tells it to them.
 * @throws {KeyriseError} ERR_KEY_INVALID.
 */
export const xWingEncapsulate = (publicKey: Uint8Array, random: Random): { secret: Secret; ciphertext: Bytes } => {
  if (publicKey.length !== XWING_PUBLIC_SIZE) throw new KeyriseError('ERR_KEY_INVALID', { detail: 'size' })
  const publicShare = publicKey.subarray(MLKEM_PUBLIC_SIZE)
  const ephemeral = x25519Ephemeral()
  using agreed = x25519Agree(ephemeral.privateKey, publicShare)
  const { cipherText, sharedSecret } = encapsulateMlkem(publicKey.subarray(0, MLKEM_PUBLIC_SIZE), random)
  return {
    secret: combine(sharedSecret, agreed, ephemeral.publicKey, publicShare),
    ciphertext: concatBytes(cipherText, ephemeral.publicKey),
  }
}

/**
 * X-Wing §5.5. A ciphertext for another key gives a secret that nobody knows.
 * @param ciphertext - XWING_CIPHERTEXT_SIZE bytes.
 * @throws {KeyriseError} ERR_KEY_INVALID: its X25519 share is of low order.
 */
export const xWingDecapsulate = (key: XWingKey, ciphertext: Uint8Array): Secret => {
  const share = ciphertext.subarray(MLKEM_CIPHERTEXT_SIZE)
  using agreed = x25519Agree(key.x25519, share)
  const secret = key.mlkem.expose((bytes) =>
    ml_kem768.decapsulate(ciphertext.subarray(0, MLKEM_CIPHERTEXT_SIZE), bytes),
  )
  return combine(secret, agreed, share, key.publicKey.subarray(MLKEM_PUBLIC_SIZE))
}
