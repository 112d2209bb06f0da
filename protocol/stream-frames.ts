import { allocate, concatBytes, type Bytes } from './bytes.js'
import { MESSAGE_SIZE_BYTES_MAX } from './limits.js'

/** Messages in a stream of bytes: the size of each in four bytes, most significant first, then the message. */
const HEADER_SIZE_BYTES = 4
/** The largest message, with what the codec adds to it. */
export const FRAME_SIZE_BYTES_MAX = MESSAGE_SIZE_BYTES_MAX + 64 * 1024
/** Up to here frames are joined, so that many small ones take one system call. */
const JOINED_SIZE_BYTES_MAX = 32 * 1024

/** Collects frames and hands them over joined, in order. */
export class FrameWriter {
  #parts: Uint8Array[] = []
  #small: Uint8Array[] = []
  #smallSizeBytes = 0
  #sizeBytes = 0

  /** What `take` would hand over. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** @param message - at most FRAME_SIZE_BYTES_MAX bytes, which nobody changes any more. */
  add(message: Uint8Array): void {
    const header = allocate(HEADER_SIZE_BYTES)
    new DataView(header.buffer).setUint32(0, message.length)
    this.#sizeBytes += HEADER_SIZE_BYTES + message.length
    this.#addPart(header)
    this.#addPart(message)
  }

  take(): readonly Uint8Array[] {
    this.#join()
    const parts = this.#parts
    this.#parts = []
    this.#sizeBytes = 0
    return parts
  }

  #addPart(part: Uint8Array): void {
    if (part.length > JOINED_SIZE_BYTES_MAX) {
      this.#join()
      this.#parts.push(part)
      return
    }
    if (this.#smallSizeBytes + part.length > JOINED_SIZE_BYTES_MAX) this.#join()
    this.#small.push(part)
    this.#smallSizeBytes += part.length
  }

  #join(): void {
    if (this.#small.length > 0) this.#parts.push(concatBytes(...this.#small))
    this.#small = []
    this.#smallSizeBytes = 0
  }
}

export interface FrameListener {
  /** One whole frame: bytes that are the reader’s, to be read before this returns. */
  readonly frame: (bytes: Uint8Array) => void
  /** One that is larger than any message. Nothing was allocated for it, and its bytes are passed over. */
  readonly oversized: () => void
}

/** Cuts a stream, in pieces of any size, into its frames. */
export class FrameReader {
  readonly #listener: FrameListener
  readonly #header = allocate(HEADER_SIZE_BYTES)
  #headerSize = 0
  /** The frame that has begun and is not whole, and how much of it there is. */
  #frame: Bytes | undefined
  #filled = 0
  /** Bytes of an oversized frame that are still to come. */
  #passing = 0

  constructor(listener: FrameListener) {
    this.#listener = listener
  }

  push(chunk: Uint8Array): void {
    for (let offset = 0; offset < chunk.length;) offset += this.#read(chunk, offset)
  }

  /** Reads one piece of a frame. @returns how many bytes it was. */
  #read(chunk: Uint8Array, offset: number): number {
    const left = chunk.length - offset
    if (this.#passing > 0) {
      const passed = Math.min(left, this.#passing)
      this.#passing -= passed
      return passed
    }
    if (this.#frame !== undefined) return this.#fill(this.#frame, chunk, offset)
    const taken = Math.min(left, HEADER_SIZE_BYTES - this.#headerSize)
    this.#header.set(chunk.subarray(offset, offset + taken), this.#headerSize)
    this.#headerSize += taken
    if (this.#headerSize < HEADER_SIZE_BYTES) return taken
    this.#headerSize = 0
    return taken + this.#begin(new DataView(this.#header.buffer).getUint32(0), chunk, offset + taken)
  }

  /** A frame of `size` bytes begins at `offset`. @returns how many bytes of it were read. */
  #begin(size: number, chunk: Uint8Array, offset: number): number {
    if (size > FRAME_SIZE_BYTES_MAX) {
      this.#passing = size
      this.#listener.oversized()
      return 0
    }
    if (size <= chunk.length - offset) {
      this.#listener.frame(chunk.subarray(offset, offset + size))
      return size
    }
    this.#frame = allocate(size)
    this.#filled = 0
    return 0
  }

  #fill(frame: Bytes, chunk: Uint8Array, offset: number): number {
    const taken = Math.min(chunk.length - offset, frame.length - this.#filled)
    frame.set(chunk.subarray(offset, offset + taken), this.#filled)
    this.#filled += taken
    if (this.#filled === frame.length) {
      this.#frame = undefined
      this.#listener.frame(frame)
    }
    return taken
  }
}
