import { allocate, copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { encodeParts, type Parts } from '../protocol/kms.js'
import type { FlowId } from '../protocol/names.js'
import {
  decodeSessionRequest,
  encodeSessionError,
  encodeSessionReply,
  type SessionRequest,
} from '../protocol/session.js'
import { encodeAcknowledgement, type Acknowledged } from '../protocol/statements.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Session } from '../protocol/crypto/session.js'
import type { FlowCaller, FlowDesk } from './flow-desk.js'
import type { PolicyImage } from './policy.js'
import type { Release } from './release.js'
import type { KmsEvent } from './service.js'
import { openStreams, type SessionStreams, type Streams } from './streams.js'
import type { Unsealed } from './unseal.js'

/** Calls of one session that may wait: an enclave sends one at a time, perhaps two. */
const WAITING_COUNT_MAX = 8
const NOTHING = allocate(0)

interface ServedSessionOptions {
  readonly session: Session
  /** The attested caller’s. */
  readonly image: PolicyImage
  readonly desk: FlowDesk
  readonly release: Release
  readonly streams: Streams
  readonly onEvent: (event: KmsEvent) => void
  /** Logs an error and says which code may leave. */
  readonly report: (error: unknown, flow?: FlowId) => ErrorCode
}

/** An attested session. It answers one call after the other, and serves the one flow that its `open` names. */
export class ServedSession {
  readonly #options: ServedSessionOptions
  readonly #image: Bytes
  readonly #streams: SessionStreams
  #flow: FlowId | undefined
  #waitingCount = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: ServedSessionOptions) {
    this.#options = options
    this.#image = copyBytes(options.image.measurement)
    this.#streams = options.streams.ofSession()
  }

  /** @returns the sealed answer, a coded refusal included. @throws {KeyriseError} ERR_SESSION_INVALID, ERR_CALLS_LIMIT. */
  async call(sealed: Bytes): Promise<Bytes> {
    if (this.#waitingCount >= WAITING_COUNT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
    this.#waitingCount++
    const answered = this.#last.then(() => this.#answer(sealed))
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

  async #answer(sealed: Bytes): Promise<Bytes> {
    const request = await this.#options.session.open(sealed)
    const parts = await this.#serve(request)
    const plaintext = encodeParts(parts)
    parts.secrets.fill(0)
    try {
      return await this.#options.session.seal(plaintext)
    } finally {
      plaintext.fill(0)
    }
  }

  async #serve(claimed: Bytes): Promise<Parts> {
    try {
      const request = decodeSessionRequest(claimed)
      const parts = await this.#dispatch(request, claimed)
      this.#options.onEvent({
        event: request.op,
        image: this.#options.image.name,
        ...(this.#flow === undefined ? {} : { flow: this.#flow }),
        ...(request.op === 'claim' && request.stale ? { detail: 'of a stale state, as accepted' } : {}),
      })
      return parts
    } catch (error) {
      return { meta: encodeSessionError(this.#options.report(error, this.#flow)), secrets: NOTHING, proof: NOTHING }
    }
  }

  async #dispatch(request: SessionRequest, claimed: Bytes): Promise<Parts> {
    const { desk, release } = this.#options
    switch (request.op) {
      case 'open':
        return this.#open(request)
      case 'claim':
        return this.#claim(request)
      case 'commit': {
        const acknowledgement = this.#acknowledge(await desk.commit(this.#caller(), request))
        return plain(encodeSessionReply('commit', { acknowledgement }))
      }
      case 'destroy': {
        const reply = await desk.destroy(this.#caller(), request)
        this.#options.streams.endFlow(this.#caller().flow)
        return plain(encodeSessionReply('destroy', reply))
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
    }
  }

  async #open(request: Extract<SessionRequest, { op: 'open' }>): Promise<Parts> {
    if (this.#flow !== undefined && this.#flow !== request.flow)
      throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'the session serves another flow' })
    const { desk, release } = this.#options
    const state = await desk.open(request, this.#image)
    this.#flow = request.flow
    const meta = encodeSessionReply('open', { certificates: release.certificates, ...state })
    return { meta, secrets: release.originKey(this.#caller()), proof: NOTHING }
  }

  async #claim(request: Extract<SessionRequest, { op: 'claim' }>): Promise<Parts> {
    const state = await this.#options.desk.claim(this.#caller(), request)
    const { incarnation } = state
    return plain(encodeSessionReply('claim', { incarnation, acknowledgement: this.#acknowledge(state) }))
  }

  /** Only of what is durable: an enclave keeps it, and holds it against every later ledger. */
  #acknowledge(state: Acknowledged): Bytes {
    return this.#options.release.sign(encodeAcknowledgement(this.#caller().flow, state))
  }

  async #unseal(request: Extract<SessionRequest, { op: 'unwrap' }>, claimed: Bytes): Promise<Parts> {
    const { desk, release } = this.#options
    await desk.admit(this.#caller())
    const unsealed = await release.unseal(this.#caller(), 'unwrap', request.headers)
    return this.#proven(claimed, encodeSessionReply('unwrap', { items: unsealed.items }), unsealed)
  }

  /** Unwraps as `unwrap` does; but the file keys stay here, and a stream and its delivery key go out for each. */
  async #stream(request: Extract<SessionRequest, { op: 'stream' }>, claimed: Bytes): Promise<Parts> {
    const { desk, release } = this.#options
    const caller = this.#caller()
    await desk.admit(caller)
    for (const id of request.done) this.#streams.end(id)
    const unsealed = await release.unseal(
      caller,
      'stream',
      request.items.map(({ header }) => header),
    )
    try {
      // The flow may have been destroyed meanwhile, which ended the streams that there were.
      await desk.admit(caller)
    } catch (error) {
      unsealed.secrets.fill(0)
      throw error
    }
    const opened = openStreams(this.#streams, caller.flow, request.items, unsealed)
    return this.#proven(claimed, encodeSessionReply('stream', { items: opened.items }), opened)
  }

  /** An answer to the request `claimed`, with a proof by each root key that opened something for it. */
  #proven(claimed: Bytes, meta: Bytes, { items, secrets }: Unsealed): Parts {
    const { release, session } = this.#options
    const proof = release.prove(items, {
      handshakeDigest: session.transcriptDigest,
      requestDigest: sha256(claimed),
      metaDigest: sha256(meta),
      secretsDigest: sha256(secrets),
    })
    return { meta, secrets, proof }
  }

  #caller(): FlowCaller {
    if (this.#flow === undefined) throw new KeyriseError('ERR_REQUEST_INVALID', { detail: 'open a flow first' })
    return { flow: this.#flow, image: this.#image }
  }
}

const plain = (meta: Bytes): Parts => ({ meta, secrets: NOTHING, proof: NOTHING })
