import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf as nobleHkdf } from '@noble/hashes/hkdf.js'
import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js'
import { allocate } from '../../protocol/bytes.js'
import {
  ed25519FromSeed,
  ed25519Sign,
  ed25519Verify,
  x25519Agree,
  x25519PrivateKeyObject,
} from '../../protocol/crypto/curves.js'
import { CHUNK_SIZE } from '../../protocol/crypto/payload.js'
import { hkdf, nodeRandom, openChaCha, sealChaCha, sha256, TAG_SIZE } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import type { Measurement } from '../measurement.js'
import { expectEqual, randomBytes } from '../peers/files.js'
import { perSecond } from '../timing.js'

/** One operation by node:crypto as protocol/crypto calls it, and by noble. They return the same bytes. */
interface Primitive {
  readonly name: string
  readonly native: () => Uint8Array
  readonly noble: () => Uint8Array
}

const agreement = (): Primitive => {
  const privateKey = randomBytes(32)
  const key = x25519PrivateKeyObject(Secret.take(privateKey.slice()))
  const peerKey = x25519.getPublicKey(randomBytes(32))
  return {
    name: 'X25519',
    native: () => x25519Agree(key, peerKey).expose((bytes) => bytes.slice()),
    noble: () => x25519.getSharedSecret(privateKey, peerKey),
  }
}

const signatures = (): Primitive[] => {
  const seed = randomBytes(32)
  const { privateKey, publicKey } = ed25519FromSeed(Secret.take(seed.slice()))
  const message = randomBytes(256)
  const signature = ed25519Sign(privateKey, message)
  return [
    {
      name: 'Ed25519 sign',
      native: () => ed25519Sign(privateKey, message),
      noble: () => ed25519.sign(message, seed),
    },
    {
      name: 'Ed25519 verify',
      native: () => Uint8Array.of(Number(ed25519Verify(publicKey, message, signature))),
      noble: () => Uint8Array.of(Number(ed25519.verify(signature, message, publicKey))),
    },
  ]
}

const hashes = (): Primitive[] => {
  const [secret, salt, info] = [randomBytes(32), randomBytes(64), randomBytes(28)]
  const large = randomBytes(CHUNK_SIZE)
  return [
    {
      name: 'HKDF-SHA256',
      native: () => hkdf(secret, salt, info, 32),
      noble: () => nobleHkdf(nobleSha256, secret, salt, info, 32),
    },
    { name: 'SHA-256, 64 KiB', native: () => sha256(large), noble: () => nobleSha256(large) },
  ]
}

const ciphers = (): Primitive[] => {
  const [key, nonce, plaintext] = [randomBytes(32), randomBytes(12), randomBytes(CHUNK_SIZE)]
  const sealed = nodeRandom.fill(allocate(CHUNK_SIZE + TAG_SIZE))
  const opened = allocate(CHUNK_SIZE)
  sealChaCha(key, nonce, plaintext, sealed)
  return [
    {
      name: 'ChaCha20-Poly1305, 64 KiB',
      native: () => {
        openChaCha(key, nonce, sealed, opened)
        return opened
      },
      noble: () => chacha20poly1305(key, nonce).decrypt(sealed, opened),
    },
  ]
}

/** Why node:crypto is the fast path and noble the reference (protocol/crypto/primitives.ts). */
export const primitives: Measurement = {
  names: ['primitives'],
  async measure({ sliceMs }, { say }) {
    const native: [string, number][] = []
    const noble: [string, number][] = []
    for (const primitive of [agreement(), ...signatures(), ...hashes(), ...ciphers()]) {
      say(`primitives: ${primitive.name}`)
      expectEqual(primitive.name, primitive.native(), primitive.noble())
      native.push([primitive.name, await perSecond(primitive.native, sliceMs / 2)])
      noble.push([primitive.name, await perSecond(primitive.noble, sliceMs / 2)])
    }
    const series = [
      { name: 'node:crypto, as we call it', points: native },
      { name: 'noble', points: noble },
    ]
    return { curves: { primitives: { what: 'primitives on one thread', x: 'primitive', y: 'ops/s', series } } }
  },
}
