import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { SessionOpening, type Session } from '../protocol/crypto/session.js'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import {
  decodeKmsReply,
  decodeParts,
  encodeKmsRequest,
  type KmsReplies,
  type KmsRequest,
  type Parts,
} from '../protocol/kms.js'
import { STORE_ERROR_CODES, type Attester, type Clock, type CommitChannel, type KmsChannel } from '../protocol/ports.js'

/** Of what the store has to take first. */
const PUT_DEADLINE_MS = 30_000
/** Hundreds of unwraps behind those of others take seconds; a dead KMS is noticed by the channel, long before. */
const EXCHANGE_DEADLINE_MS = 30_000
/** Between attempts: long enough for a KMS that is being restarted, short enough for a caller to wait. */
export const RETRY_DELAYS_MS = [50, 200, 800, 2000] as const

/** Failures after which nobody knows what the KMS did, and a new session may succeed. */
const TRANSIENT: readonly ErrorCode[] = ['ERR_KMS_UNREACHABLE', 'ERR_SESSION_INVALID', 'ERR_KMS_FAILED']
/** What a KMS may say before there is a session. Unauthenticated: a host can say it too, and gains a refusal by it. */
const REFUSALS: readonly ErrorCode[] = [...TRANSIENT, 'ERR_EVIDENCE_REFUSED', 'ERR_POLICY_DENIED', 'ERR_KMS_UNTRUSTED']

export const sleep = (clock: Clock, delayMs: number): Promise<void> =>
  new Promise((resolve) => void clock.timer(delayMs, resolve))

export const isTransient = (error: unknown): boolean => isKeyriseError(error, ...TRANSIENT)

export interface KmsSessionOptions {
  readonly channel: KmsChannel
  readonly commits: CommitChannel
  readonly attester: Attester
  /** Ed25519, 32 bytes. */
  readonly kmsIdentity: Bytes
  readonly clock: Clock
}

/** An answer: views into a frame that is zero-filled when its reader returns. */
export interface SessionAnswer extends Parts {
  readonly handshakeDigest: Bytes
  /** SHA-256 of the evidence that the session was opened with. */
  readonly evidenceDigest: Bytes
}

/** An object that the KMS is told of once it is durable. */
export interface ObjectFirst {
  readonly name: string
  readonly bytes: Bytes
  /** Whether the store is known to have it. */
  isDurable: boolean
  /** Called while the host is busy with it: for work that need not wait. */
  readonly meanwhile: () => void
}

/** How a request is made. */
export interface AskOptions {
  /** False: one attempt, so that an outcome that is unknown is not changed by asking. */
  readonly repeatable: boolean
  /** Goes first in every new session; its answer to `greeted`. Undefined where the request is it. */
  readonly greeting?: { readonly request: Uint8Array; readonly greeted: (answer: SessionAnswer) => void }
  /** Put before the request goes, unless it is durable. @throws {KeyriseError} ERR_STORE_*: it may have become durable all the same. */
  readonly first?: ObjectFirst | undefined
}

/** A session, and the digest of the evidence that opened it. */
interface Attested {
  readonly session: Session
  readonly evidenceDigest: Bytes
}

/**
 * Attested sessions with one KMS, opened when needed and opened anew when lost. One request is in flight at a time, because
 * a session's frames open in order. Whether a lost request took effect, only its repetition tells.
 */
