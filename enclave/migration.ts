import { copyBytes, type Bytes } from '../protocol/bytes.js'
import type { CheckpointValue, FlowEntry, Migrate, Migrated } from '../protocol/contract.js'
import { envelopeDigest } from '../protocol/crypto/envelope.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { CHECKPOINT_SIZE_BYTES_MAX, ENTRY_COUNT_MAX } from '../protocol/limits.js'
import { isRuntimeEntry, kindOf, parseEntryName, type EntryName } from '../protocol/names.js'
import { EntryReader } from './entry-reader.js'
import { packEpoch, stateOf, type EpochIndex, type EpochState, type StoredObject } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import { ROOT_EPOCH, formatObjectName, type ObjectName } from './object-names.js'
import type { Recovered } from './recovery.js'
import type { FlowPorts } from './root.js'
import { putObject } from './stored-objects.js'

type Migrating = Recovered & { readonly migratesFrom: NonNullable<Recovered['migratesFrom']> }

/**
 * Takes a flow over from the image that has it: reads what its author wants kept, and states all of it anew, the root key included,
 * as the next epoch, under this image’s identity. With its commit the flow is this image’s, and the older one gets nothing any
 * more. Until then nothing is served, and the older image may go on with the flow as it was.
 * @param recovered - opened as the older image’s; its keys and plaintext are taken over.
 * @param migrate - chooses what is kept; everything unless told.
 * @throws {KeyriseError} as `checkpoint` and `read`; ERR_NAME_INVALID, ERR_VALUE_UNSUPPORTED, ERR_ENTRY_MISSING: of what
 * `migrate` returns; what that throws.
 * Crash: at any point, safe to repeat; what was written before the commit is listed by no state, and swept by the next recovery.
 */
export const migrateFlow = async (
  ports: FlowPorts,
  recovered: Migrating,
  migrate: Migrate | undefined,
): Promise<Recovered> => {
  const { identity, store, kms, found, kmsIdentity } = ports
  const { state, incarnation } = recovered
  using older = recovered.keys
  using reader = new EntryReader({ flow: identity.flow, store, keys: older, kms, found })
  if (recovered.plaintext !== undefined) reader.hold(state.object, recovered.plaintext)
  const chosen = await choose(state, reader, recovered.migratesFrom, migrate)
  try {
    const rootObject: ObjectName = { kind: 'root', epoch: ROOT_EPOCH, incarnation, serial: 0 }
    const keys = older.heir(identity, rootObject, { authority: kmsIdentity, key: ports.originKey() })
    try {
      const next = await stateAnew({ ports, keys, reader, recovered, chosen })
      await kms.commit(incarnation, state.head, next.state.head).catch((error: unknown) => {
        next.plaintext[Symbol.dispose]()
        throw error
      })
      kms.tookOver()
      return { ...recovered, ...next, keys, migratesFrom: undefined, garbage: garbageAfter(recovered, older) }
    } catch (error) {
      keys[Symbol.dispose]()
      throw error
    }
  } finally {
    for (const value of chosen.values()) if (value !== 'keep') value.bytes[Symbol.dispose]()
  }
}

type Chosen = ReadonlyMap<EntryName, 'keep' | { readonly bytes: Secret; readonly direct: boolean }>

/** What the author keeps, by name; the runtime’s own entries stay as they are. */
const choose = async (
  state: EpochState,
  reader: EntryReader,
  { svn, image }: Migrating['migratesFrom'],
  migrate: Migrate | undefined,
): Promise<Chosen> => {
  const kept = [...state.entries.keys()].filter((name) => migrate === undefined || isRuntimeEntry(name))
  const chosen = new Map<EntryName, 'keep' | { bytes: Secret; direct: boolean }>(kept.map((name) => [name, 'keep']))
  if (migrate === undefined) return chosen
  const read = async (claimed: EntryName): Promise<Bytes> => {
    const name = parseEntryName(claimed)
    const location = state.entries.get(name)
    if (location === undefined) throw new KeyriseError('ERR_ENTRY_MISSING', { detail: name })
    return reader.read(name, location, state)
  }
  const migrated = await migrate({
    from: { svn, measurement: copyBytes(image) },
    list: () => entriesOf(state),
    read,
  })
  for (const [name, value] of checkMigrated(state, migrated)) {
    if (value === 'keep') chosen.set(name, value)
    else if (value instanceof Uint8Array) chosen.set(name, { bytes: Secret.own(copyBytes(value)), direct: false })
    else chosen.set(name, { bytes: Secret.own(copyBytes(value.bytes)), direct: true })
  }
  return chosen
}

