import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { envelopeDigest, openPayloadOf } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Random, Store } from '../protocol/ports.js'
import { splitEnvelope } from '../protocol/sealed-pair.js'
import { FlowKeys, makeRoot, rootContext, ROOT_SIZE_BYTES, type FlowIdentity } from './flow-keys.js'
import type { KmsClient } from './kms-client.js'
import type { StoredObject } from './epoch-file.js'
import type { ObjectName } from './object-names.js'
import { getEnvelopes } from './stored-objects.js'

/** What opening and making a flow's keys needs. */
export interface FlowPorts {
  readonly identity: FlowIdentity
  readonly store: Store
  readonly kms: KmsClient
  /** Ed25519, 32 bytes: whose origin tags count. */
  readonly kmsIdentity: Bytes
  readonly random: Random
}

/** @param root - taken over, also where this fails. */
const keysOf = ({ identity, kms, kmsIdentity, random }: FlowPorts, root: Secret, rootObject: ObjectName): FlowKeys => {
  try {
    if (root.size !== ROOT_SIZE_BYTES) throw new KeyriseError('ERR_PAYLOAD_INVALID')
    return new FlowKeys({
      identity,
      root,
      rootObject,
      origin: { authority: kmsIdentity, key: kms.originKey() },
      random,
    })
  } catch (error) {
    root[Symbol.dispose]()
    throw error
  }
}

/**
 * The keys of the root that stands under `name`: the one asymmetric unwrap of a recovery, unless the newest header is damaged.
 * @returns undefined where the object is missing, halved, damaged, forged or another's.
 * @throws {KeyriseError} ERR_STORE_*, ERR_KMS_*: nobody can say now.
 */
export const openRoot = async (ports: FlowPorts, name: ObjectName): Promise<OpenedRoot | undefined> => {
  for (const envelope of await getEnvelopes(ports.store, ports.identity.flow, name)) {
    const opened = await openRootEnvelope(ports, name, envelope)
    if (opened !== undefined) return opened
  }
  return undefined
}

interface OpenedRoot {
  readonly keys: FlowKeys
  readonly object: StoredObject
}

const openRootEnvelope = async (
  ports: FlowPorts,
  name: ObjectName,
  envelope: Uint8Array,
): Promise<OpenedRoot | undefined> => {
  const header = orUndefined(() => copyBytes(splitEnvelope(envelope).header))
  const fileKey = header && (await unwrapOne(ports.kms, header))
  if (fileKey === undefined) return undefined
  using key = fileKey
  using origin = ports.kms.originKey()
  return orUndefined(() => {
    const expect = rootContext(ports.identity, name.incarnation)
    const object = { name, digest: envelopeDigest(envelope) }
    const { plaintext } = openPayloadOf(envelope, key, {
      expect,
      origin: { authority: ports.kmsIdentity, key: origin },
    })
    return { keys: keysOf(ports, Secret.take(plaintext), name), object }
  })
}

/** A new root, and the envelope that must be durable before anything hangs from it. */
export const sealNewRoot = (
  ports: FlowPorts,
  name: ObjectName,
): { keys: FlowKeys; envelope: Bytes; object: StoredObject } => {
  const keys = keysOf(ports, makeRoot(ports.random), name)
  try {
    const envelope = keys.sealRoot(ports.kms.encryptionKey, name.incarnation)
    return { keys, envelope, object: { name, digest: envelopeDigest(envelope) } }
  } catch (error) {
    keys[Symbol.dispose]()
    throw error
  }
}

const unwrapOne = async (kms: KmsClient, header: Bytes): Promise<Secret | undefined> => {
  const opened = (await kms.unwrap([header])).at(0)
  if (opened instanceof Secret) return opened
  // The KMS's word that the envelope is bad; anything else says nothing about the envelope.
  if (opened?.code === 'ERR_ENVELOPE_INVALID') return undefined
  throw opened ?? new KeyriseError('ERR_KMS_FAILED')
}

/** What `open` returns; undefined when what it opens is damaged or another's. */
export const orUndefined = <T>(open: () => T): T | undefined => {
  try {
    return open()
  } catch (error) {
    if (isKeyriseError(error)) return undefined
    throw error
  }
}
