import type { Bytes } from '../protocol/bytes.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { equalHeads, type Head } from '../protocol/session.js'
import { beginFlow, findUnfinishedBirth, isBeyondBirth, newbornState } from './birth.js'
import { copiesOf, restoreParts, type Copies, type Parts } from './copies.js'
import type { EpochState, StoredObject } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import { ledgerRolledBack, type LedgerState } from './kms-client.js'
import { isTransient } from './kms-session.js'
import { byAge, formatObjectName, parseObjectName, storeName, type ObjectName } from './object-names.js'
import { openRoot, type FlowPorts } from './root.js'
import { acknowledgedAhead, findShownState, type ShownState } from './shown-state.js'
import { listObjects } from './stored-objects.js'
import {
  chooseAdoptable,
  fork,
  isHead,
  openSighting,
  sightInCopies,
  stateOfAuthentic,
  type Authentic,
  type Sighting,
} from './survey.js'

export interface Recovered {
  /** `stale`: not the ledger's newest state but what the store shows, since an operator accepted that. */
  readonly kind: 'fresh' | 'recovered' | 'stale'
  /** True when the state is a head + 1 that a crash had left. */
  readonly adopted: boolean
  readonly incarnation: number
  readonly keys: FlowKeys
  readonly state: EpochState
  /** The state's own epoch file, opened already; undefined at epoch 1. */
  readonly plaintext: Secret | undefined
  /** The image that still has the flow, until this instance has committed to it; undefined where it is its own. */
  readonly migratesFrom: { readonly image: Bytes; readonly svn: number } | undefined
  /** Objects of earlier instances that the state doesn't list. */
  readonly garbage: readonly ObjectName[]
}

interface Found extends Pick<Recovered, 'adopted' | 'keys' | 'state' | 'plaintext'> {
  /** The state's own object, as the store holds it. */
  readonly parts: Parts
  /** The incarnation that wrote it, where it is what an operator accepted. */
  readonly staleOf?: number
}

/** Each attempt starts from the ledger, so that an answer that was lost is seen in what the ledger has become. */
const ATTEMPT_COUNT_MAX = 3
/** On the store, or on the ledger by it: each is wrong where an instance that lives has moved on meanwhile. */
const VERDICTS = ['ERR_FORK', 'ERR_ROLLBACK', 'ERR_STATE_LOST', 'ERR_LEDGER_ROLLED_BACK'] as const
/** How many older epochs are looked at to name what is wrong. */
const OLDER_COUNT_MAX = 16

/**
 * Finds the flow's newest state, takes the flow over with one compare-and-swap, and makes the flow's first state where there
 * never was one. Case by case: docs/adr/0003-commit-order.md.
 * @throws {KeyriseError} ERR_ROLLBACK, ERR_FORK, ERR_STATE_LOST, ERR_LEDGER_ROLLED_BACK, ERR_LEDGER_CONFLICT, ERR_FENCED, ERR_KMS_*,
 * ERR_STORE_*.
 * Crash: at any point, safe to repeat.
 */
export const recover = async (ports: FlowPorts): Promise<Recovered> => {
  for (let attempt = 1; ; attempt++) {
    const ledger = await ports.kms.open()
    try {
      return await recoverFrom(ports, ledger)
    } catch (error) {
      if (attempt === ATTEMPT_COUNT_MAX || !(isTransient(error) || (await hasMoved(ports, ledger, error)))) throw error
    }
  }
}

/** The ports as of the image that has the flow: what it sealed is opened as itself would open it. */
export const openingPorts = (ports: FlowPorts): FlowPorts => {
  const { kms, identity } = ports
  const { migratesFrom } = kms
  return migratesFrom === undefined
    ? ports
    : { ...ports, identity: { ...identity, image: migratesFrom.image }, originKey: () => kms.migratingKey() }
}

