import { parseHeader, type Header } from '../protocol/age-header.js'
import { allocate, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { Random, Store } from '../protocol/ports.js'
import {
  deletePair,
  getHeaders,
  headerName,
  pairsAmong,
  payloadName,
  type PairHalves,
  type StoredHeader,
} from '../protocol/sealed-pair.js'
import { unwrapHeader } from '../protocol/crypto/envelope.js'
import { LAYER_TYPE } from '../protocol/crypto/layer-stanza.js'
import { findContextStanza } from '../protocol/crypto/origin.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  openChunks,
  PAYLOAD_NONCE_SIZE,
  PAYLOAD_SIZE_MIN,
  SEALED_CHUNK_SIZE,
} from '../protocol/crypto/payload.js'
import { TAG_SIZE } from '../protocol/crypto/primitives.js'
import type { Identity, Recipient } from '../protocol/crypto/recipients.js'
import { rewrapHeader } from '../protocol/crypto/rewrap.js'
import { rootIdentity, rootKeyObject } from '../protocol/crypto/root-private.js'
import { rootRecipient } from '../protocol/crypto/root-public.js'
import type { Secret } from '../protocol/crypto/secret.js'
import type { Keyring } from './keyring.js'
import { openingKeys, parseKeyName } from './root-keys.js'

/** What became of one pair. `current`: the newest version of its root key alone opened it already. */
export type RewrappedPair =
  | { readonly name: string; readonly status: 'rewrapped' | 'current' }
  | { readonly name: string; readonly status: 'failed'; readonly error: KeyriseError }

export interface RewrapPairsOptions {
  readonly keyring: Keyring
  readonly store: Store
  /** Of the names to rewrap. */
  readonly prefix: string
  readonly random: Random
  /** The id of the root key that what is under a name is for; the one that opens it unless told. */
  readonly keyIdOf?: (name: string) => string
  readonly signal?: AbortSignal
  /** Pairs worked on at once. Each waits for the disk nearly all the time, so that a pool of threads would gain nothing. */
  readonly parallelCount?: number
}

const PARALLEL_COUNT = 16
/** One byte more than a chunk tells whether it is the last. */
const START_SIZE = PAYLOAD_NONCE_SIZE + SEALED_CHUNK_SIZE + 1
const NO_CONTEXT = allocate(0)

/**
 * Gives each pair of a store whose newest header isn't for the newest root key alone a next generation that is: written, read
 * back and opened before the older ones are deleted. Payloads are not written. What is damaged or foreign is reported and left
 * alone. Enclaves may read, write and collect meanwhile; what is written after the list was made waits for the next run.
 * @returns one status for each pair, in order of names; pairs that an enclave deletes meanwhile have none.
 * @throws {KeyriseError} ERR_STORE_*, where the store cannot be listed. The signal's reason.
 * Crash: at any point each pair opens as before; a second run finishes.
 */
export async function* rewrapPairs(options: RewrapPairsOptions): AsyncGenerator<RewrappedPair, void, undefined> {
  const { store, prefix } = options
  const pairs = [...pairsAmong(await store.list(prefix))].sort(([a], [b]) => (a < b ? -1 : 1))
  using rewrapper = new PairRewrapper(options)
  yield* bounded(
    pairs.filter(([, { generations }]) => generations.length > 0),
    options,
    ([name, halves]) => rewrapper.rewrap(name, halves),
  )
  // Later, because an enclave may have been about to write the header.
  yield* bounded(
    pairs.filter(([, { generations }]) => generations.length === 0),
    options,
    async ([name]) => rewrapper.rewrap(name, pairsAmong(await store.list(`${name}.`)).get(name)),
  )
}

/** What `work` makes of each item, in order, with a few at a time under way. */
async function* bounded<T, R>(
  items: readonly T[],
  { signal, parallelCount = PARALLEL_COUNT }: Pick<RewrapPairsOptions, 'signal' | 'parallelCount'>,
  work: (item: T) => Promise<R | undefined>,
): AsyncGenerator<R, void, undefined> {
  const underWay: Promise<R | undefined>[] = []
  try {
    for (let next = 0; next < items.length || underWay.length > 0;) {
      signal?.throwIfAborted()
      while (underWay.length < parallelCount && next < items.length) underWay.push(work(items[next++] as T))
      const done = await underWay.shift()
      if (done !== undefined) yield done
    }
  } finally {
    await Promise.allSettled(underWay)
  }
}

