import { type Bytes } from './bytes.js'
import { decodeCbor, encodeCbor } from './cbor.js'
import { FieldReader } from './check.js'
import { MESSAGE_SIZE_BYTES_MAX } from './limits.js'
import { parseStoreId, type StoreId } from './names.js'

/** What an enclave runs in: a hardened worker of the host's process, or a hardened process of its own. */
export const ISOLATIONS = ['worker', 'process'] as const
export type Isolation = (typeof ISOLATIONS)[number]

/** What a launch gives an enclave beside its code; evidence carries the digest of its bytes (`configDigest`). */
export interface LaunchConfiguration {
  /** Ed25519, 32 bytes: the only KMS that the enclave trusts. */
  readonly kmsIdentity: Bytes
  /** A store that its operator registered, in which it reads the flow’s headers itself (M13). */
  readonly kmsStore?: StoreId
  /** The most that one ECALL, OCALL or reply may carry. */
  readonly messageSizeBytesMax: number
  /** The platform starts it so, or not at all; the enclave serves in no other. */
  readonly isolation: Isolation
  /** It waits, unattested and without a key, until the host has use for it. Left out where it starts at once. */
  readonly standby?: true
}

export const encodeConfiguration = (configuration: LaunchConfiguration): Bytes => encodeCbor({ ...configuration })

/** @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_CBOR_INVALID. */
export const decodeConfiguration = (claimed: Uint8Array): LaunchConfiguration => {
  const fields = new FieldReader(
    decodeCbor(claimed),
    ['kmsIdentity', 'kmsStore', 'messageSizeBytesMax', 'isolation', 'standby'],
    'ERR_CONFIG_INVALID',
  )
  const claimedIsolation = fields.claimed('isolation')
  return {
    kmsIdentity: fields.bytes('kmsIdentity', 32),
    ...(fields.has('kmsStore') ? { kmsStore: parseStoreId(fields.claimed('kmsStore')) } : {}),
    messageSizeBytesMax: fields.count('messageSizeBytesMax', MESSAGE_SIZE_BYTES_MAX, 1024),
    isolation: ISOLATIONS.find((isolation) => isolation === claimedIsolation) ?? fields.refuse('isolation'),
    ...(fields.has('standby') && fields.flag('standby') ? { standby: true } : {}),
  }
}
