import { readFile } from 'node:fs/promises'
import { parseHeader } from '../protocol/age-header.js'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { claimedContext, openPayloadOf, unwrapHeader } from '../protocol/crypto/envelope.js'
import { deriveAgreementKey, deriveSigningSeed, deriveSubKey } from '../protocol/crypto/keys.js'
import { scryptIdentity, subKeyIdentity, x25519Identity, type Identity } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import { parseFlowId, type EntryName, type FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { dataOffset, epochStep, unpackIndex } from '../enclave/epoch-file.js'
import { byAge, formatObjectName, type ObjectName } from '../enclave/object-names.js'
import { getEnvelopes, listObjects } from '../enclave/stored-objects.js'
import type { KnownSecret } from './scan.js'

/**
 * Opens everything that a passphrase opens, from the outside: keyring, root keys, every flow's business root key, every sub
 * key that was used, every entry. It is what an heir with custody and the stores can do without any enclave or KMS running,
 * and how a search for leaks learns what to look for. Stop the KMS and the enclaves first.
 */
export interface Custody extends Disposable {
  /** Every key, with a name that may be shown. */
  readonly keys: readonly KnownSecret[]
  /** The newest entries of each flow. */
  readonly entries: ReadonlyMap<string, ReadonlyMap<EntryName, Bytes>>
}

export interface CustodyOptions {
  /** The keyring’s file. */
  readonly custody: string
  /** Borrowed. */
  readonly passphrase: Uint8Array
  readonly store: Store
  readonly flows: readonly string[]
  /** Steps of `flow.seal`: their keys are derived too, though nothing in the store names them. */
  readonly steps?: readonly string[]
}

const SECRET_SIZE = 32

/** @throws {KeyriseError} ERR_IDENTITY_MISMATCH: another passphrase; ERR_STATE_LOST; what opening an envelope throws. */
export const openCustody = async ({
  custody,
  passphrase,
  store,
  flows,
  steps = [],
}: CustodyOptions): Promise<Custody> => {
  const keys = new Keys()
  const rootKeys = openKeyring(await readFile(custody), passphrase, keys)
  const entries = new Map<string, ReadonlyMap<EntryName, Bytes>>()
  for (const flow of flows)
    entries.set(flow, await openFlowEntries(parseFlowId(flow), { store, rootKeys, keys, steps }))
  return {
    keys: keys.all,
    entries,
    [Symbol.dispose]: () => {
      for (const { bytes } of keys.all) bytes.fill(0)
      for (const named of entries.values()) for (const bytes of named.values()) bytes.fill(0)
    },
  }
}

/** Every key that a keyring’s file holds, as it lies there. @throws {KeyriseError} ERR_IDENTITY_MISMATCH: another passphrase. */
export const keysOfKeyring = (file: Uint8Array, passphrase: Uint8Array): readonly KnownSecret[] => {
  const keys = new Keys()
  openKeyring(file, passphrase, keys)
  return keys.all
}

class Keys {
  readonly all: KnownSecret[] = []

  add(name: string, secret: Secret): void {
    this.all.push({ name, bytes: secret.expose(copyBytes) })
  }
}

/** Plaintext and file key, which counts as a secret too. */
const openWith = (envelope: Uint8Array, identities: readonly Identity[], name: string, keys: Keys): Bytes => {
  using fileKey = unwrapHeader(parseHeader(envelope), identities)
  keys.add(`file key of ${name}`, fileKey)
  return openPayloadOf(envelope, fileKey).plaintext
}

/** u32 size of the public part, that part, then secrets of 32 bytes: identity, origin, and two for each root key. */
const openKeyring = (file: Uint8Array, passphrase: Uint8Array, keys: Keys): Identity[] => {
  using secret = Secret.take(copyBytes(passphrase))
  keys.add('passphrase', secret)
  const plaintext = openWith(file, [scryptIdentity(secret)], 'the keyring', keys)
  const start = 4 + new DataView(plaintext.buffer).getUint32(0)
  const names = ['KMS identity seed', 'KMS origin secret']
  const rootKeys: Identity[] = []
  for (let index = 0; start + (index + 1) * SECRET_SIZE <= plaintext.length; index++) {
    const offset = start + index * SECRET_SIZE
    using key = Secret.take(plaintext.subarray(offset, offset + SECRET_SIZE))
    const isPrivateKey = index >= names.length && index % 2 === 0
    keys.add(names[index] ?? `root key ${String(index >>> 1)}, ${isPrivateKey ? 'private key' : 'origin seed'}`, key)
    if (isPrivateKey) rootKeys.push(x25519Identity(key))
  }
  plaintext.fill(0)
  return rootKeys
}

interface Opening {
  readonly store: Store
  readonly rootKeys: readonly Identity[]
  readonly keys: Keys
  readonly steps: readonly string[]
}

const openFlowEntries = async (
  flow: FlowId,
  { store, rootKeys, keys, steps }: Opening,
): Promise<Map<EntryName, Bytes>> => {
  const objects = (await listObjects(store, flow)).sort(byAge)
  const read = async (object: ObjectName): Promise<Uint8Array> => {
    // The newest header: a rewrap checks that it opens before it deletes another.
    for (const envelope of await getEnvelopes(store, flow, object)) return envelope
    throw new KeyriseError('ERR_STATE_LOST', { detail: `${flow}/${formatObjectName(object)}` })
  }
  const roots = new Map<string, Secret>()
  const epochs = new Map<string, Bytes>()
  try {
    for (const object of objects.filter(({ kind }) => kind === 'root')) {
      const name = formatObjectName(object)
      const root = Secret.take(openWith(await read(object), rootKeys, `${flow}/${name}`, keys))
      roots.set(name, root)
      addRootKeys(`${flow}/${name}`, root, keys, steps)
    }
    for (const object of objects.filter(({ kind }) => kind === 'epoch')) {
      epochs.set(formatObjectName(object), openEpoch(flow, object, await read(object), roots, keys))
    }
    const head = objects.find(({ kind }) => kind === 'epoch')
    return head === undefined
      ? new Map()
      : await collectEntries(flow, head, epochs, async (object) =>
          openWith(await read(object), rootKeys, `${flow}/${formatObjectName(object)}`, keys),
        )
  } finally {
    for (const root of roots.values()) root[Symbol.dispose]()
    for (const plaintext of epochs.values()) plaintext.fill(0)
  }
}

const addRootKeys = (name: string, root: Secret, keys: Keys, steps: readonly string[]): void => {
  keys.add(`business root key ${name}`, root)
  using seed = deriveSigningSeed(root)
  using agreement = deriveAgreementKey(root)
  keys.add(`signing seed of ${name}`, seed)
  keys.add(`agreement key of ${name}`, agreement)
  for (const step of steps) {
    // As enclave/flow-keys.ts sets authors' steps apart from the runtime's own.
    using subKey = deriveSubKey(root, `step/${step}`)
    keys.add(`sub key of ${name}, ${step}`, subKey)
  }
}

/** An epoch's context names the root that it hangs from. */
const openEpoch = (
  flow: string,
  object: ObjectName,
  envelope: Uint8Array,
  roots: ReadonlyMap<string, Secret>,
  keys: Keys,
): Bytes => {
  const root = roots.get(claimedContext(parseHeader(envelope))?.name ?? '')
  const name = `${flow}/${formatObjectName(object)}`
  if (root === undefined) throw new KeyriseError('ERR_STATE_LOST', { detail: `the root of ${name}` })
  const step = epochStep(object.epoch)
  using subKey = deriveSubKey(root, step)
  keys.add(`sub key of ${name}`, subKey)
  return openWith(envelope, [subKeyIdentity(step, subKey)], name, keys)
}

/** The entries that the newest epoch lists, wherever they lie. */
const collectEntries = async (
  flow: string,
  head: ObjectName,
  epochs: ReadonlyMap<string, Bytes>,
  openDirect: (object: ObjectName) => Promise<Bytes>,
): Promise<Map<EntryName, Bytes>> => {
  const epochOf = (object: ObjectName): Bytes => {
    const plaintext = epochs.get(formatObjectName(object))
    if (plaintext === undefined)
      throw new KeyriseError('ERR_STATE_LOST', { detail: `${flow}/${formatObjectName(object)}` })
    return plaintext
  }
  const entries = new Map<EntryName, Bytes>()
  for (const [name, { object, offset, sizeBytes }] of unpackIndex(epochOf(head)).entries) {
    const holder = object?.name ?? head
    if (holder.kind === 'direct') {
      entries.set(name, await openDirect(holder))
      continue
    }
    const plaintext = epochOf(holder)
    const start = dataOffset(plaintext) + offset
    entries.set(name, copyBytes(plaintext.subarray(start, start + sizeBytes)))
  }
  return entries
}
