import { KeyriseError } from './errors.js'
import { encodeMessage, MessageDecoder } from './message-codec.js'
import type { Listen, ListenDirectly, Port, RefusedBytes } from './ports.js'
import { FRAME_SIZE_BYTES_MAX, FrameReader, FrameWriter } from './stream-frames.js'

/** The part of a stream socket that a `Port` needs; structural, since this folder knows no platform. */
export interface SocketEnd {
  write(bytes: Uint8Array): boolean
  on(event: 'data', listen: (chunk: Uint8Array) => void): unknown
  on(event: 'drain' | 'close' | 'error', listen: () => void): unknown
  pause(): unknown
  resume(): unknown
  cork(): void
  uncork(): void
  destroy(): unknown
}

export interface SocketPortOptions {
  /** Runs `work` once, after what is running now: messages posted until then are written together. */
  readonly defer: (work: () => void) => void
  /** A frame that is no message, or too large for one. It is not delivered; those after it are. */
  readonly malformed: (error: KeyriseError) => void
  /**
   * True to read nothing more while much waits to be written: whoever sends calls and reads no answers fills no memory here.
   * One side of a socket at most, or two that wait for each other wait for ever.
   */
  readonly waitsForReader: boolean
}

/** What may wait to be written before no more is read. */
const WAITING_SIZE_BYTES_MAX = 4 * 1024 * 1024

/** A `Port` whose messages travel as bytes over a stream socket. */
export class SocketPort implements Port {
  /** Resolves when the socket is closed, by either side, and what came before that was delivered. */
  readonly closed: Promise<void>
  readonly #socket: SocketEnd
  readonly #options: SocketPortOptions
  readonly #decoder = new MessageDecoder()
  readonly #waiting = new FrameWriter()
  #isDeferred = false
  /** True from a write that the system did not take whole until it has. */
  #isFull = false
  #isPaused = false
  #listen: Listen | undefined
  #directly: ListenDirectly = {}

  constructor(socket: SocketEnd, options: SocketPortOptions) {
    this.#socket = socket
    this.#options = options
    socket.on('drain', () => this.#drained())
    // The close follows, and says as much.
    socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      socket.on('close', () => resolve())
    })
  }

  /** True once somebody listens: from then on what comes is read. */
  get isListening(): boolean {
    return this.#listen !== undefined
  }

  /** @throws {KeyriseError} ERR_SIZE_LIMIT, ERR_SHARED_MEMORY, ERR_VALUE_UNSUPPORTED. */
  post(message: unknown): void {
    const bytes = encodeMessage(message)
    if (bytes.length > FRAME_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a message' })
    this.#waiting.add(bytes)
    if (this.#isDeferred) return
    this.#isDeferred = true
    this.#options.defer(() => {
      this.#isDeferred = false
      if (!this.#isFull) this.flush()
    })
  }

  /**
   * Writes what was posted now, without waiting for anything: for the last words of whoever is about to end.
   * @returns true where the system took all of it.
   */
  flush(): boolean {
    this.#socket.cork()
    for (const part of this.#waiting.take()) this.#isFull = !this.#socket.write(part)
    this.#socket.uncork()
    return !this.#isFull
  }

  onMessage(listen: Listen, _refused?: RefusedBytes, directly?: ListenDirectly): void {
    this.#listen = listen
    if (directly !== undefined) this.#directly = directly
    const frames = new FrameReader({
      frame: (bytes) => this.#deliver(bytes),
      oversized: () => this.#options.malformed(new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a message' })),
    })
    this.#socket.on('data', (chunk) => {
      frames.push(chunk)
      this.#waitForReader()
    })
  }

  close(): void {
    this.#listen = undefined
    this.#socket.destroy()
  }

  #deliver(bytes: Uint8Array): void {
    if (this.#listen === undefined) return
    try {
      this.#decoder.read(bytes)
    } catch (error) {
      this.#options.malformed(error instanceof KeyriseError ? error : new KeyriseError('ERR_MESSAGE_INVALID'))
      return
    }
    this.#decoder.hand(this.#listen, this.#directly)
  }

  #waitForReader(): void {
    if (!this.#options.waitsForReader || !this.#isFull || this.#waiting.sizeBytes < WAITING_SIZE_BYTES_MAX) return
    this.#isPaused = true
    this.#socket.pause()
  }

  #drained(): void {
    this.#isFull = false
    if (!this.flush() || !this.#isPaused) return
    this.#isPaused = false
    this.#socket.resume()
  }
}
