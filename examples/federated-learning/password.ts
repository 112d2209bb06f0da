import { createHash, createHmac, pbkdf2Sync, timingSafeEqual } from 'node:crypto'

/**
 * SCRAM-SHA-256 (RFC 5802 §3, RFC 7677): whoever knows the password proves it; the other side keeps a verifier and never sees
 * the password.
 */
const ITERATIONS = 4096

export interface Verifier {
  readonly salt: Uint8Array
  readonly storedKey: Uint8Array
}

const hash = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const mac = (key: Uint8Array, message: Uint8Array | string): Buffer =>
  createHmac('sha256', key).update(message).digest()
const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, index) => byte ^ (b[index] ?? 0))

const clientKey = (password: Uint8Array, salt: Uint8Array): Buffer =>
  mac(pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256'), 'Client Key')

export const verifierOf = (password: Uint8Array, salt: Uint8Array): Verifier => ({
  salt,
  storedKey: new Uint8Array(hash(clientKey(password, salt))),
})

/** @param message - the challenge, and whatever else the proof is for. */
export const provePassword = (password: Uint8Array, salt: Uint8Array, message: Uint8Array): Uint8Array<ArrayBuffer> => {
  const key = clientKey(password, salt)
  return new Uint8Array(xor(key, mac(hash(key), message)))
}

export const checkProof = ({ storedKey }: Verifier, message: Uint8Array, proof: Uint8Array): boolean =>
  timingSafeEqual(hash(xor(proof, mac(storedKey, message))), storedKey)
