import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import { equalHeads, type Head } from '../protocol/session.js'
import type { MakeReceipt } from './log.js'

/** What the KMS knows of a flow: enough to tell its newest state from any other, and its live instance from any older. */
export interface FlowState {
  readonly task: FlowId
  /** Measurement of the image that opened the flow, 32 bytes: no other recovers it. */
  readonly image: Bytes
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
  /** Makes `next` the state, durably, if it is still `expected`; false when it is not. Both or neither with its receipt. */
  compareAndSwap(
    flow: FlowId,
    expected: FlowState | undefined,
    next: FlowState,
    receipt?: MakeReceipt,
  ): Promise<boolean>
  /** Adds a receipt, durably. */
  record(receipt: MakeReceipt): Promise<void>
  /** Makes what a member publishes durable, in place of what it published before. */
  publish(flow: FlowId, publication: Publication): Promise<void>
  /** The members of a task that have published, destroyed flows left out, in the order of their names. */
  members(task: FlowId): Promise<readonly Member[]>
}

export const equalStates = (a: FlowState | undefined, b: FlowState | undefined): boolean =>
  a === undefined || b === undefined
    ? a === b
    : a.task === b.task &&
      equalPublicBytes(a.image, b.image) &&
      equalHeads(a.head, b.head) &&
      a.incarnation === b.incarnation &&
      a.destroyed === b.destroyed &&
      a.staleAccepted === b.staleAccepted
