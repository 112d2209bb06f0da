import { type Bytes } from './bytes.js'
import { decodeCbor, encodeCbor } from './cbor.js'
import { FieldReader } from './check.js'
import { MESSAGE_SIZE_BYTES_MAX } from './limits.js'

/** What a launch gives an enclave beside its code; evidence carries the digest of its bytes (`configDigest`). */
export interface LaunchConfiguration {
  /** Ed25519, 32 bytes: the only KMS that the enclave trusts. */
  readonly kmsIdentity: Bytes
  /** The most that one ECALL, OCALL or reply may carry. */
  readonly messageSizeBytesMax: number
}

export const encodeConfiguration = (configuration: LaunchConfiguration): Bytes => encodeCbor({ ...configuration })

/** @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_CBOR_INVALID. */
export const decodeConfiguration = (claimed: Uint8Array): LaunchConfiguration => {
  const fields = new FieldReader(decodeCbor(claimed), ['kmsIdentity', 'messageSizeBytesMax'], 'ERR_CONFIG_INVALID')
  return {
    kmsIdentity: fields.bytes('kmsIdentity', 32),
    messageSizeBytesMax: fields.count('messageSizeBytesMax', MESSAGE_SIZE_BYTES_MAX, 1024),
  }
}
