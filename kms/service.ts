import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError, outsideCode, type ErrorCode } from '../protocol/errors.js'
import type { Claims } from '../protocol/evidence.js'
import { decodeKmsRequest, encodeKmsError, encodeKmsReply, type KmsReplies, type KmsRequest } from '../protocol/kms.js'
import type { FlowId } from '../protocol/names.js'
import type { Clock, KmsChannel, Random, Store } from '../protocol/ports.js'
import type { SessionRequest } from '../protocol/session.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { SessionOffer } from '../protocol/crypto/session.js'
import { Denials } from './denials.js'
import { ExpiringTable } from './expiring-table.js'
import { FlowDesk } from './flow-desk.js'
import { FlowSessions } from './flow-sessions.js'
import type { Keyring } from './keyring.js'
import type { Ledger } from './ledger.js'
import { findImage, type Policy } from './policy.js'
import { Receipts } from './receipts.js'
import { describeFault, requestOf, type RequestNote } from './request-note.js'
import { Release } from './release.js'
import { ServedSession, type SessionView } from './served-session.js'
import { SessionReceipts } from './session-receipts.js'
import { Streams } from './streams.js'
import type { Unsealer } from './unseal.js'
import type { Verifier } from './verifier.js'

/** What happened, for the operator’s log: names and codes, nothing secret. */
export interface KmsEvent {
  readonly event: 'handshake' | SessionRequest['op'] | 'rewrap' | 'policy' | 'refused' | 'failed'
  readonly flow?: FlowId
  readonly image?: string
  readonly code?: ErrorCode
  readonly detail?: string
  /** Of the HTTP request that it happened in. */
  readonly request?: string
}

/** Who gets keys: what decides whether evidence is true, and what such evidence is good for. */
export interface Rules {
  readonly verifier: Pick<Verifier, 'appraise'>
  readonly policy: Policy
}

export interface KmsServiceOptions extends Rules {
  readonly keyring: Keyring
  readonly ledger: Ledger
  readonly unsealer: Unsealer
  /** Stores that the operator registered, by id, where it reads headers that enclaves refer to. */
  readonly stores?: ReadonlyMap<string, Store>
  readonly random: Random
  readonly clock: Clock
  readonly onEvent?: (event: KmsEvent) => void
}

const OFFER_COUNT_MAX = 4096
const OFFER_IDLE_MS_MAX = 60_000
const SESSION_COUNT_MAX = 16_384
const SESSION_IDLE_MS_MAX = 60 * 60_000

/**
 * A KMS behind one call: a frame in, a frame out. It answers every frame, hostile ones with a code; what went wrong inside
 * goes to `onEvent` only.
 */
export class KmsService implements KmsChannel {
  /** Of what this KMS does. */
  readonly receipts: Receipts
  readonly #options: KmsServiceOptions
  readonly #denials: Denials
  readonly #desk: FlowDesk
  readonly #release: Release
  readonly #offers: ExpiringTable<SessionOffer>
  readonly #sessions: ExpiringTable<ServedSession>
  readonly #ofFlows = new FlowSessions<ServedSession>(({ id }) => this.#sessions.end(id))
  readonly #streams: Streams
  #rules: Rules
  #isOpen = true
  readonly #underWay = new Set<Promise<unknown>>()