export class KmsSessions {
  readonly #options: KmsSessionOptions
  #attested: Attested | undefined
  #turn: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: KmsSessionOptions) {
    this.#options = options
  }

  /** Sends `request` and gives the answer to `read`, whose result is returned. */
  ask<T>(request: Uint8Array, read: (answer: SessionAnswer) => T, options: AskOptions): Promise<T> {
    const turn = this.#turn.then(async () => {
      const frame = await this.#askRepeatedly(request, options)
      try {
        return read(frame.answer)
      } finally {
        frame.wipe()
      }
    })
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  close(): void {
    this.#closed = true
    this.#drop()
  }

  async #askRepeatedly(request: Uint8Array, { repeatable, greeting, first }: AskOptions): Promise<OpenedFrame> {
    const delaysMs = repeatable ? RETRY_DELAYS_MS : []
    for (let attempt = 0; ; attempt++) {
      try {
        if (this.#closed) throw new KeyriseError('ERR_ENCLAVE_CLOSED')
        if (this.#attested === undefined) {
          this.#attested = await this.#connect()
          if (greeting !== undefined) await this.#greet(this.#attested, greeting)
        }
        return await this.#send(this.#attested, request, first)
      } catch (error) {
        this.#drop()
        const delayMs = delaysMs[attempt]
        if (delayMs === undefined || !isTransient(error)) throw error
        await sleep(this.#options.clock, delayMs)
      }
    }
  }

  async #connect(): Promise<Attested> {
    const { attester, kmsIdentity } = this.#options
    const challenge = await this.#exchange({ op: 'challenge' })
    const opening = await SessionOpening.create(challenge)
    const claimed = await attester.attest({ nonce: opening.evidenceNonce, confirmationKey: opening.enclaveKey })
    const evidence = copyBytes(claimed)
    const { enclaveKey, encapsulated } = opening
    const reply = await this.#exchange({
      op: 'handshake',
      handshake: challenge.handshake,
      enclaveKey,
      encapsulated,
      evidence,
    })
    return { session: await opening.finish({ reply, evidence, kmsIdentity }), evidenceDigest: sha256(evidence) }
  }

  async #greet(attested: Attested, { request, greeted }: NonNullable<AskOptions['greeting']>): Promise<void> {
    const frame = await this.#send(attested, request)
    try {
      greeted(frame.answer)
    } finally {
      frame.wipe()
    }
  }

  async #send({ session, evidenceDigest }: Attested, request: Uint8Array, first?: ObjectFirst): Promise<OpenedFrame> {
    const sealed = await session.seal(request)
    const reply = await this.#exchange({ op: 'call', session: session.id, sealed }, first)
    const frame = await session.open(reply.sealed)
    const answer = { ...decodeParts(frame), handshakeDigest: session.transcriptDigest, evidenceDigest }
    return { answer, wipe: () => frame.fill(0) }
  }

  async #exchange<Op extends 'challenge' | 'handshake' | 'call'>(
    request: KmsRequest & { readonly op: Op },
    first?: ObjectFirst,
  ): Promise<KmsReplies[Op]> {
    const frame = encodeKmsRequest(request)
    const claimed = await (first === undefined || first.isDurable
      ? this.#answer(frame)
      : this.#answerAfter(first, frame))
    try {
      return decodeKmsReply<Op>(request.op, claimed)
    } catch (error) {
      // Inside a session only sealed answers count: whatever the outer frame says, no answer came.
      const believed = request.op === 'call' ? (['ERR_SESSION_INVALID'] as const) : REFUSALS
      throw isKeyriseError(error, ...believed) ? error : new KeyriseError('ERR_KMS_FAILED', { cause: error })
    }
  }

  async #answer(frame: Uint8Array): Promise<Uint8Array> {
    try {
      return await this.#inTime(this.#options.channel.exchange(frame), EXCHANGE_DEADLINE_MS)
    } catch (error) {
      // Whatever the way to the KMS fails with, an answer did not come.
      throw isKeyriseError(error, 'ERR_KMS_UNREACHABLE')
        ? error
        : new KeyriseError('ERR_KMS_UNREACHABLE', { cause: error })
    }
  }

  async #answerAfter(first: ObjectFirst, frame: Uint8Array): Promise<Uint8Array> {
    const { name, bytes } = first
    try {
      const answering = this.#options.commits.commit(name, bytes, frame)
      first.meanwhile()
      const answer = await this.#inTime(answering, PUT_DEADLINE_MS + EXCHANGE_DEADLINE_MS)
      first.isDurable = true
      return answer
    } catch (error) {
      // That the KMS did not answer is said of what was stored before; of all else nobody knows how far it came.
      first.isDurable = isKeyriseError(error, 'ERR_KMS_UNREACHABLE')
      throw isKeyriseError(error, 'ERR_KMS_UNREACHABLE', ...STORE_ERROR_CODES)
        ? error
        : new KeyriseError('ERR_STORE_IO', { cause: error })
    }
  }

  /** @throws {KeyriseError} ERR_DEADLINE. */
  async #inTime(answer: Promise<Uint8Array>, deadlineMs: number): Promise<Uint8Array> {
    let deadline: Disposable | undefined
    const late = new Promise<never>((_resolve, reject) => {
      deadline = this.#options.clock.timer(deadlineMs, () => reject(new KeyriseError('ERR_DEADLINE')))
    })
    try {
      return await Promise.race([answer, late])
    } finally {
      deadline?.[Symbol.dispose]()
    }
  }

  #drop(): void {
    this.#attested?.session.close()
    this.#attested = undefined
  }
}

interface OpenedFrame {
  readonly answer: SessionAnswer
  wipe(): void
}
