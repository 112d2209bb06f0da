import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { ImageSigner } from '../protocol/image-signature.js'
import type { FlowId } from '../protocol/names.js'
import { equalHeads, type Head } from '../protocol/session.js'
import type { Approved } from './approvals.js'
import type { MakeReceipt } from './log.js'

/** What the KMS knows of a flow: enough to tell its newest state from any other, and its live instance from any older. */
export interface FlowState {
  readonly task: FlowId
  /** Measurement of the image that has the flow, 32 bytes: another recovers it only where the policy or a grant lets it. */
  readonly image: Bytes
  /** That image’s security version number; 0 where the ledger is of a time before it was written down. */
  readonly svn: number
  /** Who answers for that image, as the evidence said; null where nobody does, or the ledger is as old as that. */
  readonly signed: ImageSigner | null
  /** Images that had the flow before, the newest first, up to PREDECESSOR_COUNT_MAX: 32 bytes each. */
  readonly predecessors: readonly Bytes[]
  /** The last committed epoch; null before the first. */
  readonly head: Head | null
  /** The instance that holds the flow; 0 before the first claim. */
  readonly incarnation: number
  /** A tombstone: nothing of the flow opens again. */
  readonly destroyed: boolean
  /** An operator lets the next recovery take what the store shows, until the head has moved: accept-stale.ts. */
  readonly staleAccepted: boolean
}

/** What a member of a task made known to the others. */
export interface Publication {
  /** Ed25519, 32 bytes. */
  readonly signingKey: Bytes
  readonly values: Readonly<Record<string, Bytes>>
}

export interface Member extends Publication {
  readonly flow: FlowId
  readonly state: FlowState
}

/** Where flows’ states are kept: monotonic, durable before it answers. An embedded log now, a database later. */
export interface Ledger {
  /** The durable state; undefined when the flow was never opened. */
  read(flow: FlowId): Promise<FlowState | undefined>
  /**
   * Makes `next` the state, durably, if it is still `expected`; false when it is not. Both or neither with its receipt.
   * @param meanwhile - may be called while it is being made durable: for work that need not wait.
   */
  compareAndSwap(
    flow: FlowId,
    expected: FlowState | undefined,
    next: FlowState,
    receipt?: MakeReceipt,
    meanwhile?: () => void,
  ): Promise<boolean>
  /** Adds a receipt, durably. */
  record(receipt: MakeReceipt): Promise<void>
  /** Makes what a member publishes durable, in place of what it published before. */
  publish(flow: FlowId, publication: Publication): Promise<void>
  /** What approvers signed and an operator handed in: migration grants and releases, durable. */
  approved(): readonly Approved[]
  /** The members of a task that have published, destroyed flows left out, in the order of their names. */
  members(task: FlowId): Promise<readonly Member[]>
}

export const equalStates = (a: FlowState | undefined, b: FlowState | undefined): boolean =>
  a === undefined || b === undefined
    ? a === b
    : a.task === b.task &&
      equalPublicBytes(a.image, b.image) &&
      a.svn === b.svn &&
      equalSigners(a.signed, b.signed) &&
      equalLists(a.predecessors, b.predecessors) &&
      equalHeads(a.head, b.head) &&
      a.incarnation === b.incarnation &&
      a.destroyed === b.destroyed &&
      a.staleAccepted === b.staleAccepted

const equalSigners = (a: ImageSigner | null, b: ImageSigner | null): boolean =>
  a === null || b === null ? a === b : a.productId === b.productId && equalPublicBytes(a.signer, b.signer)

const equalLists = (a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean =>
  a.length === b.length && a.every((bytes, index) => equalPublicBytes(bytes, b[index] ?? new Uint8Array(0)))
