import type { Bytes } from '../protocol/bytes.js'
import { DELIVERY_KEY_SIZE } from '../protocol/crypto/delivery.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import { verifyProof } from '../protocol/crypto/root-public.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isErrorCode, isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { FlowId, StoreId } from '../protocol/names.js'
import type { StoredHeader } from '../protocol/sealed-pair.js'
import { STORED_HEADER_COUNT_MAX } from '../protocol/limits.js'
import { digestOfItems, isReceiptKind } from '../protocol/receipts.js'
import {
  decodeSessionReply,
  encodeSessionRequest,
  equalHeads,
  type Head,
  type ItemStatus,
  type OpenReply,
  type SessionReplies,
  type SessionRequest,
  type StreamItem,
  type StreamStatus,
} from '../protocol/session.js'
import {
  decodeCertificateBody,
  decodeProofs,
  encodeAcknowledgement,
  isAhead,
  splitCertificate,
  type Acknowledged,
  type RootCertificate,
} from '../protocol/statements.js'
import { OwnReceipts } from './own-receipts.js'
import { KmsSessions, type KmsSessionOptions, type ObjectFirst, type SessionAnswer } from './kms-session.js'

/** Who holds a flow, as the ledger says. */
export interface LedgerState {
  readonly head: Head | null
  /** 0 when nobody ever did. */
  readonly incarnation: number
  /** An operator lets this recovery take what the store shows. */
  readonly staleAccepted: boolean
}

/** What became of one item of a batch: its bytes, which the caller disposes of, or why there are none. */
export type Opened = Secret | KeyriseError

/** A header, and where the flow’s store has it. */
export type UnwrappedHeader = Pick<StoredHeader, 'name' | 'bytes'>

/** A payload’s way through the KMS. */
export interface PayloadStream {
  /** 16 bytes. */
  readonly id: Bytes
  /** Seals what is delivered. The caller disposes of it. */
  readonly key: Secret
}

const ORIGIN_KEY_SIZE_BYTES = 32

/** An image, its SVN as far as it is known, and the key that tags what it seals for the flow. */
export interface SealerKey {
  readonly image: Bytes
  readonly svn: number
  readonly key: Secret
}

export interface KmsClientOptions extends KmsSessionOptions {
  readonly flow: FlowId
  readonly task: FlowId
  /** This instance’s own measurement, 32 bytes. */
  readonly image: Bytes
  /** A store that the KMS reads headers in itself; the host relays what is not there, or all of them. */
  readonly store?: StoreId | undefined
}

/** What one flow asks of its KMS. Every answer is verified before any of it is used. */
export class KmsClient implements Disposable {
  readonly #sessions: KmsSessions
  readonly #kmsIdentity: Bytes
  readonly #flow: FlowId
  readonly #task: FlowId
  readonly #store: StoreId | undefined
  readonly #receipts: OwnReceipts
  #certificates: readonly RootCertificate[] = []
  #originKey: Secret | undefined
  #migratesFrom: SealerKey | undefined
  #predecessors: readonly SealerKey[] = []
  /** The newest: of the claim that made this instance the holder, then of each of its commits. */
  #acknowledged: (Acknowledged & { readonly signature: Bytes }) | undefined
  /** What the ledger held when it was last asked. */
  #seen: Acknowledged | undefined

  constructor(options: KmsClientOptions) {
    this.#sessions = new KmsSessions(options)
    this.#receipts = new OwnReceipts(options)
    this.#kmsIdentity = options.kmsIdentity
    this.#flow = options.flow
    this.#task = options.task
    this.#store = options.store
  }

  /** The root key to seal to: the first that the KMS names, certified by its identity. Known once `open` was answered. */
  get rootKey(): RootCertificate {
    const [newest] = this.#certificates
    if (newest === undefined) throw new KeyriseError('ERR_KEY_UNKNOWN', { detail: 'the KMS names no root key' })
    return newest
  }

