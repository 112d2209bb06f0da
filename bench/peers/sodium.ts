import sodium from 'sodium-native'
import type { Peer } from './files.js'

const publicKey = Buffer.alloc(sodium.crypto_box_PUBLICKEYBYTES)
const secretKey = Buffer.alloc(sodium.crypto_box_SECRETKEYBYTES)
sodium.crypto_box_keypair(publicKey, secretKey)

/** libsodium’s sealed boxes by its native addon: X25519 and XSalsa20-Poly1305 over the whole message at once. No chunks. */
export const sodiumNative: Peer = {
  name: 'sodium-native',
  seal: (plaintext) => {
    const message = Buffer.from(plaintext.buffer)
    const box = Buffer.allocUnsafeSlow(message.length + sodium.crypto_box_SEALBYTES)
    sodium.crypto_box_seal(box, message, publicKey)
    const open = (): Uint8Array => {
      const opened = Buffer.allocUnsafeSlow(box.length - sodium.crypto_box_SEALBYTES)
      if (!sodium.crypto_box_seal_open(opened, box, publicKey, secretKey)) throw new Error('sodium-native: refused')
      return opened
    }
    return Promise.resolve({ open })
  },
}
