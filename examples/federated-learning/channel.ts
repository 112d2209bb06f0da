import { createCipheriv, createDecipheriv, hkdfSync, randomFillSync } from 'node:crypto'

/** Messages between two enclaves that share a session key; hosts carry them and learn their size. AES-256-GCM. */

const NONCE_SIZE = 12
const TAG_SIZE = 16

/** A key for each direction, so that no message can be sent back to its sender. */
const directionKey = (session: Uint8Array, from: string, to: string): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', session, new Uint8Array(0), `federated-learning/channel/${from}/${to}`, 32))

interface Route {
  readonly from: string
  readonly to: string
}

export const sealMessage = (session: Uint8Array, { from, to }: Route, message: Uint8Array): Uint8Array<ArrayBuffer> => {
  const key = directionKey(session, from, to)
  const nonce = randomFillSync(new Uint8Array(NONCE_SIZE))
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_SIZE })
  key.fill(0)
  const body = cipher.update(message)
  cipher.final()
  const sealed = new Uint8Array(new ArrayBuffer(NONCE_SIZE + body.length + TAG_SIZE))
  sealed.set(nonce)
  sealed.set(body, NONCE_SIZE)
  sealed.set(cipher.getAuthTag(), NONCE_SIZE + body.length)
  return sealed
}

/** The message, or undefined where it is not one of this session and direction. */
export const openMessage = (
  session: Uint8Array,
  { from, to }: Route,
  claimed: Uint8Array,
): Uint8Array<ArrayBuffer> | undefined => {
  if (claimed.length < NONCE_SIZE + TAG_SIZE) return undefined
  const key = directionKey(session, from, to)
  const decipher = createDecipheriv('aes-256-gcm', key, claimed.subarray(0, NONCE_SIZE), { authTagLength: TAG_SIZE })
  key.fill(0)
  decipher.setAuthTag(claimed.subarray(-TAG_SIZE))
  const body = decipher.update(claimed.subarray(NONCE_SIZE, -TAG_SIZE))
  try {
    decipher.final()
    return new Uint8Array(body)
  } catch {
    return undefined
  } finally {
    body.fill(0)
  }
}