const recoverFrom = async (ports: FlowPorts, ledger: LedgerState): Promise<Recovered> => {
  const names = await listObjects(ports.store, ports.identity.flow)
  const found = await findOrAccept(openingPorts(ports), ledger, names)
  try {
    return await takeOver(ports, ledger, names, found)
  } catch (error) {
    found?.keys[Symbol.dispose]()
    found?.plaintext?.[Symbol.dispose]()
    throw error
  }
}

/** True when a verdict on the store was passed by a ledger that an instance still alive has moved meanwhile. */
const hasMoved = async ({ kms }: FlowPorts, seen: LedgerState, verdict: unknown): Promise<boolean> => {
  if (!isKeyriseError(verdict, ...VERDICTS)) return false
  const now = await kms.open()
  return now.incarnation !== seen.incarnation || !equalHeads(seen.head, now.head)
}

/** As `find`; but in place of a refusal what the store shows, where an operator accepted that. */
const findOrAccept = async (
  ports: FlowPorts,
  ledger: LedgerState,
  names: readonly ObjectName[],
): Promise<Found | undefined> => {
  try {
    return await find(ports, ledger, names)
  } catch (refusal) {
    if (!ledger.staleAccepted || !isKeyriseError(refusal, ...VERDICTS)) throw refusal
    const shown = await findShownState(ports, names)
    if (shown === undefined) throw refusal
    return acceptStale(ledger, shown)
  }
}

/** No epoch that was acknowledged gets another content: what isn't above the ledger's head is restated as the epoch after it. */
const acceptStale = ({ head }: LedgerState, { state, incarnation, ...shown }: ShownState): Found => {
  const isBelow = head !== null && state.head.epoch <= head.epoch
  return { ...shown, adopted: !isBelow, state: isBelow ? { ...state, head } : state, staleOf: incarnation }
}

const find = async (
  ports: FlowPorts,
  ledger: LedgerState,
  names: readonly ObjectName[],
): Promise<Found | undefined> => {
  if (ledger.head !== null) return findState(ports, { ...ledger, head: ledger.head }, names)
  if (isBeyondBirth(ledger, names)) throw await nameForgotten(ports, ledger, names)
  const birth = await findUnfinishedBirth(ports, ledger, names)
  return birth && { ...birth, adopted: true, plaintext: undefined }
}

const takeOver = async (
  ports: FlowPorts,
  ledger: LedgerState,
  names: readonly ObjectName[],
  found: Found | undefined,
): Promise<Recovered> => {
  const writer = found?.staleOf ?? ledger.incarnation
  const adopt = found?.adopted === true ? { ...found.state.head, incarnation: writer } : null
  const isStale = found?.staleOf !== undefined
  if (found?.adopted === true || isStale) await makeDurable(ports, found.parts)
  const incarnation = await ports.kms.claim(ledger, adopt, isStale)
  if (found !== undefined) {
    const garbage = findGarbage(names, found.state, found.keys)
    const { migratesFrom } = ports.kms
    return { ...found, kind: isStale ? 'stale' : 'recovered', incarnation, migratesFrom, garbage }
  }
  const { keys, state } = await beginFlow(ports, incarnation)
  return {
    kind: 'fresh',
    adopted: false,
    incarnation,
    keys,
    state,
    plaintext: undefined,
    migratesFrom: undefined,
    garbage: findGarbage(names, state, keys),
  }
}

/**
 * What a crash left can be seen before it is durable, or in some of the copies alone: it is put again, so that the ledger never
 * names what the store may still lose.
 */
const makeDurable = async ({ store }: FlowPorts, parts: Parts): Promise<void> => {
  for (const [name, bytes] of parts) {
    try {
      await store.put(name, bytes)
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_STORE_CONFLICT')) throw error
      await Promise.all((await copiesOf(store)).map((copy) => restoreParts(copy, [[name, bytes]])))
      await store.put(name, bytes)
    }
  }
}