  /** A copy of the key that tags what this image seals for this flow. Known once `open` was answered. */
  originKey(): Secret {
    if (this.#originKey === undefined) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'no origin key' })
    return this.#originKey.clone()
  }

  /** The image that has the flow, which this instance takes over; undefined where it is its own, as from its first commit on. */
  get migratesFrom(): Omit<SealerKey, 'key'> | undefined {
    return this.#migratesFrom
  }

  /** A copy of the key that tagged what the image that has the flow sealed for it. */
  migratingKey(): Secret {
    if (this.#migratesFrom === undefined) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'no migration' })
    return this.#migratesFrom.key.clone()
  }

  /** Of images that had the flow before that one, the newest first, each with a copy of its key. */
  predecessors(): SealerKey[] {
    return this.#predecessors.map(({ image, svn, key }) => ({ image, svn, key: key.clone() }))
  }

  /** The flow is this image’s: a commit of its own is durable. */
  tookOver(): void {
    if (this.#migratesFrom === undefined) return
    this.#predecessors = [this.#migratesFrom, ...this.#predecessors]
    this.#migratesFrom = undefined
  }

  /** The KMS’s signature over the ledger’s head and this instance’s incarnation, 64 bytes. Known once a claim succeeded. */
  get acknowledgement(): Bytes {
    if (this.#acknowledged === undefined) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'nothing acknowledged' })
    return this.#acknowledged.signature
  }

  /** The KMS’s newest receipts of what this instance was given and has changed, oldest first: body and signature each. */
  get receipts(): Bytes[] {
    return this.#receipts.newest()
  }

  /** Changes nothing, but for making the flow known at its first launch. @throws {KeyriseError} ERR_LEDGER_ROLLED_BACK. */
  open(): Promise<LedgerState> {
    return this.#sessions.ask(this.#openRequest(), (answer) => this.#opened(answer), { repeatable: true })
  }

  /**
   * Takes the flow over. Never repeated blindly: success changes what it compares.
   * @param stale - that an operator accepted it is made use of.
   * @returns the new incarnation. @throws {KeyriseError} ERR_LEDGER_CONFLICT.
   */
  async claim(
    seen: LedgerState,
    adopt: (Head & { readonly incarnation: number }) | null,
    stale = false,
  ): Promise<number> {
    const head = adopt ? headOf(adopt) : seen.head
    const request = { op: 'claim', head: seen.head, incarnation: seen.incarnation, adopt, stale } as const
    const { incarnation, acknowledgement } = await this.#ask(request, {
      repeatable: false,
      stateOf: (reply) => ({ head, incarnation: reply.incarnation }),
    })
    this.#keepAcknowledgement({ head, incarnation }, acknowledgement)
    return incarnation
  }

  /**
   * Repeating a commit that took effect succeeds. One that takes the flow over from another image has its receipt.
   * @param first - what `head` is of, where the store may not have it yet.
   * @throws {KeyriseError} ERR_FENCED, ERR_LEDGER_CONFLICT, ERR_KMS_UNTRUSTED; ERR_STORE_*, as `AskOptions.first`.
   */
  async commit(incarnation: number, parent: Head | null, head: Head, first?: ObjectFirst): Promise<void> {
    const { acknowledgement } = await this.#ask(
      { op: 'commit', incarnation, parent, head },
      { repeatable: true, stateOf: () => ({ head, incarnation }), first },
    )
    this.#keepAcknowledgement({ head, incarnation }, acknowledgement)
  }

  /** The file keys that `headers` wrap, by whichever way the KMS gets them: the answers are the same (M13). */
  async unwrap(headers: readonly UnwrappedHeader[]): Promise<Opened[]> {
    const opened = await this.#unwrapStored(headers)
    const lacking = headers.filter((_, index) => isLacking(opened[index]))
    if (lacking.length === 0) return opened
    try {
      const bytes = lacking.map((header) => header.bytes)
      const relayed = (await this.#askToOpen({ op: 'unwrap', headers: bytes }, bytes, justOpened)).values()
      return opened.map((item) => (isLacking(item) ? (relayed.next().value ?? item) : item))
    } catch (error) {
      for (const item of opened) if (item instanceof Secret) item[Symbol.dispose]()
      throw error
    }
  }

  /** What the KMS finds of `headers` in the store that it was told to look in; ERR_STATE_LOST for the others. */
  async #unwrapStored(headers: readonly UnwrappedHeader[]): Promise<Opened[]> {
    const nothing = headers.map(() => new KeyriseError('ERR_STATE_LOST'))
    if (this.#store === undefined || headers.length > STORED_HEADER_COUNT_MAX) return nothing
    const references = headers.map(({ name, bytes }) => ({ name, digest: sha256(bytes) }))
    const request = { op: 'unwrap-stored', store: this.#store, headers: references } as const
    try {
      return await this.#askToOpen(
        request,
        headers.map(({ bytes }) => bytes),
        justOpened,
      )
    } catch (error) {
      // Its operator has taken the store off the list. The KMS’s log says so; the host’s way is still there.
      if (isKeyriseError(error, 'ERR_STORE_UNKNOWN')) return nothing
      throw error
    }
  }

  /**
   * Streams for the payloads of `items`, whose segments then come outside the session.
   * @param done - ids of streams that the KMS may forget.
   */
  stream(items: readonly StreamItem[], done: readonly Bytes[]): Promise<(PayloadStream | KeyriseError)[]> {
    const headers = items.map(({ header }) => header)
    return this.#askToOpen({ op: 'stream', items, done }, headers, joinStreams)
  }

  /** @throws {KeyriseError} ERR_FENCED: what a newer instance published stays. */
  async publish(incarnation: number, signingKey: Bytes, values: Readonly<Record<string, Bytes>>): Promise<void> {
    await this.#ask({ op: 'publish', incarnation, signingKey, values })
  }

  /** Not verified yet. */
  roster(): Promise<SessionReplies['roster']> {
    return this.#ask({ op: 'roster' })
  }

  async destroy(incarnation: number): Promise<void> {
    await this.#ask({ op: 'destroy', incarnation })
  }

  [Symbol.dispose](): void {
    this.#sessions.close()
    this.#disposeKeys()
  }

  #disposeKeys(): void {
    this.#originKey?.[Symbol.dispose]()
    this.#originKey = undefined
    for (const { key } of [...this.#predecessors, ...(this.#migratesFrom === undefined ? [] : [this.#migratesFrom])])
      key[Symbol.dispose]()
    this.#predecessors = []
    this.#migratesFrom = undefined
  }

  /** @param options.stateOf - the state that the receipt of the reply has to be of; undefined where any that is not behind will do. */
  #ask<Op extends keyof SessionReplies>(
    request: SessionRequest & { readonly op: Op },
    options: {
      readonly repeatable: boolean
      readonly stateOf?: (reply: SessionReplies[Op]) => Acknowledged
      readonly first?: ObjectFirst | undefined
    } = { repeatable: true },
  ): Promise<SessionReplies[Op]> {
    const bytes = encodeSessionRequest(request)
    const read = (answer: SessionAnswer): SessionReplies[Op] => {
      const reply = decodeSessionReply<Op>(request.op, answer.meta)
      const kind: string = request.op === 'commit' ? 'migration' : request.op
      if ('receipt' in reply && reply.receipt !== null && isReceiptKind(kind)) {
        const state = options.stateOf?.(reply)
        this.#receipts.take(reply.receipt, { kind, request: bytes, answer, state, reached: this.#reached })
      } else if (request.op === 'commit' && this.#migratesFrom !== undefined) {
        // Where the answer to an earlier attempt was lost, the session after it opened the flow as this image's own.
        throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: 'a migration without a receipt' })
      }
      return reply
    }
    const { repeatable, first } = options
    return this.#sessions.ask(bytes, read, { repeatable, first, greeting: this.#greeting() })
  }

