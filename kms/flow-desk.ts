import { equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { PREDECESSOR_COUNT_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { Clock } from '../protocol/ports.js'
import { equalHeads, type Head, type OpenReply, type SessionReplies, type SessionRequest } from '../protocol/session.js'
import { encodeRoster, type Acknowledged } from '../protocol/statements.js'
import type { FlowState, Ledger, Member } from './ledger.js'
import type { MakeReceipt } from './log.js'
import { countReleases, isGranted, type ApprovalContext } from './approvals.js'
import { findImage, imageName, isUpgrade, keyIdOf, type KnownImage, type Policy } from './policy.js'

type Request<Op extends SessionRequest['op']> = Extract<SessionRequest, { op: Op }>

/** An attested caller and the flow that it opened. */
export interface FlowCaller {
  readonly flow: FlowId
  readonly image: AttestedImage
  /** What it recovers was released to it: it holds the flow, or approvers agreed where the policy asks them. */
  readonly isReleased: boolean
}

export type AttestedImage = KnownImage & { readonly measurement: Bytes }

/** Who sealed what a caller may open: itself, or the image that it takes the flow over from. */
export interface Sealer {
  readonly flow: FlowId
  /** A measurement. */
  readonly image: Bytes
}

/** The receipt of what is done, of the state that it is done to. It is durable together with that, or before an answer. */
export type ReceiptOf = (state: Acknowledged) => MakeReceipt

/** What `open` finds: all of an `OpenReply` but certificates and receipt. */
export type Opened = Omit<OpenReply, 'certificates' | 'receipt'>

export interface FlowDeskOptions {
  readonly ledger: Ledger
  readonly policy: Policy
  /** The KMS’s, 32 bytes: which grants and approvals are for it. */
  readonly identity: Bytes
  readonly clock: Clock
}

/** What a flow is at, and who sealed what its caller may open. */
export interface Admitted extends Acknowledged {
  readonly sealer: Sealer
}

const ROSTER_SIZE_BYTES_MAX = 1024 * 1024
const PUBLISHED_COUNT_MAX = 16

/** What a flow may do, and what it becomes: every rule of freshness is here, every swap goes to the ledger. */
export class FlowDesk {
  readonly #o: FlowDeskOptions
  #policy: Policy
  /** Publications are read, joined and written one after the other. */
  #publishing: Promise<unknown> = Promise.resolve()

  constructor(options: FlowDeskOptions) {
    this.#o = options
    this.#policy = options.policy
  }

  /** From here on this policy decides. */
  govern(policy: Policy): void {
    this.#policy = policy
  }

  /**
   * Makes a flow known at its first launch; later only for its task, and for the image that has it or one that may take it over.
   * @throws {KeyriseError} ERR_POLICY_DENIED, ERR_FLOW_DESTROYED, ERR_APPROVAL_NEEDED, ERR_FENCED.
   */
  async open({ flow, task, holds }: Request<'open'>, image: AttestedImage, receiptOf: ReceiptOf): Promise<Opened> {
    findImage(this.#policy, image, flow)
    const known = await this.#o.ledger.read(flow)
    const born: FlowState = {
      task,
      image: image.measurement,
      svn: image.svn,
      signed: image.signed,
      predecessors: [],
      head: null,
      incarnation: 0,
      destroyed: false,
      staleAccepted: false,
    }
    if (known === undefined) await this.#swap(flow, undefined, born, receiptOf(born))
    const state = known ?? born
    this.#admit(flow, state, image)
    if (state.task !== task) throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'the flow belongs to another task' })
    if (!isHolder(state, holds)) this.#assertReleased(flow, state, image, holds)
    if (known !== undefined) await this.#o.ledger.record(receiptOf(known))
    const { incarnation, head, staleAccepted, predecessors } = state
    const migratesFrom = isOf(state, image) ? null : { image: state.image, svn: state.svn }
    return { incarnation, head, staleAccepted, migratesFrom, predecessors }
  }

  /** The id of the root key that the flow seals to. */
  keyIdOf(flow: FlowId): string {
    return keyIdOf(this.#policy, flow)
  }

  /** Who sealed what the caller may open now. Refuses a caller whose flow is no longer its own to read. */
  async admit(caller: FlowCaller): Promise<Admitted> {
    const state = await this.#read(caller)
    return { ...acknowledge(state), sealer: { flow: caller.flow, image: state.image } }
  }

  /**
   * The one compare-and-swap of a recovery: the newest claim holds the flow, older instances are fenced from here on.
   * @returns what is durable now, for the KMS identity to sign.
   */
  async claim(
    caller: FlowCaller,
    { head, incarnation, adopt, stale }: Request<'claim'>,
    receiptOf: ReceiptOf,
  ): Promise<Acknowledged> {
    const { flow, image } = caller
    const state = await this.#read(caller)
    if (incarnation !== state.incarnation || !equalHeads(head, state.head)) return refuse('ERR_LEDGER_CONFLICT')
    if (stale && !state.staleAccepted) return refuse('ERR_LEDGER_CONFLICT')
    const taken = adopt === null ? claimed(state, stale) : stale ? adoptStale(state, adopt) : adoptHonest(state, adopt)
    // Until a commit of its own, a newer image holds a flow that is still the older image’s.
    const next = isOf(state, image) ? { ...taken, svn: image.svn, signed: image.signed } : taken
    await this.#swap(flow, state, next, receiptOf(next))
    return acknowledge(next)
  }

  /**
   * Moves the head by one. Repeating the commit that is recorded succeeds: its answer may have been lost. With its first commit an
   * image that takes a flow over has it, and the one before gets nothing any more: of that alone there is a receipt.
   * @param expecting - may be told what will be returned while that is being made durable.
   * @returns as `claim`.
   */
  async commit(
    caller: FlowCaller,
    { incarnation, parent, head }: Request<'commit'>,
    receiptOf: ReceiptOf,
    expecting?: (state: Acknowledged) => void,
  ): Promise<Acknowledged> {
    const { flow, image } = caller
    const state = await this.#readHeld(caller, incarnation)
    if (head.epoch !== epochOf(parent) + 1) return refuse('ERR_REQUEST_INVALID')
    if (equalHeads(head, state.head)) return acknowledge(state)
    if (!equalHeads(parent, state.head)) return refuse('ERR_LEDGER_CONFLICT')
    const next = { ...passOn(state, image), head, staleAccepted: false }
    const receipt = isOf(state, image) ? undefined : receiptOf(next)
    await this.#swap(flow, state, next, receipt, expecting && (() => expecting(acknowledge(next))))
    return acknowledge(next)
  }

  async destroy(caller: FlowCaller, { incarnation }: Request<'destroy'>, receiptOf: ReceiptOf): Promise<void> {
    const state = await this.#readHeld(caller, incarnation)
    await this.#swap(caller.flow, state, { ...state, destroyed: true }, receiptOf(state))
  }

  /** Adds to what the flow has published, for the instance that holds it. Its signing key stays what it was. */
  publish(caller: FlowCaller, request: Request<'publish'>): Promise<SessionReplies['publish']> {
    const published = this.#publishing.then(() => this.#publish(caller, request))
    this.#publishing = published.catch(() => undefined)
    return published
  }

  /** The members of the caller’s task, for the KMS identity to sign. */
  async roster(caller: FlowCaller): Promise<Bytes> {
    const { task } = await this.#readClaimed(caller)
    return this.#encodeRoster(task, await this.#o.ledger.members(task))
  }

  async #publish(
    caller: FlowCaller,
    { incarnation, signingKey, values }: Request<'publish'>,
  ): Promise<SessionReplies['publish']> {
    const { flow } = caller
    const state = await this.#readHeld(caller, incarnation)
    const members = await this.#o.ledger.members(state.task)
    const published = members.find((member) => member.flow === flow)
    if (published !== undefined && !equalPublicBytes(published.signingKey, signingKey))
      return refuse('ERR_LEDGER_CONFLICT')
    const next: Member = { flow, state, signingKey, values: { ...published?.values, ...values } }
    const roster = this.#encodeRoster(state.task, [...members.filter((member) => member !== published), next])
    if (Object.keys(next.values).length > PUBLISHED_COUNT_MAX || roster.length > ROSTER_SIZE_BYTES_MAX)
      return refuse('ERR_SIZE_LIMIT')
    await this.#o.ledger.publish(flow, next)
    return {}
  }

  /** Peers see only members whose image the policy still lists, under the name that it gives them. */
  #encodeRoster(task: FlowId, members: readonly Member[]): Bytes {
    const listed = members.flatMap(({ flow, state, signingKey, values }) => {
      const { image: measurement, svn, signed } = state
      const name = imageName(this.#policy, { measurement, svn, signed }, flow)
      return name === undefined ? [] : [{ flow, image: name, measurement, signingKey, published: values }]
    })
    return encodeRoster(task, listed)
  }

  async #read({ flow, image, isReleased }: FlowCaller): Promise<FlowState> {
    const state = await this.#o.ledger.read(flow)
    if (state === undefined) return refuse('ERR_REQUEST_INVALID')
    this.#admit(flow, state, image)
    if (!isReleased) this.#assertReleased(flow, state, image, 0)
    return state
  }

  async #readHeld(caller: FlowCaller, incarnation: number): Promise<FlowState> {
    const state = await this.#read(caller)
    if (incarnation > state.incarnation || incarnation === 0) return refuse('ERR_REQUEST_INVALID')
    return incarnation === state.incarnation ? state : refuse('ERR_FENCED')
  }

  async #readClaimed(caller: FlowCaller): Promise<FlowState> {
    const state = await this.#read(caller)
    return state.incarnation > 0 ? state : refuse('ERR_REQUEST_INVALID')
  }

  #admit(flow: FlowId, state: FlowState, image: AttestedImage): void {
    findImage(this.#policy, image, flow)
    if (!isOf(state, image) && !this.#mayTakeOver(flow, state, image))
      throw new KeyriseError('ERR_POLICY_DENIED', {
        detail: 'another image has the flow, and no grant is for this one',
      })
    if (state.destroyed) refuse('ERR_FLOW_DESTROYED')
  }

  #mayTakeOver(flow: FlowId, { image: from, svn, signed }: FlowState, to: AttestedImage): boolean {
    const { ledger } = this.#o
    return (
      isUpgrade(this.#policy, { measurement: from, svn, signed }, to, flow) ||
      isGranted(this.#context(), ledger.approved(), { flow, from, to })
    )
  }

  /** @throws {KeyriseError} ERR_APPROVAL_NEEDED; ERR_FENCED: it was released once, to an instance that is no longer the newest. */
  #assertReleased(flow: FlowId, state: FlowState, { measurement }: AttestedImage, holds: number): void {
    // Nothing was ever acknowledged: there is nothing to release.
    if (state.head === null) return
    const incarnation = state.incarnation + 1
    const wanted = { flow, incarnation, measurement }
    const { count, needed } = countReleases(this.#context(), this.#o.ledger.approved(), wanted)
    if (count >= needed) return
    if (holds > 0) refuse('ERR_FENCED')
    throw new KeyriseError('ERR_APPROVAL_NEEDED', {
      detail: `${flow} as incarnation ${incarnation} by ${toHex(measurement)}: ${count} of ${needed} approvals`,
    })
  }

  #context(): ApprovalContext {
    const { identity, clock } = this.#o
    return { policy: this.#policy, identity, nowMs: clock.nowMs() }
  }

  async #swap(
    flow: FlowId,
    expected: FlowState | undefined,
    next: FlowState,
    receipt?: MakeReceipt,
    meanwhile?: () => void,
  ): Promise<void> {
    if (!(await this.#o.ledger.compareAndSwap(flow, expected, next, receipt, meanwhile))) refuse('ERR_LEDGER_CONFLICT')
  }
}

const refuse = (code: ErrorCode): never => {
  throw new KeyriseError(code)
}

const isOf = (state: FlowState, image: KnownImage): boolean => equalPublicBytes(state.image, image.measurement)

const isHolder = ({ incarnation }: FlowState, holds: number): boolean => holds > 0 && holds === incarnation

/** The state once `image` has committed to it. */
const passOn = (state: FlowState, image: AttestedImage): FlowState =>
  isOf(state, image)
    ? state
    : {
        ...state,
        image: image.measurement,
        svn: image.svn,
        signed: image.signed,
        predecessors: [state.image, ...state.predecessors].slice(0, PREDECESSOR_COUNT_MAX),
      }

const acknowledge = ({ head, incarnation }: FlowState): Acknowledged => ({ head, incarnation })

const epochOf = (head: Head | null): number => head?.epoch ?? 0

type Adopted = Head & { readonly incarnation: number }

/** The head stays; so does an operator’s acceptance that the claim makes use of, until a commit has moved the head. */
const claimed = (state: FlowState, stale: boolean): FlowState => ({
  ...state,
  incarnation: state.incarnation + 1,
  staleAccepted: stale,
})

/** An epoch that a crash left unacknowledged: right after the head, by an instance that the ledger once issued. */
const adoptHonest = (state: FlowState, { epoch, digest, incarnation }: Adopted): FlowState => {
  const isHonest = epoch === epochOf(state.head) + 1 && incarnation >= 1 && incarnation <= state.incarnation
  if (!isHonest) return refuse('ERR_FORK')
  return { ...claimed(state, false), head: { epoch, digest } }
}

/** A ledger that was rolled back may have issued more incarnations than the store shows: their instances stay fenced. */
const FORGOTTEN_INCARNATION_COUNT_MAX = 1_000_000

/** An epoch that the ledger has forgotten, which an operator accepted: head and incarnation go up, as ever. */
const adoptStale = (state: FlowState, { epoch, digest, incarnation }: Adopted): FlowState => {
  const next = Math.max(state.incarnation, incarnation) + FORGOTTEN_INCARNATION_COUNT_MAX
  if (epoch <= epochOf(state.head) || !Number.isSafeInteger(next)) return refuse('ERR_FORK')
  return { ...state, head: { epoch, digest }, incarnation: next, staleAccepted: false }
}
