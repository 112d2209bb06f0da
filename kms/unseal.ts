import type { KeyObject } from 'node:crypto'
import { parseHeader, type Header } from '../protocol/age-header.js'
import { allocate, copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { FlowId } from '../protocol/names.js'
import type { ItemStatus } from '../protocol/session.js'
import { openPayloadOf, unwrapHeader, verifyOrigin, type Origin } from '../protocol/crypto/envelope.js'
import { x25519Identity, type Identity } from '../protocol/crypto/recipients.js'
import { Secret } from '../protocol/crypto/secret.js'

/** What a thread that unseals holds: private keys as KeyObjects, which cross to a worker without their bytes being seen. */
export interface UnsealKeys {
  /** The KMS identity: whose origin tags count. */
  readonly authority: Bytes
  readonly rootKeys: readonly { readonly key: string; readonly privateKey: KeyObject }[]
}

/** Items of one flow. `unwrap`: headers, whose file keys come back; `bulk`: whole envelopes, whose plaintexts do. */
export interface UnsealTask {
  readonly kind: 'unwrap' | 'bulk'
  readonly items: readonly Bytes[]
  readonly flow: FlowId
  readonly image: Bytes
  readonly originKey: KeyObject
}

export interface Unsealed {
  readonly items: readonly ItemStatus[]
  /** What opened, one after the other; the caller zero-fills it. */
  readonly secrets: Bytes
}

/** Unseals somewhere: on this thread, or on a pool. */
export interface Unsealer {
  /** @throws {KeyriseError} ERR_CALLS_LIMIT: too much waits already; ERR_KMS_FAILED. */
  unseal(task: UnsealTask): Promise<Unsealed>
  close(): Promise<void>
}

/**
 * Opens each item, or says that it does not open. An item is released only after an enclave of this flow and image is proven
 * to have sealed it; why one does not open stays here.
 */
export const unsealItems = (keys: UnsealKeys, { kind, items, flow, image, originKey }: UnsealTask): Unsealed => {
  using originSecret = Secret.take(originKey.export())
  const origin: Origin = { authority: keys.authority, key: originSecret }
  const identities = keys.rootKeys.map(({ key, privateKey }) => ({ key, identity: x25519Identity(privateKey) }))
  const opened = items.map((item) => tryOpen(() => openItem(item, kind, { identities, flow, image, origin })))
  const secrets = joinAndWipe(opened.map(({ secret }) => secret))
  return { items: opened.map(({ status }) => status), secrets }
}

/** Unseals on the calling thread. */
export class InlineUnsealer implements Unsealer {
  readonly #keys: UnsealKeys

  constructor(keys: UnsealKeys) {
    this.#keys = keys
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the interface is asynchronous for the pool’s sake
  async unseal(task: UnsealTask): Promise<Unsealed> {
    return unsealItems(this.#keys, task)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** Results of parts of one request, in order, as one. The parts are zero-filled. */
export const joinUnsealed = (parts: readonly Unsealed[]): Unsealed => ({
  items: parts.flatMap(({ items }) => items),
  secrets: joinAndWipe(parts.map(({ secrets }) => secrets)),
})

const joinAndWipe = (parts: readonly Uint8Array[]): Bytes => {
  const whole = allocate(parts.reduce((size, part) => size + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
    part.fill(0)
  }
  return whole
}

interface Context {
  readonly identities: readonly { readonly key: string; readonly identity: Identity }[]
  readonly flow: FlowId
  readonly image: Bytes
  readonly origin: Origin
}
interface Opened {
  readonly status: ItemStatus
  readonly secret: Uint8Array
}

const NOTHING = new Uint8Array(0)

const tryOpen = (open: () => Opened): Opened => {
  try {
    return open()
  } catch (error) {
    const code = isKeyriseError(error) ? 'ERR_ENVELOPE_INVALID' : 'ERR_KMS_FAILED'
    return { status: { key: null, error: code, sizeBytes: 0 }, secret: NOTHING }
  }
}

const openItem = (item: Bytes, kind: UnsealTask['kind'], { identities, flow, image, origin }: Context): Opened => {
  const header = parseHeader(item)
  const { key, fileKey } = unwrapByAny(header, identities)
  using _ = fileKey
  const context = verifyOrigin(header, fileKey, origin)
  if (context.flow !== flow || !equalPublicBytes(context.image, image)) throw new KeyriseError('ERR_CONTEXT_MISMATCH')
  const secret = kind === 'unwrap' ? fileKey.expose(copyBytes) : openPayloadOf(item, fileKey).plaintext
  return { status: { key, error: null, sizeBytes: secret.length }, secret }
}

/** The file key, and which root key gave it. */
const unwrapByAny = (header: Header, identities: Context['identities']): { key: string; fileKey: Secret } => {
  for (const { key, identity } of identities) {
    try {
      return { key, fileKey: unwrapHeader(header, [identity]) }
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_IDENTITY_MISMATCH')) throw error
    }
  }
  throw new KeyriseError('ERR_IDENTITY_MISMATCH')
}