/** A header that opened, and whose file key the payload opens with. */
interface Opened {
  readonly generation: number
  readonly bytes: Bytes
  readonly fileKey: Secret
  readonly context: Uint8Array
  /** The root key that it is to be for. */
  readonly target: Opener
  /** For that one alone. */
  readonly isCurrent: boolean
}

/** A root key that opens, and seals. */
interface Opener {
  readonly id: string
  readonly identity: Identity & Partial<Disposable>
  readonly recipient: Recipient
}

class PairRewrapper implements Disposable {
  readonly #store: Store
  readonly #random: Random
  readonly #keyIdOf: ((name: string) => string) | undefined
  /** The newest first, so that the first of an id is the one to seal to. */
  readonly #openers: readonly Opener[]

  constructor({ store, random, keyring, keyIdOf }: RewrapPairsOptions) {
    this.#store = store
    this.#random = random
    this.#keyIdOf = keyIdOf
    this.#openers = openingKeys(keyring.keys).map((root) => ({
      id: parseKeyName(root.key).id,
      identity: rootIdentity(root.suite, rootKeyObject(root)),
      recipient: rootRecipient(root.certificate),
    }))
  }

  [Symbol.dispose](): void {
    for (const { identity } of this.#openers) identity[Symbol.dispose]?.()
  }

  /** @param halves - as listed; undefined where nothing was. @returns undefined where there is no such pair any more. */
  async rewrap(name: string, halves: PairHalves | undefined): Promise<RewrappedPair | undefined> {
    try {
      return await this.#rewrap(name, halves ?? { hasPayload: false, generations: [] })
    } catch (error) {
      return { name, status: 'failed', error: isKeyriseError(error) ? error : failure('ERR_STORE_IO', name, error) }
    }
  }

  async #rewrap(name: string, listed: PairHalves): Promise<RewrappedPair | undefined> {
    const headers = await getHeaders(this.#store, name, listed.generations)
    const start = await this.#store.read(payloadName(name), 0, START_SIZE)
    if (start === undefined) {
      // An enclave that collects a pair deletes its headers first.
      const left = pairsAmong(await this.#store.list(`${name}.`)).get(name)
      if (left === undefined) return undefined
      throw failure('ERR_STATE_LOST', payloadName(name))
    }
    if (headers.length === 0) {
      const isDamaged = listed.generations.length > 0
      throw failure(isDamaged ? 'ERR_HEADER_MALFORMED' : 'ERR_STATE_LOST', `the header of ${name}`)
    }
    const opened = this.#openAll(name, headers, start)
    try {
      const generations = [...listed.generations, ...headers.map(({ generation }) => generation)]
      return await this.#renew(name, opened, generations, start)
    } finally {
      for (const { fileKey } of opened) fileKey[Symbol.dispose]()
    }
  }

  /** Makes sure that the newest of `generations` is current, and the only one. */
  async #renew(
    name: string,
    [newest, ...others]: readonly [Opened, ...Opened[]],
    generations: readonly number[],
    start: Uint8Array,
  ): Promise<RewrappedPair | undefined> {
    // Whoever knows the file key can make a header of another context: which of them is the flow's, only the enclave can say.
    if (!others.every(({ context }) => equalPublicBytes(context, newest.context)))
      throw failure('ERR_CONTEXT_MISMATCH', `the headers of ${name}`)
    const top = Math.max(...generations)
    const isCurrent = newest.isCurrent && newest.generation === top
    const kept = isCurrent ? top : top + 1
    if (!isCurrent && !(await this.#putNext(name, newest, kept, start))) return undefined
    const older = [...new Set(generations)].filter((generation) => generation < kept)
    await deletePair(this.#store, name, { hasPayload: false, generations: older })
    return { name, status: isCurrent ? 'current' : 'rewrapped' }
  }

  /** Durable and proven when it resolves; false where the pair was deleted meanwhile. */
  async #putNext(name: string, newest: Opened, generation: number, start: Uint8Array): Promise<boolean> {
    const next = headerName(name, generation)
    await this.#store.put(
      next,
      rewrapHeader(newest.bytes, {
        identities: this.#openers.map(({ identity }) => identity),
        recipients: [newest.target.recipient],
        random: this.#random,
      }),
    )
    const bytes = await this.#store.read(next, 0, HEADER_SIZE_BYTES_MAX + 1)
    const opened = bytes && this.#open(name, { name: next, generation, bytes: bytes as Bytes }, start)
    using _ = opened?.fileKey
    const isProven = opened?.isCurrent === true && opened.fileKey.equals(newest.fileKey)
    if ((await this.#store.read(payloadName(name), 0, 1)) === undefined) {
      await this.#store.delete(next)
      return false
    }
    if (!isProven || !equalPublicBytes(opened.context, newest.context)) throw failure('ERR_STORE_IO', next)
    return true
  }

  /** Those that open, newest first. @throws {KeyriseError} why the newest does not, where none does. */
  #openAll(name: string, headers: readonly StoredHeader[], start: Uint8Array): readonly [Opened, ...Opened[]] {
    let refusal: unknown
    const opened = headers.flatMap((header) => {
      try {
        return this.#open(name, header, start)
      } catch (error) {
        refusal ??= error
        return []
      }
    })
    const [newest, ...others] = opened
    if (newest === undefined) throw refusal
    return [newest, ...others]
  }

  #open(name: string, { generation, bytes }: StoredHeader, start: Uint8Array): Opened {
    const header = parseHeader(bytes)
    if (header.sizeBytes !== bytes.length) throw failure('ERR_HEADER_MALFORMED', 'bytes behind it')
    const { opener, fileKey } = this.#unwrap(header)
    try {
      if (!opensStart(fileKey, start)) throw failure('ERR_PAYLOAD_INVALID', 'not the payload of this header')
      const context = findContextStanza(header)?.body ?? NO_CONTEXT
      const target = this.#newestOf(this.#keyIdOf?.(name) ?? opener.id)
      return { generation, bytes, fileKey, context, target, isCurrent: isFor(header, target) }
    } catch (error) {
      fileKey[Symbol.dispose]()
      throw error
    }
  }

  #unwrap(header: Header): { opener: Opener; fileKey: Secret } {
    for (const opener of this.#openers) {
      try {
        return { opener, fileKey: unwrapHeader(header, [opener.identity]) }
      } catch (error) {
        if (!isKeyriseError(error, 'ERR_IDENTITY_MISMATCH')) throw error
      }
    }
    throw new KeyriseError('ERR_IDENTITY_MISMATCH')
  }

  /** @throws {KeyriseError} ERR_KEY_UNKNOWN. */
  #newestOf(id: string): Opener {
    const newest = this.#openers.find((opener) => opener.id === id)
    if (newest === undefined) throw failure('ERR_KEY_UNKNOWN', id)
    return newest
  }
}

