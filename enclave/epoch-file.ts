import { allocate, type Bytes } from '../protocol/bytes.js'
import { decodeOwnCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { KeyriseError } from '../protocol/errors.js'
import { ENTRY_COUNT_MAX } from '../protocol/limits.js'
import { parseStoredName, type EntryName } from '../protocol/names.js'
import type { Head } from '../protocol/session.js'
import { formatObjectName, parseObjectName, type ObjectName } from './object-names.js'

/** An object that an index lists: its name, and the digest (`envelopeDigest`) of what must stand under it. */
export interface StoredObject {
  readonly name: ObjectName
  readonly digest: Bytes
}

/** Where an entry's bytes are: in which object, and where in that object's data. */
export interface Location {
  readonly object: StoredObject
  readonly offset: number
  readonly sizeBytes: number
}

/** A flow’s entries at one epoch, and where they are. */
export interface EpochState {
  readonly head: Head
  /** The object that is the head: the root at epoch 1, an epoch file above. */
  readonly object: StoredObject
  readonly entries: ReadonlyMap<EntryName, Location>
}

/** What an epoch file says about itself; its own digest isn't in it, so an entry that it holds has `object: null`. */
export interface EpochIndex {
  readonly parent: Head
  /** The KMS’s signature over `parent` and this file’s incarnation (`encodeAcknowledgement`), 64 bytes: the newest there was. */
  readonly acknowledgement: Bytes
  readonly entries: ReadonlyMap<
    EntryName,
    { readonly object: StoredObject | null; readonly offset: number; readonly sizeBytes: number }
  >
}

const KEYS = [
  'v',
  'parentEpoch',
  'parentDigest',
  'acknowledgement',
  'objects',
  'digests',
  'names',
  'holders',
  'offsets',
  'sizes',
] as const
const CODE = 'ERR_PAYLOAD_INVALID'
/** Six columns, and what is around them. */
const INDEX_ITEM_COUNT_MAX = 6 * ENTRY_COUNT_MAX + 64
/** `holders`: 0 is this file, n is `objects[n - 1]`. */
const HERE = 0
const SIZE_BYTES = 4

/** The step whose sub key seals epoch `epoch`. Authors' steps start otherwise (`authorStep`). */
export const epochStep = (epoch: number): string => `epoch/${epoch}`

/** Columns, since an index may list 100,000 entries. */
const encodeIndex = ({ parent, acknowledgement, entries }: EpochIndex): Bytes => {
  const objects = new Map<string, { holder: number; digest: Bytes }>()
  const holderOf = (object: StoredObject | null): number => {
    if (object === null) return HERE
    const name = formatObjectName(object.name)
    const known = objects.get(name)
    if (known !== undefined) return known.holder
    const holder = objects.size + 1
    objects.set(name, { holder, digest: object.digest })
    return holder
  }
  const rows = [...entries]
  const holders = rows.map(([, { object }]) => holderOf(object))
  return encodeCbor({
    v: 1,
    parentEpoch: parent.epoch,
    parentDigest: parent.digest,
    acknowledgement,
    objects: [...objects.keys()],
    digests: [...objects.values()].map(({ digest }) => digest),
    names: rows.map(([name]) => name),
    holders,
    offsets: rows.map(([, { offset }]) => offset),
    sizes: rows.map(([, { sizeBytes }]) => sizeBytes),
  })
}

const decodeIndex = (bytes: Uint8Array): EpochIndex => {
  const f = new FieldReader(decodeOwnCbor(bytes, INDEX_ITEM_COUNT_MAX), KEYS, CODE)
  f.count('v', 1, 1)
  const count = (claimed: unknown): number =>
    Number.isSafeInteger(claimed) && (claimed as number) >= 0 ? (claimed as number) : f.refuse('count')
  const digests = f.list('digests', ENTRY_COUNT_MAX, (claimed) =>
    new FieldReader({ claimed }, ['claimed'], CODE).bytes('claimed', 32),
  )
  const objects = f.list(
    'objects',
    ENTRY_COUNT_MAX,
    (claimed) => (typeof claimed === 'string' && parseObjectName(claimed)) || f.refuse('objects'),
  )
  const stored = objects.map((name, index): StoredObject => ({ name, digest: digests[index] ?? f.refuse('digests') }))
  const offsets = f.list('offsets', ENTRY_COUNT_MAX, count)
  const sizes = f.list('sizes', ENTRY_COUNT_MAX, count)
  const holders = f.list('holders', ENTRY_COUNT_MAX, count)
  const rows = f.list('names', ENTRY_COUNT_MAX, parseStoredName).map((name, index) => {
    const holder = holders[index] ?? f.refuse('holders')
    const object = holder === HERE ? null : (stored[holder - 1] ?? f.refuse('holders'))
    return [
      name,
      { object, offset: offsets[index] ?? f.refuse('offsets'), sizeBytes: sizes[index] ?? f.refuse('sizes') },
    ] as const
  })
  const entries = new Map(rows)
  if (entries.size !== rows.length) return f.refuse('names')
  return {
    parent: { epoch: f.count('parentEpoch', Number.MAX_SAFE_INTEGER, 1), digest: f.bytes('parentDigest', 32) },
    acknowledgement: f.bytes('acknowledgement', 64),
    entries,
  }
}

/**
 * An epoch file's plaintext: u32 size of the index, the index, then the data that its entries with `object: null` point into.
 * @param values - the data, in order, borrowed. The caller zero-fills the result.
 */
export const packEpoch = (index: EpochIndex, values: readonly Secret[]): Bytes => {
  const encoded = encodeIndex(index)
  const plaintext = allocate(values.reduce((size, value) => size + value.size, SIZE_BYTES + encoded.length))
  new DataView(plaintext.buffer).setUint32(0, encoded.length)
  plaintext.set(encoded, SIZE_BYTES)
  let offset = SIZE_BYTES + encoded.length
  for (const value of values) {
    value.expose((bytes) => plaintext.set(bytes, offset))
    offset += value.size
  }
  return plaintext
}

/** Where the data of an opened epoch file starts. @throws {KeyriseError} ERR_PAYLOAD_INVALID. */
export const dataOffset = (plaintext: Uint8Array): number => {
  const view = new DataView(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength)
  const start = plaintext.length >= SIZE_BYTES ? SIZE_BYTES + view.getUint32(0) : Infinity
  if (start > plaintext.length) throw new KeyriseError(CODE, { detail: 'the size of an index' })
  return start
}

/**
 * The index of an opened epoch file.
 * @param plaintext - verified: it comes out of an envelope of this flow.
 * @throws {KeyriseError} ERR_PAYLOAD_INVALID, ERR_CBOR_INVALID, ERR_NAME_INVALID.
 */
export const unpackIndex = (plaintext: Uint8Array): EpochIndex =>
  decodeIndex(plaintext.subarray(SIZE_BYTES, dataOffset(plaintext)))

/** The state that `index` describes, once the digest of its own file is known. */
export const stateOf = (index: EpochIndex, object: StoredObject): EpochState => ({
  head: { epoch: object.name.epoch, digest: object.digest },
  object,
  entries: new Map([...index.entries].map(([name, entry]) => [name, { ...entry, object: entry.object ?? object }])),
})