/** All are checked before the first is copied, so that a refusal leaves no copy behind. */
const checkMigrated = ({ entries }: EpochState, migrated: Migrated): [EntryName, CheckpointValue | 'keep'][] =>
  Object.entries(migrated).map(([claimed, value]) => {
    const name = parseEntryName(claimed)
    if (value === 'keep' && !entries.has(name)) throw new KeyriseError('ERR_ENTRY_MISSING', { detail: name })
    const bytes: unknown = value === 'keep' || value instanceof Uint8Array ? value : value?.bytes
    if (value === undefined || (value !== 'keep' && !(bytes instanceof Uint8Array)))
      throw new KeyriseError('ERR_VALUE_UNSUPPORTED', { detail: name })
    return [name, value]
  })

const entriesOf = ({ entries }: EpochState): FlowEntry[] =>
  [...entries]
    .filter(([name]) => !isRuntimeEntry(name))
    .map(([name, { object, sizeBytes }]) => ({ name, kind: kindOf(name), epoch: object.name.epoch, sizeBytes }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))

interface Restating {
  readonly ports: FlowPorts
  readonly keys: FlowKeys
  readonly reader: EntryReader
  readonly recovered: Migrating
  readonly chosen: Chosen
}

/** Root key, then what is sealed straight to the KMS, then the epoch file that lists it all: each durable before the next. */
const stateAnew = async ({ ports, keys, reader, recovered, chosen }: Restating) => {
  const { kms, store, identity } = ports
  const { state, incarnation } = recovered
  if (chosen.size > ENTRY_COUNT_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${ENTRY_COUNT_MAX} entries` })
  await putNew(store, identity.flow, keys.rootObject, keys.sealRoot(kms.rootKey, incarnation))
  const entries = new Map<EntryName, { object: StoredObject | null; offset: number; sizeBytes: number }>()
  const values: Secret[] = []
  let [serial, offset] = [0, 0]
  const place = (kind: 'direct' | 'epoch'): ObjectName => ({
    kind,
    epoch: state.head.epoch + 1,
    incarnation,
    serial: ++serial,
  })
  try {
    for (const [name, value] of chosen) {
      const { bytes, direct } = await valueOf(name, value, state, reader)
      const sizeBytes = bytes.size
      if (direct) {
        using secret = bytes
        const object = place('direct')
        const envelope = secret.expose((plain) => keys.sealDirect(name, plain, object, kms.rootKey))
        await putNew(store, identity.flow, object, envelope)
        entries.set(name, { object: { name: object, digest: envelopeDigest(envelope) }, offset: 0, sizeBytes })
      } else {
        values.push(bytes)
        entries.set(name, { object: null, offset, sizeBytes })
        offset += sizeBytes
      }
      if (offset > CHECKPOINT_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a migration' })
    }
    const index: EpochIndex = { parent: state.head, acknowledgement: kms.acknowledgement, entries }
    const plaintext = Secret.own(packEpoch(index, values))
    const object = place('epoch')
    const envelope = plaintext.expose((bytes) => keys.sealEpoch(bytes, object))
    await putNew(store, identity.flow, object, envelope)
    return { state: stateOf(index, { name: object, digest: envelopeDigest(envelope) }), plaintext }
  } finally {
    for (const value of values) value[Symbol.dispose]()
  }
}

/**
 * Under a name that no instance has had, since its incarnation was just claimed: other bytes there are of an instance that this ledger
 * has forgotten, or of nobody. @throws {KeyriseError} ERR_FORK.
 */
const putNew: typeof putObject = async (store, flow, object, envelope) => {
  try {
    await putObject(store, flow, object, envelope)
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_STORE_CONFLICT')) throw error
    throw new KeyriseError('ERR_FORK', {
      detail: `${formatObjectName(object)}, of an incarnation that was new`,
      cause: error,
    })
  }
}

/** A copy of its own, and how it is to be sealed. */
const valueOf = async (
  name: EntryName,
  value: 'keep' | { readonly bytes: Secret; readonly direct: boolean },
  state: EpochState,
  reader: EntryReader,
): Promise<{ bytes: Secret; direct: boolean }> => {
  if (value !== 'keep') return { bytes: value.bytes.clone(), direct: value.direct }
  const location = state.entries.get(name)
  if (location === undefined) throw new KeyriseError('ERR_ENTRY_MISSING', { detail: name })
  return {
    bytes: Secret.own(await reader.read(name, location, state)),
    direct: location.object.name.kind === 'direct',
  }
}

/** Everything of the older image’s: no state lists it any more. */
const garbageAfter = ({ state, garbage }: Migrating, older: FlowKeys): ObjectName[] => {
  const objects = [state.object, ...[...state.entries.values()].map(({ object }) => object)]
  const names = new Map(
    [...objects.map(({ name }) => name), older.rootObject].map((name) => [formatObjectName(name), name]),
  )
  return [...garbage, ...names.values()]
}
