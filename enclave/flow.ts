import type { Bytes } from '../protocol/bytes.js'
import type { Flow, Migrate } from '../protocol/contract.js'
import type { FlowId, StoreId } from '../protocol/names.js'
import type { Attester, Clock, CommitChannel, KmsChannel, Random, SegmentChannel, Store } from '../protocol/ports.js'
import type { Finding } from './copies.js'
import type { IdempotentCalls } from './idempotency.js'
import { KmsClient } from './kms-client.js'
import { LiveFlow } from './live-flow.js'
import { migrateFlow } from './migration.js'
import { openingPorts, recover } from './recovery.js'

export interface FlowOptions {
  readonly store: Store
  readonly kms: KmsChannel
  /** A store that the KMS’s operator registered: it reads the flow’s headers there itself, and `kms` carries what it does not find. */
  readonly kmsStore?: StoreId | undefined
  readonly commits: CommitChannel
  readonly segments: SegmentChannel
  readonly attester: Attester
  /** Ed25519, 32 bytes: the KMS to trust, from the measured launch configuration. */
  readonly kmsIdentity: Bytes
  readonly flow: FlowId
  readonly task: FlowId
  /** This instance's own measurement, 32 bytes. */
  readonly image: Bytes
  readonly random: Random
  readonly clock: Clock
  /** Told what is found out about objects in the store; nothing depends on it. */
  readonly found?: Finding
  /**
   * What of an older image’s flow is kept; all of it unless told. `later`: the flow stays the older image’s, for a rehearsal that
   * reads what there is.
   */
  readonly migrate?: Migrate | 'later'
}

export interface OpenedFlow {
  readonly flow: Flow
  /** Its calls with an idempotency key. */
  readonly calls: IdempotentCalls
  readonly recovery: {
    /**
     * `stale`: what the store showed, in place of the newest state, since an operator accepted that. `migrated`: an older image’s
     * flow, whichever of its states.
     */
    readonly kind: 'fresh' | 'recovered' | 'stale' | 'migrated'
    /** True when a crash had left a checkpoint that nobody acknowledged, and it was taken over. */
    readonly adopted: boolean
    /** The epoch that the flow starts from; 1 when fresh. */
    readonly epoch: number
  }
  /** Zero-fills every key and cached secret. The flow refuses all calls from then on. Safe to repeat. */
  wipe(): void
}

/**
 * Opens a flow: proves this instance to the KMS, recovers the state or makes the flow's first, and takes the flow over.
 * Order and crash cases: docs/adr/0003-commit-order.md.
 * @throws {KeyriseError} ERR_ROLLBACK, ERR_FORK, ERR_STATE_LOST, ERR_LEDGER_ROLLED_BACK, ERR_LEDGER_CONFLICT, ERR_FENCED, ERR_FLOW_DESTROYED,
 * ERR_KMS_UNREACHABLE, ERR_KMS_UNTRUSTED, ERR_EVIDENCE_REFUSED, ERR_POLICY_DENIED, ERR_STORE_*.
 * Crash: at any point, safe to repeat.
 */
export const openFlow = async (options: FlowOptions): Promise<OpenedFlow> => {
  const {
    store,
    kms: channel,
    kmsStore,
    commits,
    segments,
    attester,
    kmsIdentity,
    clock,
    random,
    flow,
    task,
    image,
  } = options
  const { found = () => undefined } = options
  const identity = { flow, task, image }
  const kms = new KmsClient({ channel, commits, attester, kmsIdentity, clock, flow, task, image, store: kmsStore })
  try {
    const ports = { identity, store, kms, originKey: () => kms.originKey(), kmsIdentity, random, found }
    const recovered = await recover(ports)
    const { kind, adopted, migratesFrom } = recovered
    if (migratesFrom !== undefined && options.migrate !== 'later') {
      const migrated = await migrateFlow(ports, { ...recovered, migratesFrom }, options.migrate)
      const live = new LiveFlow({ ...ports, segments, clock, recovered: migrated })
      return opened(live, { kind: 'migrated', adopted, epoch: live.epoch })
    }
    const live = new LiveFlow({ ...openingPorts(ports), segments, clock, recovered })
    // Until a commit holds it, no later launch would take it for the flow's state.
    if (kind === 'stale' && !adopted) await restate(live)
    return opened(live, { kind, adopted, epoch: live.epoch })
  } catch (error) {
    kms[Symbol.dispose]()
    throw error
  }
}

const opened = (live: LiveFlow, recovery: OpenedFlow['recovery']): OpenedFlow => ({
  flow: live,
  calls: LiveFlow.callsOf(live),
  recovery,
  wipe: () => live.wipe(),
})
const restate = async (live: LiveFlow): Promise<void> => {
  try {
    await LiveFlow.restate(live)
  } catch (error) {
    live.wipe()
    throw error
  }
}