/** True where `opener` and nobody else opens it. */
const isFor = (header: Header, { identity }: Opener): boolean => {
  const context = findContextStanza(header)
  const [only, ...others] = header.stanzas.filter((stanza) => stanza !== context && stanza.args[0] !== LAYER_TYPE)
  if (only === undefined || others.length > 0) return false
  using fileKey = identity.unwrap(only)
  return fileKey !== undefined
}

/** True when the first chunk of the payload that starts with `start` opens: header and payload belong together. */
const opensStart = (fileKey: Secret, start: Uint8Array): boolean => {
  if (start.length < PAYLOAD_SIZE_MIN) return false
  const key = derivePayloadKey(fileKey, start.subarray(0, PAYLOAD_NONCE_SIZE))
  const sealed = start.subarray(PAYLOAD_NONCE_SIZE, PAYLOAD_NONCE_SIZE + SEALED_CHUNK_SIZE)
  const plaintext = allocate(Math.min(CHUNK_SIZE, sealed.length - TAG_SIZE))
  try {
    return openChunks(key, { first: 0, isEnd: start.length < START_SIZE }, sealed, plaintext)
  } finally {
    key.fill(0)
    plaintext.fill(0)
  }
}

const failure = (code: ErrorCode, detail: string, cause?: unknown): KeyriseError =>
  new KeyriseError(code, cause === undefined ? { detail } : { detail, cause })
