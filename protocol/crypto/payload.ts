import type { Bytes } from '../bytes.js'
import type { Random } from '../ports.js'
import type { Secret } from './secret.js'

/** Nonce, then the chunks. */
export const sealPayload = (_fileKey: Secret, _plaintext: Uint8Array, _random: Random): Bytes => {
  throw new Error('being written')
}
/** @throws {KeyriseError} ERR_PAYLOAD_INVALID, ERR_PAYLOAD_TRUNCATED. */
export const openPayload = (_fileKey: Secret, _payload: Uint8Array): Bytes => {
  throw new Error('being written')
}
