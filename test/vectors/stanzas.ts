import { constants, createHash, publicEncrypt } from 'node:crypto'
import { ml_kem768_x25519 } from '@noble/post-quantum/hybrid.js'
import { encodeBase64, encodeHeader, encodeMacInput, type Stanza } from '../../protocol/age-header.js'
import { allocate, asciiBytes, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519Agree, x25519PublicKey } from '../../protocol/crypto/curves.js'
import { keySchedule } from '../../protocol/crypto/hybrid.js'
import { sealPayload } from '../../protocol/crypto/payload.js'
import { hkdf, hmac } from '../../protocol/crypto/primitives.js'
import { wrapFileKey } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { encodeSshRsaRecipient } from '../../protocol/crypto/ssh-rsa.js'
import type { Random } from '../../protocol/ports.js'
import { publicKeys, rsaKey, secretOf } from './keys.js'

/** Stanzas and files whose every byte comes from a seed: where production code lets OpenSSL draw, this does not. */

export type MakeStanza = (fileKey: Secret, random: Random) => Stanza

export const x25519Stanza =
  (publicKey: Uint8Array = publicKeys.a): MakeStanza =>
  (fileKey, random) => {
    const ephemeral = Secret.random(32, random)
    const share = x25519PublicKey(ephemeral)
    const shared = x25519Agree(ephemeral, publicKey)
    const info = asciiBytes('age-encryption.org/v1/X25519')
    const wrapKey = shared.expose((bytes) => hkdf(bytes, concatBytes(share, publicKey), info, 32))
    return { args: ['X25519', encodeBase64(share)], body: wrapFileKey(wrapKey, fileKey) }
  }

export const hybridStanza: MakeStanza = (fileKey, random) => {
  const seed = random.fill(allocate(64))
  const { cipherText, sharedSecret } = ml_kem768_x25519.encapsulate(publicKeys.hybrid, seed)
  const { key, nonce } = keySchedule(secretOf(sharedSecret))
  return { args: ['mlkem768x25519', encodeBase64(cipherText)], body: wrapFileKey(key, fileKey, nonce) }
}

// RFC 8017 §7.1.1, by hand, so that the seed of the padding is ours

const sha256 = (bytes: Uint8Array): Bytes => copyBytes(createHash('sha256').update(bytes).digest())

/** RFC 8017 §B.2.1, over `bytes`. */
const mask = (bytes: Uint8Array, seed: Uint8Array): Bytes => {
  const masked = copyBytes(bytes)
  for (let offset = 0; offset < masked.length; offset += 32) {
    const counter = Uint8Array.of(0, 0, 0, offset / 32)
    const block = sha256(concatBytes(seed, counter))
    for (let index = 0; index < 32 && offset + index < masked.length; index++)
      masked[offset + index] = (masked[offset + index] as number) ^ (block[index] as number)
  }
  return masked
}

export const sshRsaStanza: MakeStanza = (fileKey, random) => {
  const size = 384
  const seed = random.fill(allocate(32))
  const block = allocate(size - 32 - 1)
  block.set(sha256(asciiBytes('age-encryption.org/v1/ssh-rsa')))
  block[block.length - 17] = 1
  fileKey.expose((bytes) => {
    block.set(bytes, block.length - 16)
  })
  const masked = mask(block, seed)
  const encoded = concatBytes(Uint8Array.of(0), mask(seed, masked), masked)
  const body = copyBytes(publicEncrypt({ key: rsaKey, padding: constants.RSA_NO_PADDING }, encoded))
  const wire = copyBytes(Buffer.from(encodeSshRsaRecipient(rsaKey).slice(8), 'base64'))
  return { args: ['ssh-rsa', encodeBase64(sha256(wire).subarray(0, 4))], body }
}

/** A file with any stanzas at all under a right MAC, as one who knows the file key can make it. */
export const makeFile = (
  stanzas: readonly MakeStanza[],
  plaintext: Uint8Array,
  random: Random,
): { file: Bytes; header: Bytes; payload: Bytes; fileKey: Secret; macInput: Bytes } => {
  const fileKey = Secret.random(16, random)
  const macInput = encodeMacInput(stanzas.map((make) => make(fileKey, random)))
  const macKey = fileKey.expose((bytes) => hkdf(bytes, allocate(0), asciiBytes('header'), 32))
  const header = encodeHeader(macInput, hmac(macKey, macInput))
  const payload = sealPayload(fileKey, plaintext, random)
  return { file: concatBytes(header, payload), header, payload, fileKey, macInput }
}
