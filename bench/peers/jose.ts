import { CompactEncrypt, compactDecrypt, generateKeyPair } from 'jose'
import type { Peer } from './files.js'

const { publicKey, privateKey } = await generateKeyPair('ECDH-ES', { crv: 'X25519' })

/** JWE in compact form, as APIs exchange it: ECDH-ES over X25519, AES-256-GCM. */
export const jose: Peer = {
  name: 'jose',
  // Four thirds of a payload in base64 must fit a string, and its parts another.
  limit: { sizeBytes: 2 ** 28, why: 'a JWE is one string, and V8’s are 512 MiB at most' },
  seal: async (plaintext) => {
    const token = await new CompactEncrypt(plaintext)
      .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM' })
      .encrypt(publicKey)
    return { open: async () => (await compactDecrypt(token, privateKey)).plaintext }
  },
}
