import { allocate, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { STREAM_COUNT_MAX } from '../protocol/limits.js'
import type { FlowId } from '../protocol/names.js'
import type { Clock, Random } from '../protocol/ports.js'
import type { StreamItem, StreamStatus } from '../protocol/session.js'
import { DELIVERY_KEY_SIZE, segmentAt, segmentCount, type Segment } from '../protocol/crypto/delivery.js'
import { derivePayloadKey, PAYLOAD_KEY_SIZE } from '../protocol/crypto/payload.js'
import { Secret } from '../protocol/crypto/secret.js'
import { ExpiringTable } from './expiring-table.js'
import { SegmentDigests } from './segment-digests.js'
import type { Unsealed, Unsealer } from './unseal.js'

/** Of all sessions. */
const ALL_STREAMS_COUNT_MAX = 8_192
const STREAM_IDLE_MS_MAX = 10 * 60_000
/** Digests of what was answered, of all streams: half a terabyte of segments. */
const DIGESTS_SIZE_BYTES_MAX = 16 * 1024 * 1024
/** Segments of one session that are worked on or wait: others’ must find room beside them. */
const SESSION_SEGMENT_COUNT_MAX = 16
const ID_SIZE = 16

export interface StreamsOptions {
  readonly unsealer: Unsealer
  readonly random: Random
  readonly clock: Clock
}

/** The streams of all sessions. What is bounded makes room by ending the stream that was unused for longest. */
export class Streams {
  readonly #table: ExpiringTable<Stream>
  readonly #options: StreamsOptions
  #digestsSizeBytes = 0

  constructor(options: StreamsOptions) {
    this.#options = options
    this.#table = new ExpiringTable({
      countMax: ALL_STREAMS_COUNT_MAX,
      idleMsMax: STREAM_IDLE_MS_MAX,
      clock: options.clock,
      drop: (stream) => this.#ended(stream),
    })
  }

  /** For the streams of one session. */
  ofSession(): SessionStreams {
    const { random } = this.#options
    return new SessionStreams({
      random,
      put: (stream) => this.#table.put(stream.id, stream),
      take: (id) => {
        const stream = this.#table.take(id)
        if (stream !== undefined) this.#ended(stream)
      },
    })
  }

  /**
   * The frame that answers: the segment as it is delivered. Whoever knows a stream’s id may ask: only the enclave that opened it
   * can read the answer.
   * @throws {KeyriseError} ERR_SESSION_INVALID: no such stream; ERR_REQUEST_INVALID: no such segment; ERR_ENVELOPE_INVALID: it does
   * not open; ERR_CALLS_LIMIT: ask again; ERR_KMS_FAILED.
   */
  async segment(id: Bytes, index: number, sealed: Uint8Array): Promise<Bytes> {
    const stream = this.#table.use(id)
    if (stream === undefined) throw noSuchStream()
    const segment = segmentAt(stream.sizeBytes, index)
    if (sealed.length !== segment.sealedSizeBytes) throw new KeyriseError('ERR_ENVELOPE_INVALID')
    return stream.deliver(segment, sealed, this.#options.unsealer, (grownBytes) => this.#makeRoom(grownBytes))
  }

  /** Ends every stream of a flow that was destroyed. */
  endFlow(flow: FlowId): void {
    this.#table.dropWhere((stream) => stream.flow === flow)
  }

  clear(): void {
    this.#table.clear()
  }

  #makeRoom(grownBytes: number): void {
    this.#digestsSizeBytes += grownBytes
    while (this.#digestsSizeBytes > DIGESTS_SIZE_BYTES_MAX && this.#table.dropOldest());
  }

  #ended(stream: Stream): void {
    this.#digestsSizeBytes -= stream.digestsSizeBytes
    stream.end()
  }
}

