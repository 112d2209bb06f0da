import type { ObjectStatus, VerifiedObject } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { isRuntimeEntry, type EntryName } from '../protocol/names.js'
import type { CancelSignal } from '../protocol/ports.js'
import type { Finding } from './copies.js'
import type { EpochState, StoredObject } from './epoch-file.js'
import type { Wanted } from './object-opener.js'
import { byAge, formatObjectName, parseObjectName, ROOT_EPOCH, type ObjectName } from './object-names.js'

export interface VerifierOptions {
  /** The committed state. */
  readonly settled: () => Promise<EpochState>
  readonly root: ObjectName
  readonly inspect: (wanted: Wanted) => Promise<readonly ObjectStatus[]>
  readonly inspectRoot: () => Promise<readonly ObjectStatus[]>
  readonly found: Finding
}

/** Reads and opens everything that a flow’s state lists, in all copies. Two runs at once share the work on each object. */
export class Verifier {
  readonly #options: VerifierOptions
  readonly #underWay = new Map<string, Promise<readonly ObjectStatus[]>>()
  /** Of the state that was looked at last: a state may have 100,000 entries, and never changes. */
  #held: { readonly state: EpochState; readonly objects: ReadonlyMap<string, Held> } | undefined

  constructor(options: VerifierOptions) {
    this.#options = options
  }

  /** @param after - the object behind which to go on. @throws {KeyriseError} ERR_NAME_INVALID, ERR_KMS_*, … The signal’s reason. */
  async *verify(after: string | undefined, signal: CancelSignal | undefined): AsyncGenerator<VerifiedObject> {
    const { root, settled } = this.#options
    const behind = after === undefined ? undefined : parseObjectName(after)
    if (after !== undefined && behind === undefined)
      throw new KeyriseError('ERR_NAME_INVALID', { detail: 'after: an object that verify() named' })
    signal?.throwIfAborted()
    if (behind === undefined) {
      const { entries } = await settled()
      yield this.#judge(root, await this.#once(formatObjectName(root), () => this.#options.inspectRoot()), [
        ...entries.keys(),
      ])
    }
    const all = [...this.#heldBy(await settled()).values()]
      .map(({ object }) => object)
      .sort((a, b) => byAge(b.name, a.name))
    for (const { name } of all) {
      if (behind !== undefined && byAge(name, behind) >= 0) continue
      signal?.throwIfAborted()
      const verified = await this.#verifyObject(name)
      if (verified !== undefined) yield verified
    }
  }

  /** Undefined where the state does not list it any more: then its absence is no loss. */
  async #verifyObject(name: ObjectName): Promise<VerifiedObject | undefined> {
    const { settled, inspect } = this.#options
    const key = formatObjectName(name)
    const state = await settled()
    const held = this.#heldBy(state).get(key)
    if (held === undefined) return undefined
    const { object, entries } = held
    const copies = await this.#once(key, () => inspect({ object, entry: entries[0], state }))
    return this.#heldBy(await settled()).has(key) ? this.#judge(name, copies, entries) : undefined
  }

  #heldBy(state: EpochState): ReadonlyMap<string, Held> {
    if (this.#held?.state !== state) this.#held = { state, objects: heldBy(state) }
    return this.#held.objects
  }

  #judge(name: ObjectName, copies: readonly ObjectStatus[], entries: readonly EntryName[]): VerifiedObject {
    const object = formatObjectName(name)
    const status = statusAmong(copies)
    if (status !== 'intact') this.#options.found(object, status)
    return { object, status, copies, entries: entries.filter((entry) => !isRuntimeEntry(entry)) }
  }

  #once(key: string, inspect: () => Promise<readonly ObjectStatus[]>): Promise<readonly ObjectStatus[]> {
    const running = this.#underWay.get(key)
    if (running !== undefined) return running
    const inspecting = inspect().finally(() => this.#underWay.delete(key))
    this.#underWay.set(key, inspecting)
    return inspecting
  }
}

/** One whole copy serves; without one, the best that is left is that nobody can say. */
const statusAmong = (copies: readonly ObjectStatus[]): ObjectStatus =>
  RANKED.find((status) => copies.includes(status)) ?? 'missing'
const RANKED: readonly ObjectStatus[] = ['repaired', 'intact', 'unreadable', 'damaged', 'missing']

interface Held {
  readonly object: StoredObject
  readonly entries: EntryName[]
}

/** The objects that `state` needs, but for the root, by name, with the entries that each holds. */
const heldBy = ({ object: own, entries }: EpochState): Map<string, Held> => {
  const held = new Map<string, Held>()
  const add = (object: StoredObject): Held => {
    const key = formatObjectName(object.name)
    const known = held.get(key) ?? { object, entries: [] }
    held.set(key, known)
    return known
  }
  if (own.name.epoch > ROOT_EPOCH) add(own)
  for (const [entry, { object }] of entries) add(object).entries.push(entry)
  return held
}
