import { createCipheriv, createDecipheriv } from 'node:crypto'
import { AEAD_AES_256_GCM, type AEAD } from 'hpke'
import { allocate, concatBytes } from '../bytes.js'

const CIPHER = 'aes-256-gcm'
const TAG_SIZE = 16
/** Up to here encrypting takes less time than the way to another thread and back. */
const AT_ONCE_SIZE_MAX = 256 * 1024

/**
 * AES-256-GCM for HPKE (RFC 9180 §7.3). Small frames, nearly all, are sealed and opened at once, in this thread: WebCrypto hands
 * each to a thread of its pool, which takes longer than the rest of the frame’s way through this process. Large ones go there.
 */
export const sessionAead = (): AEAD => {
  const webCrypto = AEAD_AES_256_GCM()
  return {
    ...webCrypto,
    Seal: async (key, nonce, aad, plaintext) =>
      plaintext.length <= AT_ONCE_SIZE_MAX
        ? sealAtOnce(key, nonce, aad, plaintext)
        : webCrypto.Seal(key, nonce, aad, plaintext),
    Open: async (key, nonce, aad, sealed) =>
      sealed.length <= AT_ONCE_SIZE_MAX ? openAtOnce(key, nonce, aad, sealed) : webCrypto.Open(key, nonce, aad, sealed),
  }
}

const sealAtOnce = (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array => {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_SIZE })
  cipher.setAAD(aad)
  return concatBytes(cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
}

/** @throws where the tag is wrong; what was deciphered by then is zero-filled. */
const openAtOnce = (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array => {
  if (sealed.length < TAG_SIZE) throw new RangeError('A frame without a tag')
  const end = sealed.length - TAG_SIZE
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_SIZE })
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(end))
  const deciphered = decipher.update(sealed.subarray(0, end))
  try {
    decipher.final()
    const plaintext = allocate(end)
    plaintext.set(deciphered)
    return plaintext
  } finally {
    deciphered.fill(0)
  }
}