/** What a session opened. */
export class SessionStreams {
  readonly #table: {
    readonly random: Random
    readonly put: (stream: Stream) => void
    readonly take: (id: Uint8Array) => void
  }
  /** In the order in which they were opened. */
  readonly #open = new Map<string, Bytes>()
  readonly #load: Load = { segmentCount: 0 }

  constructor(table: { random: Random; put: (stream: Stream) => void; take: (id: Uint8Array) => void }) {
    this.#table = table
  }

  /**
   * Opens a stream of a payload; where the session has STREAM_COUNT_MAX, its first one makes room.
   * @param fileKey - borrowed. @param deliveryKey - filled with the stream’s.
   * @returns its id.
   */
  open(
    fileKey: Secret,
    payload: { readonly flow: FlowId; readonly nonce: Bytes; readonly sizeBytes: number },
    deliveryKey: Uint8Array,
  ): Bytes {
    const { random } = this.#table
    const [first] = this.#open.values()
    if (first !== undefined && this.#open.size >= STREAM_COUNT_MAX) this.end(first)
    const id = random.fill(allocate(ID_SIZE))
    const payloadKey = derivePayloadKey(fileKey, payload.nonce)
    const keys = allocate(PAYLOAD_KEY_SIZE + DELIVERY_KEY_SIZE)
    keys.set(payloadKey)
    random.fill(keys.subarray(PAYLOAD_KEY_SIZE))
    deliveryKey.set(keys.subarray(PAYLOAD_KEY_SIZE))
    payloadKey.fill(0)
    const stream = new Stream(
      { id, flow: payload.flow, sizeBytes: payload.sizeBytes, keys: Secret.take(keys) },
      this.#load,
    )
    this.#open.set(toHex(id), id)
    this.#table.put(stream)
    return id
  }

  /** Ends a stream of this session; another’s id, or none that is known, is passed over. */
  end(id: Uint8Array): void {
    if (this.#open.delete(toHex(id))) this.#table.take(id)
  }

  endAll(): void {
    for (const id of [...this.#open.values()]) this.end(id)
  }
}

/**
 * A stream for each item that was unwrapped.
 * @param unsealed - its secrets are the file keys: zero-filled here.
 * @returns a status for each item; secrets: the delivery keys.
 */
export const openStreams = (
  streams: SessionStreams,
  flow: FlowId,
  items: readonly StreamItem[],
  unsealed: Unsealed,
): { items: StreamStatus[]; secrets: Bytes } => {
  const openedCount = unsealed.items.filter(({ error }) => error === null).length
  const secrets = allocate(openedCount * DELIVERY_KEY_SIZE)
  let [fileKeyOffset, openedIndex] = [0, 0]
  const statuses = unsealed.items.map((status, index): StreamStatus => {
    const item = items[index]
    if (item === undefined || status.error !== null) return { ...status, stream: null }
    using fileKey = Secret.take(unsealed.secrets.subarray(fileKeyOffset, (fileKeyOffset += status.sizeBytes)))
    const start = DELIVERY_KEY_SIZE * openedIndex++
    const deliveryKey = secrets.subarray(start, start + DELIVERY_KEY_SIZE)
    const stream = streams.open(fileKey, { flow, nonce: item.nonce, sizeBytes: item.sizeBytes }, deliveryKey)
    return { ...status, sizeBytes: DELIVERY_KEY_SIZE, stream }
  })
  return { items: statuses, secrets }
}

/** What the streams of a session ask of the pool at once. */
interface Load {
  segmentCount: number
}

class Stream {
  readonly id: Bytes
  readonly flow: FlowId
  /** Of the plaintext. */
  readonly sizeBytes: number
  /** Payload key, then delivery key; undefined once it has ended. */
  #keys: Secret | undefined
  readonly #load: Load
  readonly #digests: SegmentDigests
  readonly #underWay = new Set<number>()

  constructor(of: { id: Bytes; flow: FlowId; sizeBytes: number; keys: Secret }, load: Load) {
    this.id = of.id
    this.flow = of.flow
    this.sizeBytes = of.sizeBytes
    this.#keys = of.keys
    this.#load = load
    this.#digests = new SegmentDigests(segmentCount(of.sizeBytes))
  }

  get digestsSizeBytes(): number {
    return this.#digests.sizeBytes
  }

  /**
   * One delivery of an index at a time, and each of the same bytes as the first: the delivery key must never seal two plaintexts
   * with one nonce. The digest is kept before the answer leaves.
   */
  async deliver(
    segment: Segment,
    sealed: Uint8Array,
    unsealer: Unsealer,
    onGrown: (grownBytes: number) => void,
  ): Promise<Bytes> {
    const { index } = segment
    if (this.#underWay.has(index) || this.#load.segmentCount >= SESSION_SEGMENT_COUNT_MAX)
      throw new KeyriseError('ERR_CALLS_LIMIT')
    this.#underWay.add(index)
    this.#load.segmentCount++
    try {
      const known = this.#digests.get(index)
      const { digest, reply } = await unsealer.reseal({
        segment,
        sealed,
        known,
        writeKeys: (into) => this.#writeKeys(into),
      })
      if (known === undefined && this.#keys !== undefined) onGrown(this.#digests.set(index, digest))
      return reply
    } finally {
      this.#underWay.delete(index)
      this.#load.segmentCount--
    }
  }

  end(): void {
    this.#keys?.[Symbol.dispose]()
    this.#keys = undefined
  }

  #writeKeys(into: Uint8Array): void {
    if (this.#keys === undefined) throw noSuchStream()
    this.#keys.expose((keys) => into.set(keys))
  }
}

const noSuchStream = (): KeyriseError => new KeyriseError('ERR_SESSION_INVALID', { detail: 'no such stream' })
