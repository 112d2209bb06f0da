import { setMaxListeners } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { asciiBytes } from '../../protocol/bytes.js'
import { isKeyriseError } from '../../protocol/errors.js'
import { decodeKmsReply, decodeKmsRequest, encodeKmsRequest } from '../../protocol/kms.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import type { KmsChannel } from '../../protocol/ports.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'

/** Between two bytes of one who is slow. */
const DRIP_MS = 400
/** Between two attempts of one who is not. */
const PAUSE_MS = 150
/** A KMS gives no request longer than 30 s, and looks every 2 s. */
const PATIENCE_MS = 45_000

export interface HostileOptions {
  readonly url: string
  readonly kms: KmsChannel
  /** Frames that honest clients have had answered. */
  readonly overheard: () => Uint8Array | undefined
  /** What was refused as it should be. */
  readonly refused: Set<string>
  /** Told of an answer that no hostile client should get. */
  readonly violated: (what: string) => void
}

/** Of each there is one at the least in every soak: an HTTP status, or a kind of frame. */
export const REFUSED = ['413', '431', 'nonsense', 'replayed', 'changed']

type Attempt = (hostiles: Hostiles) => Promise<void>

/** Clients that wish a KMS ill, each at it until they are told to stop. */
export class Hostiles implements AsyncDisposable {
  /** How often each kind has tried. */
  readonly counts: Record<string, number> = {}
  readonly #options: HostileOptions
  readonly #over = new AbortController()
  readonly #sockets = new Set<Socket>()
  readonly #running: Promise<unknown>[] = []

