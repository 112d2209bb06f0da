import { allocate, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'

/**
 * Frames from one thread to one other, through shared memory that either may scribble over at any time. Both ends trust
 * nothing in it but what they hold themselves: an index is read once, atomically, and checked against the range in which it
 * can lie; a length is read once and checked; a frame is copied to private memory before a byte of it is looked at. What
 * cannot be makes the ring broken, for good, on the side that saw it.
 *
 * Layout, in 32-bit words: four cells of the header, each on a cache line of its own, then the data, a power of two of words.
 * `tail` counts the words ever written and `head` those ever read, modulo 2³². A frame is its size in bytes, then its bytes,
 * padded to whole words. A frame of no bytes is a mark.
 */
const TAIL = 0
const HEAD = 16
/** 1 while the reader, or the writer, waits to be woken. */
const READER_SLEEPS = 32
const WRITER_SLEEPS = 48
const HEADER_WORDS = 64

/** Words that are copied one by one; for more, a view and `set` pay. */
const LOOP_WORDS_MAX = 64

/** Atomics.waitAsync, ES2024, which the compiler's library does not list yet. */
type WaitAsync = (
  cells: Int32Array<SharedArrayBuffer>,
  index: number,
  value: number,
) => { readonly async: false } | { readonly async: true; readonly value: Promise<unknown> }
const { load, store, exchange, notify, wait } = Atomics
const { waitAsync } = Atomics as unknown as { readonly waitAsync: WaitAsync }

/** Memory for one ring. @param dataSizeBytes - a power of two; the largest frame takes 4 bytes less. */
export const createRing = (dataSizeBytes: number): SharedArrayBuffer => {
  if (dataSizeBytes < 8 || (dataSizeBytes & (dataSizeBytes - 1)) !== 0) throw new RangeError('not a power of two')
  return new SharedArrayBuffer(HEADER_WORDS * 4 + dataSizeBytes)
}

/** What both ends have: their own position, which nobody else can change, and the sleep of one of them. */
class RingEnd {
  protected readonly cells: Int32Array<SharedArrayBuffer>
  protected readonly mask: number
  protected position = 0
  #error: KeyriseError | undefined
  readonly #sleeps: number
  #isWaiting = false

  constructor(memory: SharedArrayBuffer, sleeps: number) {
    const words = memory.byteLength / 4 - HEADER_WORDS
    // The platform makes the memory, but before anything is indexed by it, it is what this code believes it to be.
    if (words < 2 || (words & (words - 1)) !== 0) throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'a ring' })
    this.cells = new Int32Array(memory)
    this.mask = words - 1
    this.#sleeps = sleeps
  }

  /** Why nothing passes any more. */
  get error(): KeyriseError | undefined {
    return this.#error
  }

  protected break(detail: string): void {
    this.#error ??= new KeyriseError('ERR_MESSAGE_INVALID', { detail })
  }

  /**
   * Says to the other end that this one sleeps, and calls `woken` once it is woken. Look again after it, since something may
   * have come before the other end saw it.
   */
  sleep(woken: () => void): void {
    store(this.cells, this.#sleeps, 1)
    // One is waiting since before: the next notification is for it.
    if (this.#isWaiting) return
    const waiting = waitAsync(this.cells, this.#sleeps, 1)
    if (!waiting.async) return woken()
    this.#isWaiting = true
    void waiting.value.then(() => {
      this.#isWaiting = false
      woken()
    })
  }

  /** The other end need not wake this one. */
  stayAwake(): void {
    store(this.cells, this.#sleeps, 0)
  }

  /** Blocks this thread until the other end wakes it, or for `timeoutMs`, unless `isNeedless` says that something is there. */
  protected blockUnless(isNeedless: () => boolean, timeoutMs: number): void {
    store(this.cells, this.#sleeps, 1)
    if (!isNeedless()) wait(this.cells, this.#sleeps, 1, timeoutMs)
    this.stayAwake()
  }

  /** Lets whoever waits on this end go. */
  release(): void {
    store(this.cells, this.#sleeps, 0)
    notify(this.cells, this.#sleeps)
  }

  protected wake(sleeps: number): void {
    if (load(this.cells, sleeps) !== 0 && exchange(this.cells, sleeps, 0) !== 0) notify(this.cells, sleeps)
  }
}

/** The only thread that writes to a ring. */
export class RingWriter extends RingEnd {
  #head = 0

  constructor(memory: SharedArrayBuffer) {
    super(memory, WRITER_SLEEPS)
  }

  /** The largest frame, in bytes. */
  get sizeBytesMax(): number {
    return this.mask * 4
  }

  /** Puts a frame of `sizeBytes` into the ring; false where it does not fit now, or the ring is broken. */
  write(words: Int32Array, sizeBytes: number): boolean {
    const count = (sizeBytes + 3) >>> 2
    if (!this.#hasRoom(count + 1)) return false
    const { cells, mask, position } = this
    cells[HEADER_WORDS + (position & mask)] = sizeBytes
    const start = (position + 1) & mask
    if (count <= LOOP_WORDS_MAX)
      for (let index = 0; index < count; index++)
        cells[HEADER_WORDS + ((start + index) & mask)] = words[index] as number
    else {
      const first = Math.min(count, mask + 1 - start)
      cells.set(words.subarray(0, first), HEADER_WORDS + start)
      cells.set(words.subarray(first, count), HEADER_WORDS)
    }
    this.position = (position + 1 + count) | 0
    store(cells, TAIL, this.position)
    this.wake(READER_SLEEPS)
    return true
  }

  /** True where a frame of `sizeBytes` fits now. */
  fits(sizeBytes: number): boolean {
    return this.#hasRoom(((sizeBytes + 3) >>> 2) + 1)
  }

  #hasRoom(count: number): boolean {
    const capacity = this.mask + 1
    if (capacity - ((this.position - this.#head) >>> 0) >= count) return this.error === undefined
    if (this.error !== undefined) return false
    const head = load(this.cells, HEAD)
    const used = (this.position - head) >>> 0
    // It has read more than was written, or less than it said before.
    if (used > (this.position - this.#head) >>> 0) {
      this.break('a position that cannot be')
      return false
    }
    this.#head = head
    return capacity - used >= count
  }
}

/** The only thread that reads from a ring. */
export class RingReader extends RingEnd {
  /** The frame that was read last: private, overwritten by the next one. */
  readonly frame: Bytes
  readonly #words: Int32Array
  #tail = 0

  /** @param frameSizeBytesMax - a longer frame breaks the ring. */
  constructor(memory: SharedArrayBuffer, frameSizeBytesMax: number) {
    super(memory, READER_SLEEPS)
    this.frame = allocate((frameSizeBytesMax + 3) & ~3)
    this.#words = new Int32Array(this.frame.buffer)
  }

  /** True where something is there to be read. */
  get isReadable(): boolean {
    return this.error === undefined && load(this.cells, TAIL) !== this.position
  }

  /** Copies the next frame to `frame`: its size in bytes, 0 for a mark; −1 where there is none, or the ring is broken. */
  read(): number {
    if (this.error !== undefined) return -1
    const { cells, mask, position } = this
    if (position === this.#tail) {
      const tail = load(cells, TAIL)
      if (tail === position) return -1
      this.#tail = tail
    }
    const available = (this.#tail - position) >>> 0
    if (available > mask + 1) return this.#refuse('a position that cannot be')
    const sizeBytes = cells[HEADER_WORDS + (position & mask)] as number
    if (sizeBytes < 0 || sizeBytes > this.frame.length) return this.#refuse('a frame of a size that cannot be')
    const count = (sizeBytes + 3) >>> 2
    if (count + 1 > available) return this.#refuse('a frame that is cut short')
    this.#copy((position + 1) & mask, count)
    this.position = (position + 1 + count) | 0
    return sizeBytes
  }

  /** Blocks this thread until something can be read, or for `timeoutMs`. */
  block(timeoutMs: number): void {
    this.blockUnless(() => this.isReadable, timeoutMs)
  }

  /** Gives the room of what was read back to the writer. */
  free(): void {
    store(this.cells, HEAD, this.position)
    this.wake(WRITER_SLEEPS)
  }

  #copy(start: number, count: number): void {
    const { cells, mask } = this
    const words = this.#words
    if (count <= LOOP_WORDS_MAX) {
      for (let index = 0; index < count; index++)
        words[index] = cells[HEADER_WORDS + ((start + index) & mask)] as number
      return
    }
    const first = Math.min(count, mask + 1 - start)
    words.set(cells.subarray(HEADER_WORDS + start, HEADER_WORDS + start + first))
    words.set(cells.subarray(HEADER_WORDS, HEADER_WORDS + count - first), first)
  }

  #refuse(detail: string): -1 {
    this.break(detail)
    return -1
  }
}
