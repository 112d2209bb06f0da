import { encodeCall, encodeReply, type Outgoing } from './calls.js'
import { isKeyriseError } from './errors.js'
import { VALUE_DEPTH_MAX } from './limits.js'
import { decodeMessage, MessageDecoder, MessageEncoder } from './message-codec.js'
import type { MessageChannelEnd } from './message-port.js'
import type { CallId, CallPosting, Listen, ListenDirectly, Port, RefusedBytes } from './ports.js'
import { RingReader, RingWriter } from './ring.js'
import type { ValueLimits } from './values.js'

/**
 * A `Port` over two rings in shared memory and the MessagePort beside them. Small messages go by ring, as bytes; large ones,
 * and what has no encoding, by MessagePort, with a mark in the ring in their place, so that all messages keep their order. A
 * message on the MessagePort that has no mark is delivered too: to bare Comlink, that is all there is.
 *
 * Neither event loop is blocked: with nothing to read, an end looks again in the next few turns of its event loop, then has
 * itself woken. Once a ring is broken, everything goes by MessagePort.
 */
export interface RingPortOptions {
  readonly beside: MessageChannelEnd
  readonly incoming: SharedArrayBuffer
  readonly outgoing: SharedArrayBuffer
  /** Of a message that comes in. */
  readonly limits?: ValueLimits
  /** Runs something in the next turn of the event loop. */
  readonly defer: (run: () => void) => void
  /** What a thread that blocks needs of the MessagePort: the next message, if there is one, and whether the other end lives. */
  readonly besideNow?: {
    readonly receive: () => { readonly message: unknown } | undefined
    readonly isOpen: () => boolean
  }
  /** Stops reading while what it wrote is not read: for the end whose peer may be hostile. The other one must go on. */
  readonly heedsBackpressure: boolean
}

/** By ring, at most so many bytes a message; above, a copy less is worth more than a wake-up. */
const SMALL_SIZE_BYTES_MAX = 16 * 1024
const SMALL: Required<ValueLimits> = {
  sizeBytesMax: SMALL_SIZE_BYTES_MAX,
  nodeCountMax: 4096,
  depthMax: VALUE_DEPTH_MAX,
}
/** Each node of a value takes at most nine bytes besides what it counts; names and id have bounds of their own. */
const FRAME_SIZE_BYTES_MAX = SMALL_SIZE_BYTES_MAX + 9 * 4096 + 1024
/** Room for 1,024 calls of some 200 bytes. */
export const RING_SIZE_BYTES = 256 * 1024

/** Messages that are delivered before other work of the event loop gets its turn. */
const BATCH_COUNT_MAX = 1024
/** How often room is given back to the writer. */
const FREE_COUNT = 64
/** Turns of the event loop, some microseconds each, in which an end looks for messages before it sleeps. */
const TURN_COUNT_MAX = 24

/** Looks at the ring, some nanoseconds each, of an end that spins: some 20 µs in all. */
const SPIN_COUNT = 4000

/** How long a thread that blocks waits for room in the ring before it looks again. */
const FLUSH_MS = 1

/** What could not be written yet. A mark has no words. */
interface Queued {
  readonly words: Int32Array
  readonly sizeBytes: number
  readonly beside?: Outgoing
}
const MARK = new Int32Array(0)

export class RingPort implements Port {
  readonly #beside: MessageChannelEnd
  readonly #besideNow: RingPortOptions['besideNow']
  readonly #reader: RingReader
  readonly #writer: RingWriter
  readonly #defer: (run: () => void) => void
  readonly #heedsBackpressure: boolean
  readonly #encoder = new MessageEncoder()
  readonly #encoderWords = new Int32Array(this.#encoder.bytes.buffer)
  readonly #decoder: MessageDecoder
  readonly #queue: Queued[] = []
  /** What came by MessagePort and waits for its mark. */
  readonly #arrived: unknown[] = []
  #listen: Listen | undefined
  #refused: RefusedBytes = () => undefined
  #directly: ListenDirectly = {}
  #isMarkDue = false
  #isAsleep = false
  #isScheduled = false
  #isClosed = false
  /** Whether the last messages were switchless calls, whose caller blocks its thread for the answer. */
  #isHot = false
  #turnsIdle = 0

