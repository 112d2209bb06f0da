import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import { equalHeads, type Head, type OpenReply, type SessionReplies, type SessionRequest } from '../protocol/session.js'
import { encodeRoster, type Acknowledged } from '../protocol/statements.js'
import { type FlowState, type Ledger, type Member } from './ledger.js'
import type { MakeReceipt } from './log.js'
import { findImage, type Policy } from './policy.js'

type Request<Op extends SessionRequest['op']> = Extract<SessionRequest, { op: Op }>

/** An attested caller and the flow that it opened. */
export interface FlowCaller {
  readonly flow: FlowId
  /** Measurement of its image. */
  readonly image: Bytes
}

/** The receipt of what is done, of the state that it is done to. It is durable together with that, or before an answer. */
export type ReceiptOf = (state: Acknowledged) => MakeReceipt

const ROSTER_SIZE_BYTES_MAX = 1024 * 1024
const PUBLISHED_COUNT_MAX = 16

/** What a flow may do, and what it becomes: every rule of freshness is here, every swap goes to the ledger. */
export class FlowDesk {
  readonly #ledger: Ledger
  readonly #policy: Policy
  /** Publications are read, joined and written one after the other. */
  #publishing: Promise<unknown> = Promise.resolve()

  constructor(ledger: Ledger, policy: Policy) {
    this.#ledger = ledger
    this.#policy = policy
  }