  #askToOpen<Op extends 'unwrap' | 'unwrap-stored' | 'stream', T>(
    request: SessionRequest & { readonly op: Op },
    headers: readonly Bytes[],
    join: (statuses: SessionReplies[Op]['items'], opened: Opened[]) => T[],
  ): Promise<T[]> {
    const bytes = encodeSessionRequest(request)
    const read = (answer: SessionAnswer): T[] => {
      const { items, epoch, receipt } = decodeSessionReply<Op>(request.op, answer.meta)
      if (items.length !== headers.length)
        throw new KeyriseError('ERR_KMS_FAILED', { detail: 'another number of items' })
      this.#verifyProofs(bytes, answer, items, epoch)
      this.#checkEpoch(epoch)
      const released = headers.filter((_, index) => items[index]?.error === null)
      const opened = { count: released.length, digest: digestOfItems(released) }
      const kind = request.op === 'stream' ? 'stream' : 'unwrap'
      this.#receipts.take(receipt, { kind, request: bytes, answer, reached: this.#reached, opened })
      return join(items, splitSecrets(items, answer.secrets))
    }
    return this.#sessions.ask(bytes, read, { repeatable: true, greeting: this.#greeting() })
  }

  /** The newest state that the KMS has told of. */
  get #reached(): Acknowledged | undefined {
    return this.#acknowledged ?? this.#seen
  }

  /** Says under which incarnation this instance holds the flow: its own recovery was released to it, and is no new one. */
  #openRequest(): Bytes {
    const holds = this.#acknowledged?.incarnation ?? 0
    return encodeSessionRequest({ op: 'open', flow: this.#flow, task: this.#task, holds })
  }

  #greeting() {
    return {
      request: this.#openRequest(),
      greeted: (answer: SessionAnswer) => void this.#opened(answer),
    }
  }

  #opened(answer: SessionAnswer): LedgerState {
    const reply: OpenReply = decodeSessionReply('open', answer.meta)
    const { migratesFrom, predecessors } = reply
    const sealers = [
      ...(migratesFrom === null ? [] : [migratesFrom]),
      ...predecessors.map((image) => ({ image, svn: 0 })),
    ]
    if (answer.secrets.length !== ORIGIN_KEY_SIZE_BYTES * (1 + sealers.length))
      throw new KeyriseError('ERR_KMS_FAILED', { detail: 'no origin key' })
    this.#receipts.take(reply.receipt, { kind: 'open', request: this.#openRequest(), answer, state: reply })
    this.#certificates = reply.certificates.map((claimed) => this.#verifyCertificate(claimed))
    this.#disposeKeys()
    const [own, ...keys] = splitOriginKeys(answer.secrets)
    this.#originKey = own
    const known = sealers.flatMap((sealer, index) => {
      const key = keys[index]
      return key === undefined ? [] : [{ ...sealer, key }]
    })
    this.#migratesFrom = migratesFrom === null ? undefined : known.shift()
    this.#predecessors = known
    const { head, incarnation, staleAccepted } = reply
    const ledger = { head, incarnation, staleAccepted }
    if (this.#acknowledged !== undefined && isAhead(this.#acknowledged, ledger))
      throw ledgerRolledBack(this.#acknowledged, ledger)
    this.#seen = ledger
    return ledger
  }

  #keepAcknowledgement(acknowledged: Acknowledged, signature: Bytes): void {
    if (!verifyEd25519(this.#kmsIdentity, encodeAcknowledgement(this.#flow, acknowledged), signature))
      throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: 'an acknowledgement' })
    this.#acknowledged = { ...acknowledged, signature }
  }

  /** What was opened was opened for a flow that is no older than this instance knows it to be. */
  #checkEpoch(epoch: number): void {
    const acknowledged = this.#acknowledged?.head?.epoch ?? 0
    if (epoch < acknowledged)
      throw new KeyriseError('ERR_LEDGER_ROLLED_BACK', {
        detail: `it acknowledged epoch ${acknowledged} and opened for epoch ${epoch}`,
      })
  }

  #verifyCertificate(claimed: Uint8Array): RootCertificate {
    const { body, signature } = splitCertificate(claimed)
    if (!verifyEd25519(this.#kmsIdentity, body, signature))
      throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: 'a certificate' })
    return decodeCertificateBody(body)
  }

  /** M12: whatever a root key opened is proved by that key's origin half, over this session, request and reply. */
  #verifyProofs(request: Uint8Array, answer: SessionAnswer, items: readonly ItemStatus[], epoch: number): void {
    const parts = {
      handshakeDigest: answer.handshakeDigest,
      requestDigest: sha256(request),
      metaDigest: sha256(answer.meta),
      secretsDigest: sha256(answer.secrets),
      epoch,
    }
    const proofs = decodeProofs(answer.proof)
    for (const key of new Set(items.flatMap((item) => item.key ?? []))) {
      const certificate = this.#certificates.find((known) => known.key === key)
      const proof = proofs.find((claimed) => claimed.key === key)
      const proved = certificate && proof && verifyProof(certificate, parts, proof.signature)
      if (proved !== true) throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: `no proof by ${key}` })
    }
  }
}