  constructor(options: HostileOptions) {
    this.#options = options
    setMaxListeners(0, this.#over.signal)
    for (const [kind, [count, attempt]] of Object.entries(KINDS))
      for (let client = 0; client < count; client++) this.#running.push(this.#repeat(kind, attempt))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort()
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all(this.#running)
  }

  get options(): HostileOptions {
    return this.#options
  }

  pause(ms: number): Promise<void> {
    return delay(ms, undefined, { signal: this.#over.signal }).catch(() => undefined)
  }

  /**
   * A connection over which `speak` says something, until the KMS closes it.
   * @returns the beginning of what it answered; undefined where the attempt was broken off.
   */
  async talk(speak: (socket: Socket) => Promise<void>): Promise<string | undefined> {
    const { hostname, port } = new URL(this.#options.url)
    const socket = connect({ host: hostname, port: Number(port) })
    this.#sockets.add(socket)
    let answer = ''
    socket.on('error', () => undefined)
    socket.on('data', (part) => (answer = (answer + part.toString('latin1')).slice(0, 1024)))
    // Not `once`, which rejects where the KMS resets the connection, as it may.
    const closed = new Promise((resolve) => socket.once('close', resolve))
    const late = new AbortController()
    const timer = setTimeout(() => {
      late.abort()
      socket.destroy()
    }, PATIENCE_MS)
    try {
      await speak(socket)
      await closed
      if (late.signal.aborted) this.#options.violated(`a connection was kept for ${String(PATIENCE_MS)} ms`)
      return this.#over.signal.aborted || late.signal.aborted ? undefined : answer
    } finally {
      clearTimeout(timer)
      socket.destroy()
      this.#sockets.delete(socket)
    }
  }

  async #repeat(kind: string, attempt: Attempt): Promise<void> {
    while (!this.#over.signal.aborted) {
      await attempt(this).catch((error: unknown) => this.#options.violated(`${kind}: ${String(error)}`))
      this.counts[kind] = (this.counts[kind] ?? 0) + 1
      await this.pause(PAUSE_MS)
    }
  }

  /** Sends a frame that must be refused with one of `codes`. */
  async refused(what: string, frame: Uint8Array, codes: readonly string[]): Promise<void> {
    try {
      decodeKmsReply('call', await this.#options.kms.exchange(frame))
      this.#options.violated(`${what}: it was answered`)
    } catch (error) {
      if (isKeyriseError(error) && codes.includes(error.code)) return void this.#options.refused.add(what)
      if (this.#over.signal.aborted) return
      this.#options.violated(`${what}: ${String(error)}`)
    }
  }
}

const head = (size: number, more = ''): string =>
  `POST /v1/exchange HTTP/1.1\r\nhost: kms\r\ncontent-type: application/octet-stream\r\ncontent-length: ${String(size)}\r\n${more}\r\n`

/** Bytes, one after the other and slowly, as long as anybody listens. */
const drip = async (hostiles: Hostiles, socket: Socket, piece: () => string): Promise<void> => {
  while (socket.writable && !socket.destroyed) {
    socket.write(piece())
    await hostiles.pause(DRIP_MS)
  }
}

const slowHeaders: Attempt = async (hostiles) => {
  await hostiles.talk(async (socket) => {
    socket.write('POST /v1/exchange HTTP/1.1\r\nhost: kms\r\n')
    await drip(hostiles, socket, () => 'x-slow: 1\r\n')
  })
}

/** Its frame is large, so that what has arrived of it takes room. */
const slowBody: Attempt = async (hostiles) => {
  await hostiles.talk(async (socket) => {
    socket.write(head(KMS_FRAME_SIZE_BYTES_MAX))
    socket.write(new Uint8Array(512 * 1024))
    await drip(hostiles, socket, () => ' ')
  })
}

const halfOpen: Attempt = async (hostiles) => {
  await hostiles.talk(() => Promise.resolve())
}

/** It ends its side in the middle of a frame, and waits. */
const halfClosed: Attempt = async (hostiles) => {
  await hostiles.talk((socket) => {
    socket.end(`${head(1000)}abc`)
    return Promise.resolve()
  })
}

/** It asks, and is gone before it is answered. */
const vanishing: Attempt = async (hostiles) => {
  const frame = encodeKmsRequest({ op: 'challenge' })
  await hostiles.talk(async (socket) => {
    socket.write(head(frame.length))
    await new Promise<void>((resolve) => socket.write(frame, () => resolve()))
    socket.destroy()
  })
}

const oversized: Attempt = async (hostiles) => {
  const expect = (answer: string | undefined, status: string): void => {
    if (answer?.startsWith(`HTTP/1.1 ${status}`) === true) return void hostiles.options.refused.add(status)
    // A connection that is reset before its answer was read has none.
    if (answer !== undefined && answer !== '') hostiles.options.violated(`oversized: ${answer.slice(0, 100)}`)
  }
  const say = (text: string) =>
    hostiles.talk((socket) => {
      socket.write(text)
      return Promise.resolve()
    })
  expect(await say(head(KMS_FRAME_SIZE_BYTES_MAX + 1)), '413')
  expect(await say(head(1, `x-large: ${'x'.repeat(16 * 1024)}\r\n`)), '431')
}

/** As large as a frame may be, and no frame. */
const nonsense: Attempt = async (hostiles) => {
  await hostiles.refused('nonsense', new Uint8Array(2 * 1024 * 1024).fill(0xa1), ['ERR_REQUEST_INVALID'])
  await hostiles.refused('nonsense', asciiBytes('GET / HTTP/1.1'), ['ERR_REQUEST_INVALID'])
  await hostiles.refused('nonsense', nodeRandom.fill(new Uint8Array(600)), ['ERR_REQUEST_INVALID'])
}

const replayed: Attempt = async (hostiles) => {
  const frame = hostiles.options.overheard()
  // Whoever asks for a challenge gets one.
  if (frame === undefined || decodeKmsRequest(frame).op === 'challenge') return
  await hostiles.refused('replayed', frame, ['ERR_SESSION_INVALID', 'ERR_CALLS_LIMIT'])
  const changed = frame.slice()
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
  await hostiles.refused('changed', changed, ['ERR_SESSION_INVALID', 'ERR_CALLS_LIMIT', 'ERR_REQUEST_INVALID'])
}

/** How many of each kind there are. */
const KINDS: Readonly<Record<string, readonly [count: number, attempt: Attempt]>> = {
  slowHeaders: [16, slowHeaders],
  slowBody: [8, slowBody],
  halfOpen: [64, halfOpen],
  halfClosed: [4, halfClosed],
  vanishing: [2, vanishing],
  oversized: [2, oversized],
  nonsense: [1, nonsense],
  replayed: [4, replayed],
}