  /** Makes a flow known at its first launch; later only for the image and task that opened it. */
  async open(
    { flow, task }: Request<'open'>,
    image: Bytes,
    receiptOf: ReceiptOf,
  ): Promise<Omit<OpenReply, 'certificates' | 'receipt'>> {
    findImage(this.#policy, image)
    const known = await this.#ledger.read(flow)
    if (known !== undefined) {
      this.#admit(known, image)
      if (known.task !== task)
        throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'the flow belongs to another task' })
      await this.#ledger.record(receiptOf(known))
      return { incarnation: known.incarnation, head: known.head, staleAccepted: known.staleAccepted }
    }
    const born: FlowState = { task, image, head: null, incarnation: 0, destroyed: false, staleAccepted: false }
    await this.#swap(flow, undefined, born, receiptOf(born))
    return { incarnation: 0, head: null, staleAccepted: false }
  }

  /** Refuses a caller whose flow is no longer its own to read. @returns the flow’s state. */
  async admit({ flow, image }: FlowCaller): Promise<Acknowledged> {
    return acknowledge(await this.#read(flow, image))
  }

  /**
   * The one compare-and-swap of a recovery: the newest claim holds the flow, older instances are fenced from here on.
   * @returns what is durable now, for the KMS identity to sign.
   */
  async claim(
    { flow, image }: FlowCaller,
    { head, incarnation, adopt, stale }: Request<'claim'>,
    receiptOf: ReceiptOf,
  ): Promise<Acknowledged> {
    const state = await this.#read(flow, image)
    if (incarnation !== state.incarnation || !equalHeads(head, state.head)) return refuse('ERR_LEDGER_CONFLICT')
    if (stale && !state.staleAccepted) return refuse('ERR_LEDGER_CONFLICT')
    const next = adopt === null ? claimed(state, stale) : stale ? adoptStale(state, adopt) : adoptHonest(state, adopt)
    await this.#swap(flow, state, next, receiptOf(next))
    return acknowledge(next)
  }

  /**
   * Moves the head by one. Repeating the commit that is recorded succeeds: its answer may have been lost.
   * @returns as `claim`.
   */
  async commit({ flow, image }: FlowCaller, { incarnation, parent, head }: Request<'commit'>): Promise<Acknowledged> {
    const state = await this.#readHeld(flow, image, incarnation)
    if (head.epoch !== epochOf(parent) + 1) return refuse('ERR_REQUEST_INVALID')
    if (equalHeads(head, state.head)) return acknowledge(state)
    if (!equalHeads(parent, state.head)) return refuse('ERR_LEDGER_CONFLICT')
    const next = { ...state, head, staleAccepted: false }
    await this.#swap(flow, state, next)
    return acknowledge(next)
  }

  async destroy({ flow, image }: FlowCaller, { incarnation }: Request<'destroy'>, receiptOf: ReceiptOf): Promise<void> {
    const state = await this.#readHeld(flow, image, incarnation)
    await this.#swap(flow, state, { ...state, destroyed: true }, receiptOf(state))
  }

  /** Adds to what the flow has published, for the instance that holds it. Its signing key stays what it was. */
  publish(caller: FlowCaller, request: Request<'publish'>): Promise<SessionReplies['publish']> {
    const published = this.#publishing.then(() => this.#publish(caller, request))
    this.#publishing = published.catch(() => undefined)
    return published
  }

  /** The members of the caller’s task, for the KMS identity to sign. */
  async roster({ flow, image }: FlowCaller): Promise<Bytes> {
    const { task } = await this.#readClaimed(flow, image)
    return this.#encodeRoster(task, await this.#ledger.members(task))
  }

  async #publish(
    { flow, image }: FlowCaller,
    { incarnation, signingKey, values }: Request<'publish'>,
  ): Promise<SessionReplies['publish']> {
    const state = await this.#readHeld(flow, image, incarnation)
    const members = await this.#ledger.members(state.task)
    const published = members.find((member) => member.flow === flow)
    if (published !== undefined && !equalPublicBytes(published.signingKey, signingKey))
      return refuse('ERR_LEDGER_CONFLICT')
    const next: Member = { flow, state, signingKey, values: { ...published?.values, ...values } }
    const roster = this.#encodeRoster(state.task, [...members.filter((member) => member !== published), next])
    if (Object.keys(next.values).length > PUBLISHED_COUNT_MAX || roster.length > ROSTER_SIZE_BYTES_MAX)
      return refuse('ERR_SIZE_LIMIT')
    await this.#ledger.publish(flow, next)
    return {}
  }

  /** Peers see only members whose image the policy still lists, under the name that it gives them. */
  #encodeRoster(task: FlowId, members: readonly Member[]): Bytes {
    const listed = members.flatMap(({ flow, state, signingKey, values }) => {
      const image = this.#policy.images.find(({ measurement }) => equalPublicBytes(measurement, state.image))
      return image === undefined
        ? []
        : [{ flow, image: image.name, measurement: state.image, signingKey, published: values }]
    })
    return encodeRoster(task, listed)
  }

  async #read(flow: FlowId, image: Bytes): Promise<FlowState> {
    const state = await this.#ledger.read(flow)
    if (state === undefined) return refuse('ERR_REQUEST_INVALID')
    this.#admit(state, image)
    return state
  }

  async #readHeld(flow: FlowId, image: Bytes, incarnation: number): Promise<FlowState> {
    const state = await this.#read(flow, image)
    if (incarnation > state.incarnation || incarnation === 0) return refuse('ERR_REQUEST_INVALID')
    return incarnation === state.incarnation ? state : refuse('ERR_FENCED')
  }

  async #readClaimed(flow: FlowId, image: Bytes): Promise<FlowState> {
    const state = await this.#read(flow, image)
    return state.incarnation > 0 ? state : refuse('ERR_REQUEST_INVALID')
  }

  #admit(state: FlowState, image: Bytes): void {
    if (!equalPublicBytes(state.image, image))
      throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'another image opened the flow' })
    if (state.destroyed) refuse('ERR_FLOW_DESTROYED')
  }

  async #swap(flow: FlowId, expected: FlowState | undefined, next: FlowState, receipt?: MakeReceipt): Promise<void> {
    if (!(await this.#ledger.compareAndSwap(flow, expected, next, receipt))) refuse('ERR_LEDGER_CONFLICT')
  }
}

const refuse = (code: ErrorCode): never => {
  throw new KeyriseError(code)
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