/** The state that the ledger's `head` names, or the one right after it. */
const findState = async (
  ports: FlowPorts,
  ledger: LedgerState & { readonly head: Head },
  names: readonly ObjectName[],
): Promise<Found> => {
  const { head, incarnation } = ledger
  const { store, identity } = ports
  const { flow } = identity
  const copies = await copiesOf(store)
  const files = names.filter(({ kind }) => kind !== 'direct').sort(byAge)
  const newer = files.filter(({ epoch }) => epoch >= head.epoch)
  const { seen, copyCount } = await sightInCopies(copies, flow, newer, (all) => all.some((one) => isHead(one, head)))
  const current = seen.find((sighting) => isHead(sighting, head))
  const older = files.filter(({ epoch }) => epoch < head.epoch).slice(0, OLDER_COUNT_MAX)
  const behind = current === undefined ? (await sightInCopies(copies, flow, older, (all) => all.length > 0)).seen : []
  const keys = await openKeys(ports, head, current ?? seen[0] ?? behind[0])
  const opened: Authentic[] = []
  let kept: Secret | undefined
  try {
    for (const sighting of [...seen, ...behind]) openInto(opened, keys, sighting)
    await openElsewhere(opened, keys, { copies, flow, newer: newer.filter(({ epoch }) => epoch > head.epoch) })
    for (const epoch of opened) assertLedgerKnows(ports, epoch, ledger)
    const chosen = choose(opened, current, head, incarnation)
    if (chosen !== undefined) {
      const { sighting, plaintext } = chosen.epoch
      const parts: Parts = [[storeName(flow, sighting.name), sighting.envelope]]
      if (copyCount > 1) await restoreHead(ports, copies.slice(0, copyCount - 1), current ?? sighting)
      kept = plaintext
      return { adopted: chosen.adopted, keys, state: stateOfAuthentic(chosen.epoch), plaintext: kept, parts }
    }
    if (current?.name.kind === 'root')
      return { adopted: false, keys, state: newbornState(current), plaintext: undefined, parts: [] }
    throw nameLoss(ports, opened, files, head)
  } catch (error) {
    keys[Symbol.dispose]()
    throw error
  } finally {
    for (const { plaintext } of opened) if (plaintext !== kept) plaintext[Symbol.dispose]()
  }
}

const openInto = (opened: Authentic[], keys: FlowKeys, sighting: Sighting): void => {
  const authentic = openSighting(keys, sighting)
  if (authentic !== undefined) opened.push(authentic)
}

/** What is newer than the head, and did not open in the copies that were looked at, may be whole in another. */
const openElsewhere = async (
  opened: Authentic[],
  keys: FlowKeys,
  { copies, flow, newer }: { readonly copies: Copies; readonly flow: FlowId; readonly newer: readonly ObjectName[] },
): Promise<void> => {
  const known = new Set(opened.map(({ sighting }) => formatObjectName(sighting.name)))
  const damaged = newer.filter((name) => !known.has(formatObjectName(name)))
  const [, second, ...others] = copies
  if (damaged.length === 0 || second === undefined) return
  // Nobody was told that any of these counts: one that cannot be read now need not be adopted.
  const { seen } = await sightInCopies([second, ...others], flow, damaged, () => false).catch(() => ({ seen: [] }))
  for (const sighting of seen) openInto(opened, keys, sighting)
}

const restoreHead = async (ports: FlowPorts, copies: readonly Store[], { name, envelope }: Sighting): Promise<void> => {
  if (name.kind === 'root') return
  const parts: Parts = [[storeName(ports.identity.flow, name), envelope]]
  const restored = await Promise.all(copies.map((copy) => restoreParts(copy, parts)))
  if (restored.includes('repaired')) ports.found(formatObjectName(name), 'repaired')
}

