import type { Bytes } from '../protocol/bytes.js'
import { envelopeDigest, openPayloadOf } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import type { ObjectStatus } from '../protocol/contract.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Random, Store } from '../protocol/ports.js'
import { FlowKeys, makeRoot, rootContext, ROOT_SIZE_BYTES, type FlowIdentity } from './flow-keys.js'
import type { KmsClient, UnwrappedHeader } from './kms-client.js'
import type { StoredObject } from './epoch-file.js'
import { copiesOf, CopyFailures, restoreParts, statusOf, type Finding, type Parts } from './copies.js'
import { GatheredPair, type Candidate } from './gathered-pair.js'
import { formatObjectName, type ObjectName } from './object-names.js'
import { getHalves, partsOfPair } from './stored-objects.js'

/** What opening and making a flow's keys needs. */
export interface FlowPorts {
  readonly identity: FlowIdentity
  readonly store: Store
  readonly kms: KmsClient
  /** A copy of the key that tags what `identity` seals. */
  readonly originKey: () => Secret
  /** Ed25519, 32 bytes: whose origin tags count. */
  readonly kmsIdentity: Bytes
  readonly random: Random
  readonly found: Finding
}

/** @param root - taken over, also where this fails. */
const keysOf = (
  { identity, kms, originKey, kmsIdentity, random }: FlowPorts,
  root: Secret,
  rootObject: ObjectName,
): FlowKeys => {
  try {
    if (root.size !== ROOT_SIZE_BYTES) throw new KeyriseError('ERR_PAYLOAD_INVALID')
    return new FlowKeys({
      identity,
      root,
      rootObject,
      origin: { authority: kmsIdentity, key: originKey() },
      predecessors: kms.predecessors(),
      random,
    })
  } catch (error) {
    root[Symbol.dispose]()
    throw error
  }
}

/**
 * The keys of the root that stands under `name`: the one asymmetric unwrap of a recovery, unless the newest header is damaged.
 * Copies that were read before a whole one, and that lack it, are written again.
 * @returns undefined where the object is missing, halved, damaged, forged or another's, in all copies.
 * @throws {KeyriseError} ERR_STORE_*, ERR_KMS_*: nobody can say now.
 */
export const openRoot = async (ports: FlowPorts, name: ObjectName): Promise<OpenedRoot | undefined> => {
  const { opened, failures } = await readRoot(ports, name)
  if (opened === undefined) {
    const why = failures.why(lost(name))
    if (statusOf(why) === 'unreadable') throw why
    return undefined
  }
  const copies = await copiesOf(ports.store)
  const lacking = copies.filter(
    (_, index) => failures.statuses[index] === 'missing' || failures.statuses[index] === 'damaged',
  )
  const restored = await Promise.all(lacking.map((copy) => restoreParts(copy, opened.parts)))
  if (restored.includes('repaired')) ports.found(formatObjectName(name), 'repaired')
  return opened
}

/** What each copy of the root is, once those that lacked what another has were written again. @throws {KeyriseError} ERR_KMS_*, … */
export const inspectRoot = async (ports: FlowPorts, name: ObjectName): Promise<readonly ObjectStatus[]> => {
  const { opened, failures } = await readRoot(ports, name)
  if (opened === undefined) return failures.statuses
  opened.keys[Symbol.dispose]()
  const copies = await copiesOf(ports.store)
  return copies.length === 1 ? ['intact'] : Promise.all(copies.map((copy) => restoreParts(copy, opened.parts)))
}

export interface OpenedRoot {
  readonly keys: FlowKeys
  readonly object: StoredObject
  /** As the store holds it. */
  readonly parts: Parts
}

/** The root out of the first copy, or halves of several, that has it whole, and what the copies before were. */
const readRoot = async (
  ports: FlowPorts,
  name: ObjectName,
): Promise<{ readonly opened?: OpenedRoot; readonly failures: CopyFailures }> => {
  const { flow } = ports.identity
  const failures = new CopyFailures()
  const gathered = new GatheredPair()
  for (const copy of await copiesOf(ports.store)) {
    try {
      const { headers, payload } = await getHalves(copy, flow, name)
      for (const candidate of gathered.add(headers, payload)) {
        const opened = await openRootEnvelope(ports, name, candidate)
        if (opened !== undefined) return { opened: { ...opened, parts: partsOfPair(flow, name, candidate) }, failures }
      }
      const isHalved = headers.length === 0 || payload === undefined
      failures.add(isHalved ? lost(name) : new KeyriseError('ERR_ENVELOPE_INVALID'))
    } catch (error) {
      failures.add(error)
    }
  }
  return { failures }
}

const lost = (name: ObjectName): KeyriseError => new KeyriseError('ERR_STATE_LOST', { detail: formatObjectName(name) })

const openRootEnvelope = async (
  ports: FlowPorts,
  name: ObjectName,
  { header, envelope }: Candidate,
): Promise<Omit<OpenedRoot, 'parts'> | undefined> => {
  const fileKey = await unwrapOne(ports.kms, header)
  if (fileKey === undefined) return undefined
  using key = fileKey
  using origin = ports.originKey()
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
    const envelope = keys.sealRoot(ports.kms.rootKey, name.incarnation)
    return { keys, envelope, object: { name, digest: envelopeDigest(envelope) } }
  } catch (error) {
    keys[Symbol.dispose]()
    throw error
  }
}

const unwrapOne = async (kms: KmsClient, header: UnwrappedHeader): Promise<Secret | undefined> => {
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
