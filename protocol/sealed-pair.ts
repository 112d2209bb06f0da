import { parseHeader } from './age-header.js'
import { copyBytes, type Bytes } from './bytes.js'
import { isKeyriseError } from './errors.js'
import { HEADER_SIZE_BYTES_MAX } from './limits.js'
import type { Store } from './ports.js'

/**
 * An envelope that is stored as two objects, so that a rotation of the KMS's keys replaces a few hundred bytes and no payload:
 * `<name>.payload`, immutable, and `<name>.header-<generation>`, of which a rewrap writes the next before it deletes the last.
 * One header and the payload, joined, are the age file. All generations of a name give the same file key and have the same
 * digest, so a reader takes the newest that serves: docs/envelope.md §4.
 */

export const FIRST_GENERATION = 1

/** A header as the store holds it: a header by its form, and nothing behind it. */
export interface StoredHeader {
  /** In the store. */
  readonly name: string
  readonly generation: number
  readonly bytes: Bytes
}

/** Which halves of one name a store lists. */
export interface PairHalves {
  hasPayload: boolean
  /** Newest first. */
  readonly generations: number[]
}

const HALF = /^(.+)\.(?:payload|header-(\d{10,16}))$/
/** More than a rewrap that was cut short again and again leaves; names of more are an attack on the reader's patience. */
const GENERATION_COUNT_MAX = 16
/** A list is outdated once a rewrap has deleted what it names; twice in a row is a store that lists what it hasn't. */
const LIST_COUNT_MAX = 3

export const payloadName = (name: string): string => `${name}.payload`

export const headerName = (name: string, generation: number): string =>
  `${name}.header-${String(generation).padStart(10, '0')}`

/** The pair that a claimed name is half of; undefined where it is none. The payload has no generation. */
export const parseHalfName = (claimed: string): { name: string; generation?: number } | undefined => {
  const match = HALF.exec(claimed)
  if (match === null) return undefined
  const [, name = '', digits] = match
  if (digits === undefined) return { name }
  const generation = Number(digits)
  return generation >= FIRST_GENERATION && headerName(name, generation) === claimed ? { name, generation } : undefined
}

/** The pairs among the names that a store lists, whole and halved ones. */
export const pairsAmong = (listed: readonly string[]): Map<string, PairHalves> => {
  const pairs = new Map<string, PairHalves>()
  for (const claimed of listed) {
    const half = parseHalfName(claimed)
    if (half === undefined) continue
    const pair = pairs.get(half.name) ?? { hasPayload: false, generations: [] }
    pairs.set(half.name, pair)
    if (half.generation === undefined) pair.hasPayload = true
    else pair.generations.push(half.generation)
  }
  for (const { generations } of pairs.values()) generations.sort((a, b) => b - a)
  return pairs
}

/** @returns views. @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT. */
export const splitEnvelope = (envelope: Uint8Array): { header: Uint8Array; payload: Uint8Array } => {
  const { sizeBytes } = parseHeader(envelope)
  return { header: envelope.subarray(0, sizeBytes), payload: envelope.subarray(sizeBytes) }
}

/**
 * Stores an envelope under `name`, for the first time. @throws {KeyriseError} ERR_STORE_*, ERR_NAME_INVALID, ERR_HEADER_*.
 * Crash: perhaps a payload without a header, never the reverse. Nothing lists either yet.
 */
export const putPair = async (store: Store, name: string, envelope: Uint8Array): Promise<void> => {
  const { header, payload } = splitEnvelope(envelope)
  await store.put(payloadName(name), payload)
  await store.put(headerName(name, FIRST_GENERATION), header)
}

/**
 * The headers of `name`, newest first; what is none by its form is left out.
 * @param expected - generations that are likely to be all there are, newest first: saves the list where they are there and the
 * next one isn't.
 */
export const getHeaders = async (store: Store, name: string, expected?: readonly number[]): Promise<StoredHeader[]> => {
  const [newest = 0] = expected ?? []
  if (expected !== undefined) {
    const [next, ...claimed] = await readHeaders(store, name, [newest + 1, ...expected])
    if (next?.bytes === undefined && isWhole(claimed)) return claimed.flatMap(headersAmong)
  }
  for (let attempt = 1; ; attempt++) {
    const claimed = await readHeaders(store, name, await listGenerations(store, name))
    if (isWhole(claimed) || attempt === LIST_COUNT_MAX) return claimed.flatMap(headersAmong)
  }
}

interface ClaimedHeader extends Pick<StoredHeader, 'name' | 'generation'> {
  readonly bytes: Uint8Array | undefined
}

const readHeaders = (store: Store, pair: string, generations: readonly number[]): Promise<ClaimedHeader[]> =>
  Promise.all(
    generations.slice(0, GENERATION_COUNT_MAX).map(async (generation) => {
      const name = headerName(pair, generation)
      return { name, generation, bytes: await store.read(name, 0, HEADER_SIZE_BYTES_MAX + 1) }
    }),
  )

/** One that is gone was replaced meanwhile, so that there is a newer one. */
const isWhole = (claimed: readonly ClaimedHeader[]): boolean =>
  claimed.length > 0 && claimed.every(({ bytes }) => bytes !== undefined)

const headersAmong = ({ bytes, ...named }: ClaimedHeader): StoredHeader[] =>
  bytes !== undefined && isHeader(bytes) ? [{ ...named, bytes: copyBytes(bytes) }] : []

/**
 * Deletes halves of `name`: the headers, older ones first, so that no gap is left that hides a newer one, then the payload, so
 * that a header always has one. Fine where there are none.
 */
export const deletePair = async (
  store: Store,
  name: string,
  { generations, hasPayload }: PairHalves,
): Promise<void> => {
  for (const generation of generations.toSorted((a, b) => a - b)) await store.delete(headerName(name, generation))
  if (hasPayload) await store.delete(payloadName(name))
}

const listGenerations = async (store: Store, name: string): Promise<readonly number[]> =>
  pairsAmong(await store.list(`${name}.header-`)).get(name)?.generations ?? []

/** Bytes behind a header would move the payload's nonce. */
const isHeader = (claimed: Uint8Array): boolean => {
  try {
    return parseHeader(claimed).sizeBytes === claimed.length
  } catch (error) {
    if (isKeyriseError(error)) return false
    throw error
  }
}