  constructor(options: RingPortOptions) {
    this.#beside = options.beside
    this.#besideNow = options.besideNow
    this.#reader = new RingReader(options.incoming, FRAME_SIZE_BYTES_MAX)
    this.#writer = new RingWriter(options.outgoing)
    this.#defer = options.defer
    this.#heedsBackpressure = options.heedsBackpressure
    this.#decoder = new MessageDecoder(options.limits)
  }

  post(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    try {
      this.#encoder.message(message, SMALL)
    } catch (error) {
      if (!isKeyriseError(error)) throw error
      return this.#postBeside({ message, transfer })
    }
    this.#send()
  }

  postCall(id: CallId, name: string, argument: unknown, options: CallPosting = {}): void {
    try {
      if (this.#encoder.call(id, name, argument, options.isSwitchless === true, smaller(options.limits)))
        return this.#send()
    } catch (error) {
      if (!isKeyriseError(error)) throw error
    }
    this.#postBeside(encodeCall(id, name, argument, options))
  }

  postReply(id: CallId, value: unknown, limits?: ValueLimits): void {
    try {
      if (this.#encoder.reply(id, value, smaller(limits))) return this.#send()
    } catch (error) {
      if (!isKeyriseError(error)) throw error
    }
    this.#postBeside(encodeReply(id, value, limits))
  }

  onMessage(listen: Listen, refused?: RefusedBytes, directly?: ListenDirectly): void {
    this.#listen = listen
    if (directly !== undefined) this.#directly = directly
    if (refused !== undefined) this.#refused = refused
    this.#beside.on('message', (message) => {
      this.#arrived.push(message)
      this.#look()
    })
    this.#look()
  }

