import { toHex } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import type { Receipt } from '../protocol/receipts.js'
import type { ConsoleView } from './console-feed.js'
import type { ConsoleEnclave, ConsoleFigure, ConsoleFlow, ConsoleKey } from './console/state.js'
import type { FlowState } from './ledger.js'
import { imageName, keyIdOf, type Policy } from './policy.js'
import type { SessionView } from './served-session.js'
import type { RewrapProgress, StoreProgress } from './store-rewraps.js'

/** What the console shows of a KMS that is unlocked. */
export interface Shown {
  readonly keys: readonly ConsoleKey[]
  readonly flows: ReadonlyMap<FlowId, FlowState>
  readonly sessions: readonly SessionView[]
  /** Oldest first. */
  readonly receipts: readonly Receipt[]
  readonly policy: Policy
  readonly rewrap: RewrapProgress
}

const ROW_COUNT_MAX = 100
const FLOW_COUNT_MAX = 500
const MEASUREMENT_DIGITS = 12

/** @param shown - undefined while it is sealed: then nothing is known but who it is. */
export const consoleView = (
  about: Pick<ConsoleView, 'startedMs' | 'identity' | 'custody'>,
  shown: Shown | undefined,
): ConsoleView => {
  if (shown === undefined)
    return { ...about, keys: [], flows: [], enclaves: [], recoveries: [], receipts: [], health: [] }
  const { keys, flows, sessions, policy } = shown
  const newest = [...shown.receipts].reverse()
  return {
    ...about,
    keys,
    flows: [...flows].slice(-FLOW_COUNT_MAX).map(([flow, state]) => flowView(flow, state, policy)),
    enclaves: enclaveViews(sessions),
    recoveries: newest
      .filter(({ kind, outcome }) => kind === 'claim' && outcome === undefined)
      .slice(0, ROW_COUNT_MAX)
      .map(({ timeMs, flow = '', epoch = 0, incarnation = 0 }) => ({ timeMs, flow, epoch, incarnation })),
    receipts: newest
      .slice(0, ROW_COUNT_MAX)
      .map(({ sequence, timeMs, kind, flow = '', outcome = '' }) => ({ sequence, timeMs, kind, flow, outcome })),
    health: healthOf(shown),
  }
}

/** The newest first. */
const enclaveViews = (sessions: readonly SessionView[]): ConsoleEnclave[] => {
  const opened = new Set<string>()
  return [...sessions]
    .sort((a, b) => b.sinceMs - a.sinceMs)
    .slice(0, ROW_COUNT_MAX)
    .map(({ image, flow = '', sinceMs, callCount }) => {
      const isLast = flow === '' || !opened.has(flow)
      opened.add(flow)
      return { image, flow, sinceMs, callCount, state: isLast ? 'live' : 'superseded' }
    })
}

const flowView = (
  flow: FlowId,
  { task, image, svn, signed, head, incarnation, destroyed, staleAccepted }: FlowState,
  policy: Policy,
): ConsoleFlow => ({
  flow,
  task,
  image: imageName(policy, { measurement: image, svn, signed }, flow) ?? toHex(image).slice(0, MEASUREMENT_DIGITS),
  epoch: head?.epoch ?? 0,
  incarnation,
  root: keyIdOf(policy, flow),
  state: destroyed ? 'destroyed' : staleAccepted ? 'stale state accepted' : 'active',
})

const healthOf = ({ flows, sessions, receipts, rewrap }: Shown): ConsoleFigure[] => {
  const refusedCount = receipts.filter(({ outcome, kind }) => outcome !== undefined || kind === 'denials').length
  const staleCount = [...flows.values()].filter(({ staleAccepted }) => staleAccepted).length
  return [
    { name: 'flows', value: String(flows.size), isGood: true },
    { name: 'attested sessions', value: String(sessions.length), isGood: true },
    { name: `refused of the last ${receipts.length}`, value: String(refusedCount), isGood: refusedCount === 0 },
    { name: 'stale states accepted', value: String(staleCount), isGood: staleCount === 0 },
    ...rewrap.stores.map((store) => rewrapFigure(store)),
  ]
}

const rewrapFigure = ({ store, total, rewrapped, current, failed, code }: StoreProgress): ConsoleFigure => ({
  name: `rewrapped in ${store}`,
  value: code ?? `${String(rewrapped + current)} of ${String(total)}`,
  isGood: code === null && failed === 0,
})
