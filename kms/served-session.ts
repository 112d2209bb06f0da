import { allocate, concatBytes, copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { encodeParts, type Parts } from '../protocol/kms.js'
import type { FlowId } from '../protocol/names.js'
import {
  decodeSessionRequest,
  encodeSessionError,
  encodeSessionReply,
  type ItemStatus,
  type SessionRequest,
} from '../protocol/session.js'
import { encodeAcknowledgement, type Acknowledged } from '../protocol/statements.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Session } from '../protocol/crypto/session.js'
import type { AttestedImage, FlowCaller, FlowDesk, Opened } from './flow-desk.js'
import type { Release } from './release.js'
import { requestOf, type RequestNote } from './request-note.js'
import type { ErrorOrigin, KmsEvent } from './service.js'
import type { Asked, SessionReceipts } from './session-receipts.js'
import { readStoredHeaders, type HeaderSource } from './stored-headers.js'
import { openStreams, type SessionStreams, type Streams } from './streams.js'
import type { Unsealed } from './unseal.js'

/** Calls of one session that may wait: an enclave sends one at a time, perhaps two. */
const WAITING_COUNT_MAX = 8
const NOTHING = allocate(0)

interface ServedSessionOptions {
  readonly session: Session
  /** The attested caller’s, and what the policy calls it. */
  readonly image: AttestedImage
  readonly imageName: string
  readonly desk: FlowDesk
  readonly release: Release
  readonly streams: Streams
  readonly stores: HeaderSource['stores']
  readonly receipts: SessionReceipts
  readonly onEvent: (event: KmsEvent) => void
  /** Told once, when the session begins to serve a flow. */
  readonly opened: (session: ServedSession, flow: FlowId) => void
  /** Logs an error and says which code may leave. */
  readonly report: (error: unknown, of: ErrorOrigin) => ErrorCode
  /** When it was attested, in milliseconds since the epoch. */
  readonly sinceMs: number
}

/** An attested session, as operators see it. */
export interface SessionView {
  /** The policy's name for the image. */
  readonly image: string
  /** Undefined before it has opened one. */
  readonly flow: FlowId | undefined
  readonly sinceMs: number
  readonly callCount: number
}

/** An attested session. It answers one call after the other, and serves the one flow that its `open` names. */
export class ServedSession {
  readonly #options: ServedSessionOptions
  readonly #image: AttestedImage
  readonly #streams: SessionStreams
  #flow: FlowId | undefined
  #isReleased = false
  #waitingCount = 0
  #callCount = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: ServedSessionOptions) {
    this.#options = options
    this.#image = { ...options.image, measurement: copyBytes(options.image.measurement) }
    this.#streams = options.streams.ofSession()
  }

  /** 16 bytes. */
  get id(): Bytes {
    return this.#options.session.id
  }

  get view(): SessionView {
    const { imageName: image, sinceMs } = this.#options
    return { image, flow: this.#flow, sinceMs, callCount: this.#callCount }
  }

  /** @returns the sealed answer, a coded refusal included. @throws {KeyriseError} ERR_SESSION_INVALID, ERR_CALLS_LIMIT. */
  async call(sealed: Bytes, note?: RequestNote): Promise<Bytes> {
    if (this.#waitingCount >= WAITING_COUNT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
    this.#waitingCount++
    this.#callCount++
    const answered = this.#last.then(() => this.#answer(sealed, note))
    this.#last = answered.catch(() => undefined)
    try {
      return await answered
    } finally {
      this.#waitingCount--
    }
  }

  /** Ends the session’s streams and forgets its keys, after the calls that wait. */
  async close(): Promise<void> {
    await this.#last
    this.#streams.endAll()
    this.#options.session.close()
  }

  async #answer(sealed: Bytes, note: RequestNote | undefined): Promise<Bytes> {
    const request = await this.#options.session.open(sealed)
    const parts = await this.#serve(request, note)
    const plaintext = encodeParts(parts)
    parts.secrets.fill(0)
    try {
      return await this.#options.session.seal(plaintext)
    } finally {
      plaintext.fill(0)
    }
  }

  async #serve(claimed: Bytes, note: RequestNote | undefined): Promise<Parts> {
    let op: SessionRequest['op'] | undefined
    if (note !== undefined) note.image = this.#options.imageName
    try {
      const request = decodeSessionRequest(claimed)
      op = request.op
      if (note !== undefined) note.op = op
      const parts = await this.#dispatch(request, claimed)
      this.#tell(request, note)
      return parts
    } catch (error) {
      await this.#options.receipts.deny(error, { op, ...this.#asked(claimed) })
      const code = this.#options.report(error, { flow: this.#flow, note })
      return { meta: encodeSessionError(code), secrets: NOTHING, proof: NOTHING }
    } finally {
      if (note !== undefined && this.#flow !== undefined) note.flow = this.#flow
    }
  }

  #tell(request: SessionRequest, note: RequestNote | undefined): void {
    const detail = request.op === 'claim' && request.stale ? { detail: 'of a stale state, as accepted' } : {}
    if (note !== undefined) Object.assign(note, detail)
    this.#options.onEvent({
      event: request.op,
      image: this.#options.imageName,
      ...(this.#flow === undefined ? {} : { flow: this.#flow }),
      ...detail,
      ...requestOf(note),
    })
  }

  async #dispatch(request: SessionRequest, claimed: Bytes): Promise<Parts> {
    const { desk, release, receipts } = this.#options
    switch (request.op) {
      case 'open':
        return this.#open(request, claimed)
      case 'claim':
        return this.#claim(request, claimed)
      case 'commit':
        return this.#commit(request, claimed)
      case 'destroy': {
        const receipt = receipts.ofState('destroy', this.#asked(claimed))
        await desk.destroy(this.#caller(), request, receipt.of)
        this.#options.streams.endFlow(this.#caller().flow)
        return plain(encodeSessionReply('destroy', { receipt: receipt.signed() }))
      }
      case 'publish':
        return plain(encodeSessionReply('publish', await desk.publish(this.#caller(), request)))
      case 'roster': {
        const roster = await desk.roster(this.#caller())
        return plain(encodeSessionReply('roster', { roster, signature: release.sign(roster) }))
      }
      case 'stream':
        return this.#stream(request, claimed)
      case 'unwrap':
        return this.#unseal(request, claimed)
      case 'unwrap-stored':
        return this.#unsealStored(request, claimed)
    }
  }

  async #open(request: Extract<SessionRequest, { op: 'open' }>, claimed: Bytes): Promise<Parts> {
    if (this.#flow !== undefined && this.#flow !== request.flow)
      throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'the session serves another flow' })
    const { desk, release, receipts } = this.#options
    const receipt = receipts.ofState('open', { claimed, flow: request.flow })
    const state = await desk.open(request, this.#image, receipt.of)
    if (this.#flow === undefined) this.#options.opened(this, request.flow)
    this.#flow = request.flow
    // What was refused here never gets further; with no head there was nothing to release yet.
    this.#isReleased ||= state.head !== null
    const certificates = release.certificates(desk.keyIdOf(request.flow))
    const meta = encodeSessionReply('open', { certificates, ...state, receipt: receipt.signed() })
    return { meta, secrets: this.#originKeys(request.flow, state), proof: NOTHING }
  }

  #originKeys(flow: FlowId, { migratesFrom, predecessors }: Opened): Bytes {
    const images = [this.#image.measurement, ...(migratesFrom === null ? [] : [migratesFrom.image]), ...predecessors]
    const keys = images.map((image) => this.#options.release.originKey({ flow, image }))
    const secrets = concatBytes(...keys)
    for (const key of keys) key.fill(0)
    return secrets
  }

  async #claim(request: Extract<SessionRequest, { op: 'claim' }>, claimed: Bytes): Promise<Parts> {
    const { desk, receipts } = this.#options
    const receipt = receipts.ofState('claim', this.#asked(claimed))
    const state = await desk.claim(this.#caller(), request, receipt.of)
    const { incarnation } = state
    this.#isReleased = true
    const acknowledgement = this.#acknowledge(state)
    return plain(encodeSessionReply('claim', { incarnation, acknowledgement, receipt: receipt.signed() }))
  }

  async #commit(request: Extract<SessionRequest, { op: 'commit' }>, claimed: Bytes): Promise<Parts> {
    const { desk, receipts } = this.#options
    const receipt = receipts.ofState('migration', this.#asked(claimed))
    let signed: Bytes | undefined
    // Signing takes as long as a part of the sync: what is signed before it ends leaves after it, or never.
    const sign = (state: Acknowledged): void => {
      try {
        signed = this.#acknowledge(state)
      } catch {
        // The KMS is being sealed, which is said below.
      }
    }
    const state = await desk.commit(this.#caller(), request, receipt.of, sign)
    const acknowledgement = signed ?? this.#acknowledge(state)
    return plain(encodeSessionReply('commit', { acknowledgement, receipt: receipt.signedIfAny() }))
  }

  /** It leaves only once the state is durable: an enclave keeps it, and holds it against every later ledger. */
  #acknowledge(state: Acknowledged): Bytes {
    return this.#options.release.sign(encodeAcknowledgement(this.#caller().flow, state))
  }

  async #unseal(request: Extract<SessionRequest, { op: 'unwrap' }>, claimed: Bytes): Promise<Parts> {
    const { receipt, unsealed, epoch } = await this.#unsealWithReceipt('unwrap', request.headers, claimed)
    const meta = encodeSessionReply('unwrap', { items: unsealed.items, epoch, receipt })
    return this.#proven(claimed, meta, { ...unsealed, epoch })
  }

  /** Unwraps as `unwrap` does what a registered store has of the headers: here the host relays none of them. */
  async #unsealStored(request: Extract<SessionRequest, { op: 'unwrap-stored' }>, claimed: Bytes): Promise<Parts> {
    const { flow } = this.#caller()
    const { stores, report } = this.#options
    const found = await readStoredHeaders(
      { stores, failed: (error) => void report(error, { flow }) },
      { ...request, flow },
    )
    const headers = found.filter((header) => header !== undefined)
    const { receipt, unsealed, epoch } = await this.#unsealWithReceipt('unwrap', headers, claimed)
    const opened = unsealed.items.values()
    const items = found.map((header) => (header && opened.next().value) ?? NOT_STORED)
    const meta = encodeSessionReply('unwrap-stored', { items, epoch, receipt })
    return this.#proven(claimed, meta, { ...unsealed, epoch })
  }

  /** Unwraps as `unwrap` does; but the file keys stay here, and a stream and its delivery key go out for each. */
  async #stream(request: Extract<SessionRequest, { op: 'stream' }>, claimed: Bytes): Promise<Parts> {
    const caller = this.#caller()
    const headers = request.items.map(({ header }) => header)
    const { receipt, unsealed, epoch } = await this.#unsealWithReceipt('stream', headers, claimed, request.done)
    try {
      // The flow may have been destroyed meanwhile, which ended the streams that there were.
      await this.#options.desk.admit(caller)
    } catch (error) {
      unsealed.secrets.fill(0)
      throw error
    }
    const opened = openStreams(this.#streams, caller.flow, request.items, unsealed)
    const meta = encodeSessionReply('stream', { items: opened.items, epoch, receipt })
    return this.#proven(claimed, meta, { ...opened, epoch })
  }

  /** Opens headers for the caller, whose receipt is durable when this resolves. The caller zero-fills the secrets. */
  async #unsealWithReceipt(
    kind: 'unwrap' | 'stream',
    headers: readonly Bytes[],
    claimed: Bytes,
    done: readonly Bytes[] = [],
  ): Promise<{ receipt: Bytes; unsealed: Unsealed; epoch: number }> {
    const { desk, release, receipts } = this.#options
    const caller = this.#caller()
    const state = await desk.admit(caller)
    for (const id of done) this.#streams.end(id)
    const unsealed = await release.unseal(state.sealer, kind, headers)
    try {
      const opened = { headers, items: unsealed.items }
      const receipt = await receipts.ofOpened(kind, this.#asked(claimed), state, opened)
      return { receipt, unsealed, epoch: state.head?.epoch ?? 0 }
    } catch (error) {
      unsealed.secrets.fill(0)
      throw error
    }
  }

  /** An answer to the request `claimed`, with a proof by each root key that opened something for it. */
  #proven(claimed: Bytes, meta: Bytes, { items, secrets, epoch }: Unsealed & { readonly epoch: number }): Parts {
    const { release, session } = this.#options
    const proof = release.prove(items, {
      handshakeDigest: session.transcriptDigest,
      requestDigest: sha256(claimed),
      metaDigest: sha256(meta),
      secretsDigest: sha256(secrets),
      epoch,
    })
    return { meta, secrets, proof }
  }

  #asked(claimed: Bytes): Asked {
    return { claimed, flow: this.#flow }
  }

  #caller(): FlowCaller {
    if (this.#flow === undefined) throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'open a flow first' })
    return { flow: this.#flow, image: this.#image, isReleased: this.#isReleased }
  }
}

const NOT_STORED: ItemStatus = { key: null, error: 'ERR_STATE_LOST', sizeBytes: 0 }

const plain = (meta: Bytes): Parts => ({ meta, secrets: NOTHING, proof: NOTHING })