  wait(timeoutMs: number): 'delivered' | 'nothing' | 'closed' {
    for (let spin = 0; spin < SPIN_COUNT; spin++) if (this.#reader.isReadable && this.#drain() > 0) return 'delivered'
    // No turn of the event loop writes what waits for room while this thread blocks, and nobody wakes it when there is room.
    this.#flush()
    this.#reader.block(this.#queue.length === 0 ? timeoutMs : Math.min(timeoutMs, FLUSH_MS))
    if (this.#drain() > 0) return 'delivered'
    const received = this.#besideNow?.receive()
    if (received !== undefined) {
      this.#arrived.push(received.message)
      this.#drain()
      return 'delivered'
    }
    return this.#besideNow?.isOpen() === false ? 'closed' : 'nothing'
  }

  close(): void {
    this.#isClosed = true
    this.#reader.release()
    this.#writer.release()
    this.#beside.close()
  }

  /** Sends what the encoder has written. */
  #send(): void {
    const { size } = this.#encoder
    if (this.#queue.length > 0 || !this.#writer.write(this.#encoderWords, size)) {
      if (this.#writer.error === undefined)
        this.#enqueue({ words: this.#encoderWords.slice(0, (size + 3) >>> 2), sizeBytes: size })
      else this.#beside.postMessage(decodeMessage(this.#encoder.take()))
    }
    this.#expectMore()
  }

  #postBeside(outgoing: Outgoing): void {
    if (this.#queue.length > 0 || !this.#writer.write(MARK, 0)) {
      if (this.#writer.error === undefined) return this.#enqueue({ words: MARK, sizeBytes: 0, beside: outgoing })
    }
    this.#beside.postMessage(outgoing.message, outgoing.transfer)
  }

  #enqueue(queued: Queued): void {
    this.#queue.push(queued)
    if (this.#queue.length === 1) this.#flush()
  }

  /** Writes what waits, as far as there is room, and waits for more. */
  readonly #flush = (): void => {
    while (this.#queue.length > 0 && !this.#isClosed) {
      const [{ words, sizeBytes, beside }] = this.#queue as [Queued]
      if (!this.#writer.write(words, sizeBytes)) {
        if (this.#writer.error === undefined) {
          this.#writer.sleep(this.#flush)
          // Room that was made before the reader saw that somebody waits for it.
          if (!this.#writer.fits(sizeBytes)) return
          this.#writer.stayAwake()
          continue
        }
        const bytes = new Uint8Array(words.buffer, 0, sizeBytes)
        if (beside === undefined) this.#beside.postMessage(decodeMessage(bytes))
      }
      this.#queue.shift()
      if (beside !== undefined) this.#beside.postMessage(beside.message, beside.transfer)
    }
    if (this.#heedsBackpressure) this.#schedule()
  }

  get #isPaused(): boolean {
    return this.#isMarkDue || (this.#heedsBackpressure && this.#queue.length > 0)
  }

  /** Delivers what is there, then looks again soon, or sleeps. */
  #look(): void {
    if (this.#listen === undefined || this.#isClosed) return
    let count = this.#drain()
    if (this.#isHot) count += this.#spin()
    this.#turnsIdle = count > 0 ? 0 : this.#turnsIdle + 1
    if (this.#isPaused || this.#reader.error !== undefined) return
    if (this.#turnsIdle <= TURN_COUNT_MAX) return this.#schedule()
    this.#isAsleep = true
    this.#reader.sleep(this.#woken)
    if (this.#reader.isReadable) this.#expectMore()
  }

  readonly #woken = (): void => {
    this.#turnsIdle = 0
    if (!this.#isScheduled) this.#look()
  }

  #expectMore(): void {
    this.#turnsIdle = 0
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isAsleep) {
      this.#isAsleep = false
      this.#reader.stayAwake()
    }
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#defer(this.#turn)
  }

  readonly #turn = (): void => {
    this.#isScheduled = false
    this.#look()
  }

  /** Serves the next calls of a caller that blocks its thread, without a turn of the event loop between them. */
  #spin(): number {
    let count = 0
    for (let spin = 0; spin < SPIN_COUNT && count < BATCH_COUNT_MAX; spin++) {
      if (!this.#reader.isReadable) continue
      count += this.#drain()
      spin = 0
    }
    this.#isHot = false
    return count
  }

  /** Delivers what has come, up to a batch. @returns how many messages. */
  #drain(): number {
    let count = 0
    const reader = this.#reader
    while (count < BATCH_COUNT_MAX) {
      if (this.#isMarkDue) {
        if (this.#arrived.length === 0) break
        this.#isMarkDue = false
        this.#listen?.(this.#arrived.shift())
        count++
      }
      if (this.#isPaused) break
      const sizeBytes = reader.read()
      if (sizeBytes < 0) break
      if (sizeBytes === 0) this.#isMarkDue = true
      else this.#deliver(sizeBytes)
      if (++count % FREE_COUNT === 0) reader.free()
    }
    if (count > 0) reader.free()
    // Without a mark, or with one in a ring that broke.
    if (this.#arrived.length > 0 && !this.#isMarkDue && !reader.isReadable)
      for (const message of this.#arrived.splice(0)) {
        this.#listen?.(message)
        count++
      }
    if (reader.error !== undefined && !this.#isBrokenSaid) {
      this.#isBrokenSaid = true
      this.#refused(undefined, reader.error)
    }
    return count
  }

  #deliver(sizeBytes: number): void {
    const decoder = this.#decoder
    try {
      decoder.read(this.#reader.frame, sizeBytes)
    } catch (error) {
      if (!isKeyriseError(error)) throw error
      return this.#refused(decoder.id, error)
    }
    if (decoder.isSwitchless) this.#isHot = true
    decoder.hand(this.#listen, this.#directly)
  }

  #isBrokenSaid = false
}

/** The caller's limits where they are tighter than those of a small message. */
const smaller = (limits: ValueLimits | undefined): ValueLimits =>
  limits?.sizeBytesMax !== undefined && limits.sizeBytesMax < SMALL_SIZE_BYTES_MAX
    ? { ...SMALL, sizeBytesMax: limits.sizeBytesMax }
    : SMALL