/** The head + 1 where there is an adoptable one, else the head. */
const choose = (opened: readonly Authentic[], current: Sighting | undefined, head: Head, incarnation: number) => {
  const adoptable = chooseAdoptable(opened, head, incarnation)
  if (adoptable !== undefined) return { epoch: adoptable, adopted: true }
  const epoch = opened.find(({ sighting }) => sighting === current)
  return epoch && { epoch, adopted: false }
}

/** @throws {KeyriseError} ERR_LEDGER_ROLLED_BACK: by what the KMS itself once signed. */
const assertLedgerKnows = (ports: FlowPorts, epoch: Authentic, ledger: LedgerState): void => {
  const acknowledged = acknowledgedAhead(ports, epoch, ledger)
  if (acknowledged !== undefined) throw ledgerRolledBack(acknowledged, ledger)
}

/** Why nothing is begun: the ledger has no head, and the store has more than a birth. */
const nameForgotten = async (
  ports: FlowPorts,
  ledger: LedgerState,
  names: readonly ObjectName[],
): Promise<KeyriseError> => {
  const shown = await findShownState(ports, names)
  try {
    const acknowledged = shown?.epoch && acknowledgedAhead(ports, shown.epoch, ledger)
    return acknowledged === undefined
      ? fork('the store holds epochs of a flow of which the ledger has none')
      : ledgerRolledBack(acknowledged, ledger)
  } finally {
    shown?.keys[Symbol.dispose]()
    shown?.plaintext?.[Symbol.dispose]()
  }
}

/** The keys that `anchor` hangs from: its root is named by its context, or it is one. */
const openKeys = async (ports: FlowPorts, head: Head, anchor: Sighting | undefined): Promise<FlowKeys> => {
  if (anchor === undefined) throw lost(`epoch ${head.epoch} and all before it`)
  const name = anchor.name.kind === 'root' ? anchor.name : parseObjectName(anchor.claimed.name)
  const opened = name?.kind === 'root' ? await openRoot(ports, name) : undefined
  if (opened !== undefined) return opened.keys
  if (name?.kind === 'root') ports.found(formatObjectName(name), 'missing')
  throw lost(`the root key of epoch ${head.epoch}`)
}

/** Why there is no head: in its place stands another epoch, or damage, or the store is an older one, or it is empty. */
const nameLoss = (
  ports: FlowPorts,
  opened: readonly Authentic[],
  files: readonly ObjectName[],
  head: Head,
): KeyriseError => {
  if (opened.some(({ epoch }) => epoch >= head.epoch)) return fork(`another epoch ${head.epoch} than the ledger’s`)
  const authentic = new Set(opened.map(({ sighting }) => formatObjectName(sighting.name)))
  const damaged = files.find(
    (name) => name.kind === 'epoch' && name.epoch >= head.epoch && !authentic.has(formatObjectName(name)),
  )
  if (damaged !== undefined) {
    ports.found(formatObjectName(damaged), 'damaged')
    return lost(`epoch ${head.epoch} is damaged`)
  }
  // The root opened, or there would be no keys: it is epoch 1.
  const newest = Math.max(1, ...opened.map(({ epoch }) => epoch))
  if (newest >= head.epoch) return lost(`epoch ${head.epoch}`)
  return new KeyriseError('ERR_ROLLBACK', {
    detail: `the store’s newest epoch is ${newest}, the ledger’s ${head.epoch}`,
  })
}

const lost = (detail: string): KeyriseError => new KeyriseError('ERR_STATE_LOST', { detail })

/** Nothing of a newer instance can be among `names`: they were listed before a claim that no other claim had preceded. */
const findGarbage = (names: readonly ObjectName[], state: EpochState, keys: FlowKeys): ObjectName[] => {
  // Few objects hold many entries: each name is formatted once.
  const objects = new Set<StoredObject>()
  for (const { object } of state.entries.values()) objects.add(object)
  const listed = new Set([...objects].map(({ name }) => formatObjectName(name)))
  listed.add(formatObjectName(state.object.name)).add(keys.rootName)
  return names.filter((name) => !listed.has(formatObjectName(name)))
}