  constructor(options: KmsServiceOptions) {
    this.#options = options
    this.#rules = options
    const { keyring, ledger, policy, unsealer, random, clock } = options
    this.receipts = new Receipts({ ledger, signer: keyring, clock })
    this.#denials = new Denials({ receipts: this.receipts, clock, failed: (error) => void this.report(error) })
    this.#desk = new FlowDesk({ ledger, policy, identity: keyring.identity, clock })
    this.#release = new Release(keyring, unsealer)
    this.#streams = new Streams({ unsealer, random, clock })
    this.#offers = new ExpiringTable({
      countMax: OFFER_COUNT_MAX,
      idleMsMax: OFFER_IDLE_MS_MAX,
      clock,
      drop: () => undefined,
    })
    this.#sessions = new ExpiringTable({
      countMax: SESSION_COUNT_MAX,
      idleMsMax: SESSION_IDLE_MS_MAX,
      clock,
      drop: (session) => {
        this.#ofFlows.delete(session)
        void session.close()
      },
    })
  }

  /** @param note - what the request was is written into it. */
  exchange(frame: Uint8Array, note?: RequestNote): Promise<Bytes> {
    const answered = this.#answerAny(frame, note).finally(() => this.#underWay.delete(answered))
    this.#underWay.add(answered)
    return answered
  }

  /** The keyring has changed. Every session ends, so that enclaves open another and are told which root keys there are now. */
  renew(): void {
    this.#release.renew()
    this.#sessions.clear()
  }

  /** The rules are others now. Every session ends, since it was let in by the ones before. */
  govern(rules: Rules): void {
    this.#rules = rules
    this.#desk.govern(rules.policy)
    this.#sessions.clear()
  }

  /** Attested sessions that have not expired, the one unused for longest first. */
  get sessions(): SessionView[] {
    return this.#sessions.values().map(({ view }) => view)
  }

  /** Answers what is under way, then ends every session. */
  async close(): Promise<void> {
    this.#isOpen = false
    await Promise.allSettled(this.#underWay)
    await this.#denials.flush()
    this.#offers.clear()
    this.#sessions.clear()
    this.#streams.clear()
    this.#release.forget()
  }

  async #answerAny(frame: Uint8Array, note?: RequestNote): Promise<Bytes> {
    try {
      if (!this.#isOpen) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'closed' })
      const request = decodeKmsRequest(frame)
      if (note !== undefined) note.op = request.op
      if (request.op !== 'segment') return encodeKmsReply(await this.#answer(request, note))
      return await this.#streams.segment(request.stream, request.index, request.sealed)
    } catch (error) {
      return encodeKmsError(this.report(error, { note }))
    }
  }

  async #answer(
    request: Exclude<KmsRequest, { op: 'segment' }>,
    note: RequestNote | undefined,
  ): Promise<KmsReplies[Exclude<keyof KmsReplies, 'segment'>]> {
    switch (request.op) {
      case 'identity':
        return { identity: this.#options.keyring.identity, ready: true }
      case 'challenge': {
        const offer = await SessionOffer.create(this.#options.random)
        this.#offers.put(offer.challenge.handshake, offer)
        return offer.challenge
      }
      case 'handshake':
        return this.#shakeHands(request, note)
      case 'call': {
        const session = this.#sessions.use(request.session)
        if (session === undefined) throw new KeyriseError('ERR_SESSION_INVALID')
        this.#ofFlows.use(session)
        return { sealed: await session.call(request.sealed, note) }
      }
    }
  }

  async #shakeHands(
    request: Extract<KmsRequest, { op: 'handshake' }>,
    note: RequestNote | undefined,
  ): Promise<KmsReplies['handshake']> {
    // Taken before anything is verified: an offer is good for one attempt.
    const offer = this.#offers.take(request.handshake)
    if (offer === undefined) throw new KeyriseError('ERR_SESSION_INVALID', { detail: 'no such handshake' })
    const { keyring, random, onEvent, stores = new Map<string, Store>() } = this.#options
    const evidenceDigest = sha256(request.evidence)
    const { claims, name } = await this.#admit(request, offer, evidenceDigest)
    const { session, reply } = await offer.accept(request, { sign: (transcript) => keyring.sign(transcript), random })
    const served = new ServedSession({
      session,
      image: { measurement: claims.measurement, svn: claims.svn, signed: claims.signed },
      imageName: name,
      desk: this.#desk,
      release: this.#release,
      streams: this.#streams,
      stores,
      receipts: new SessionReceipts(this.receipts, this.#denials, {
        measurement: copyBytes(claims.measurement),
        evidenceDigest,
      }),
      onEvent: (event) => onEvent?.(event),
      opened: (opened, flow) => this.#ofFlows.add(flow, opened),
      report: (error, of) => this.report(error, of),
      sinceMs: this.#options.clock.nowMs(),
    })
    this.#sessions.put(session.id, served)
    if (note !== undefined) note.image = name
    onEvent?.({ event: 'handshake', image: name, ...requestOf(note) })
    return reply
  }

  /** What the evidence says, and what the policy calls the image. A refusal leaves a receipt. */
  async #admit(
    { evidence, encapsulated, enclaveKey }: Extract<KmsRequest, { op: 'handshake' }>,
    offer: SessionOffer,
    evidenceDigest: Bytes,
  ): Promise<{ readonly claims: Claims; readonly name: string }> {
    const { policy, verifier } = this.#rules
    let measurement: Bytes | undefined
    try {
      const expected = { nonce: offer.evidenceNonce(encapsulated), confirmationKey: enclaveKey }
      const claims = await verifier.appraise(evidence, expected)
      measurement = claims.measurement
      return { claims, name: findImage(policy, claims).name }
    } catch (error) {
      const known = measurement === undefined ? {} : { measurement }
      await this.#denials.deny('stranger', error, { operation: 'handshake', evidenceDigest, ...known })
      throw error
    }
  }

  /** The code that may leave; the operator’s log gets the rest. */
  report(error: unknown, { flow, note }: ErrorOrigin = {}): ErrorCode {
    const inside = isKeyriseError(error) ? error.code : undefined
    const code = inside !== undefined && MAY_LEAVE.has(inside) ? outsideCode(inside) : 'ERR_KMS_FAILED'
    const fault = describeFault(error)
    if (note !== undefined) Object.assign(note, { code: inside ?? code, ...fault })
    this.#options.onEvent?.({
      event: code === 'ERR_KMS_FAILED' ? 'failed' : 'refused',
      code: inside ?? code,
      ...(flow === undefined ? {} : { flow }),
      detail: fault.detail,
      ...requestOf(note),
    })
    return code
  }
}

/** Where an error happened. */
export interface ErrorOrigin {
  readonly flow?: FlowId | undefined
  readonly note?: RequestNote | undefined
}

/** What a caller may learn. All else, a full disk or a damaged ledger, is the KMS’s own affair: ERR_KMS_FAILED. */
const MAY_LEAVE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_REQUEST_INVALID',
  'ERR_NAME_INVALID',
  'ERR_CBOR_INVALID',
  'ERR_SIZE_LIMIT',
  'ERR_CALLS_LIMIT',
  'ERR_SESSION_INVALID',
  'ERR_STORE_UNKNOWN',
  'ERR_ENVELOPE_INVALID',
  'ERR_EVIDENCE_REFUSED',
  'ERR_POLICY_DENIED',
  'ERR_APPROVAL_NEEDED',
  'ERR_LEDGER_CONFLICT',
  'ERR_FENCED',
  'ERR_FORK',
  'ERR_FLOW_DESTROYED',
])