/** Why a ledger that acknowledged `newer` and now says `ledger` is not believed. */
export const ledgerRolledBack = (newer: Acknowledged, ledger: Acknowledged): KeyriseError => {
  const say = ({ head, incarnation }: Acknowledged): string => `epoch ${head?.epoch ?? 0}, incarnation ${incarnation}`
  const isOther = newer.head?.epoch === ledger.head?.epoch && !equalHeads(newer.head, ledger.head)
  const now = isOther ? `another epoch ${ledger.head?.epoch ?? 0}` : say(ledger)
  return new KeyriseError('ERR_LEDGER_ROLLED_BACK', { detail: `it acknowledged ${say(newer)} and has ${now}` })
}

const headOf = ({ epoch, digest }: Head): Head => ({ epoch, digest })

const splitOriginKeys = (secrets: Uint8Array): Secret[] =>
  Array.from({ length: secrets.length / ORIGIN_KEY_SIZE_BYTES }, (_, index) =>
    Secret.take(secrets.subarray(index * ORIGIN_KEY_SIZE_BYTES, (index + 1) * ORIGIN_KEY_SIZE_BYTES)),
  )

const splitSecrets = (items: readonly ItemStatus[], secrets: Uint8Array): Opened[] => {
  const sizeBytes = items.reduce((sum, item) => sum + item.sizeBytes, 0)
  if (sizeBytes !== secrets.length) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'other sizes' })
  const isOpen = (item: ItemStatus): boolean => item.key !== null && item.error === null
  // All are checked before the first is taken, so that a refusal leaves none behind.
  if (items.some((item) => !isOpen(item) && item.sizeBytes !== 0))
    throw new KeyriseError('ERR_KMS_FAILED', { detail: 'bytes of an item that failed' })
  let offset = 0
  return items.map((item) => {
    const bytes = secrets.subarray(offset, (offset += item.sizeBytes))
    if (isOpen(item)) return Secret.take(bytes)
    return new KeyriseError(isErrorCode(item.error) ? item.error : 'ERR_KMS_FAILED')
  })
}

const justOpened = (_statuses: unknown, opened: Opened[]): Opened[] => opened
const isLacking = (opened: Opened | undefined): boolean =>
  !(opened instanceof Secret) && opened?.code === 'ERR_STATE_LOST'

const joinStreams = (statuses: readonly StreamStatus[], opened: Opened[]): (PayloadStream | KeyriseError)[] =>
  opened.map((key, index) => {
    if (!(key instanceof Secret)) return key
    const id = statuses[index]?.stream
    if (id && key.size === DELIVERY_KEY_SIZE) return { id, key }
    for (const secret of opened) if (secret instanceof Secret) secret[Symbol.dispose]()
    throw new KeyriseError('ERR_KMS_FAILED', { detail: 'a stream without its id or key' })
  })
