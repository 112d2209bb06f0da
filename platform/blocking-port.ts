import { readSync, writeSync } from 'node:fs'
import { concatBytes } from '../protocol/bytes.js'
import { encodeCall } from '../protocol/calls.js'
import { KeyriseError } from '../protocol/errors.js'
import { MessageDecoder, MessageEncoder } from '../protocol/message-codec.js'
import type { CallId, CallPosting, Listen, ListenDirectly, Port, RefusedBytes } from '../protocol/ports.js'
import type { SocketEnd, SocketPort } from '../protocol/socket-port.js'
import { FrameReader, FrameWriter } from '../protocol/stream-frames.js'

const CHUNK_SIZE_BYTES = 64 * 1024
/** Between two looks at a socket that had nothing: about what a call takes. */
const PAUSE_MS = 0.02

export interface BlockingPortOptions {
  /** For all but switchless calls. */
  readonly calls: SocketPort
  /** For switchless calls, both ways; nothing is written to it by the event loop. */
  readonly socket: SocketEnd
  /** That socket’s descriptor, which does not block. */
  readonly descriptor: number
  readonly malformed: () => void
}

/**
 * The host’s end of the ECALLs of a process. Switchless calls have a socket of their own, which is read and written here and
 * now, while the event loop stands still: what waits in the other one for its turn cannot hold them up.
 */
export class BlockingPort implements Port {
  readonly #options: BlockingPortOptions
  readonly #encoder = new MessageEncoder()
  readonly #decoder = new MessageDecoder()
  readonly #frames: FrameReader
  readonly #chunk = new Uint8Array(new ArrayBuffer(CHUNK_SIZE_BYTES))
  readonly #pause = new Int32Array(new SharedArrayBuffer(4))
  /** What the socket has not taken yet. */
  #unwritten: Uint8Array = new Uint8Array(0)
  #listen: Listen | undefined
  #directly: ListenDirectly = {}
  #deliveredCount = 0

  constructor(options: BlockingPortOptions) {
    this.#options = options
    this.#frames = new FrameReader({ frame: (bytes) => this.#deliver(bytes), oversized: options.malformed })
    options.socket.on('error', () => undefined)
  }

  post(message: unknown): void {
    this.#options.calls.post(message)
  }

  /** @throws {KeyriseError} as `releaseValue`. */
  postCall(id: CallId, name: string, argument: unknown, options: CallPosting = {}): void {
    if (options.isSwitchless !== true) return this.post(encodeCall(id, name, argument, options).message)
    if (!this.#encoder.call(id, name, argument, true, options.limits)) throw new KeyriseError('ERR_SWITCHLESS')
    const writer = new FrameWriter()
    writer.add(this.#encoder.take())
    this.#unwritten = concatBytes(this.#unwritten, ...writer.take())
    this.#write()
  }

  onMessage(listen: Listen, refused?: RefusedBytes, directly?: ListenDirectly): void {
    this.#listen = listen
    if (directly !== undefined) this.#directly = directly
    this.#options.calls.onMessage(listen, refused, directly)
    // An answer that came when nobody waited for it any more.
    this.#options.socket.on('data', (chunk) => this.#frames.push(chunk))
  }

  wait(timeoutMs: number): 'delivered' | 'nothing' | 'closed' {
    const before = this.#deliveredCount
    for (const startMs = performance.now(); performance.now() - startMs < timeoutMs;) {
      this.#write()
      const size = now(() => readSync(this.#options.descriptor, this.#chunk, 0, CHUNK_SIZE_BYTES, null))
      if (size === 0) return 'closed'
      if (size === undefined) Atomics.wait(this.#pause, 0, 0, PAUSE_MS)
      else this.#frames.push(this.#chunk.subarray(0, size))
      if (this.#deliveredCount > before) return 'delivered'
    }
    return 'nothing'
  }

  close(): void {
    this.#listen = undefined
    this.#options.socket.destroy()
    this.#options.calls.close()
  }

  #write(): void {
    while (this.#unwritten.length > 0) {
      const { descriptor } = this.#options
      const written = now(() => writeSync(descriptor, this.#unwritten, 0, this.#unwritten.length))
      // That the other end is gone is seen where it is read.
      if (written === undefined || written === 0) return
      this.#unwritten = this.#unwritten.subarray(written)
    }
  }

  #deliver(bytes: Uint8Array): void {
    this.#deliveredCount++
    try {
      this.#decoder.read(bytes)
    } catch {
      this.#options.malformed()
      return
    }
    this.#decoder.hand(this.#listen, this.#directly)
  }
}

/** What a call that does not block did: undefined where it would have to wait, 0 where the other end is gone. */
const now = (work: () => number): number | undefined => {
  try {
    return work()
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EAGAIN' ? undefined : 0
  }
}
