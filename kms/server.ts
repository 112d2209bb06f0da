import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { concatBytes, copyBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { describeError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import { openKms, type OpenKms } from './open-kms.js'
import { placeOf, type KmsIdentity } from './place.js'
import type { Policy } from './policy.js'
import type { KmsEvent } from './service.js'

export interface ServeOptions {
  /** Where the KMS keeps its ledger and, unless `custody` is given, its keyring. */
  readonly directory: string
  /** The keyring’s file in a third place. */
  readonly custody?: string
  /** Of the keyring; borrowed: zero-fill it when the promise has settled. */
  readonly passphrase: Uint8Array
  readonly policy: Policy
  /** A loopback address; 127.0.0.1 unless told. */
  readonly host?: string
  /** 7600 unless told; 0 for any free one. */
  readonly port?: number
  /** For the operator’s log. */
  readonly onEvent?: (event: KmsEvent) => void
}

export interface ServedKms extends KmsIdentity, AsyncDisposable {
  /** `http://127.0.0.1:7600` */
  readonly url: string
  /** Stops listening, answers what is under way, zero-fills every key. */
  close(): Promise<void>
  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void
}

const LOOPBACK = ['127.0.0.1', '::1', 'localhost']
const PORT = 7600
const FRAME_TYPE = 'application/octet-stream'
/** Handshakes and most calls are this small: they are never turned away for lack of memory. */
const SMALL_FRAME_SIZE_BYTES_MAX = 256 * 1024
/** Larger frames held at once, those being answered included: thirty segments, or one of the largest and a dozen segments. */
const HELD_SIZE_BYTES_MAX = 32 * 1024 * 1024
/** A large body that has been arriving for longer makes room where others find none: over loopback it takes milliseconds. */
const ARRIVAL_MS_MAX = 5_000
/** Parts this small are joined as they arrive: each takes hundreds of bytes beside its own. */
const TINY_PART_SIZE_BYTES_MAX = 1024
const TINY_PART_COUNT_MAX = 256
const CONNECTION_COUNT_MAX = 1024
/** A whole request, the largest frame over loopback included. */
const REQUEST_MS_MAX = 30_000
const HEADERS_MS_MAX = 5_000
const HEADERS_SIZE_BYTES_MAX = 8 * 1024
/** Between two requests of a connection. */
const IDLE_MS_MAX = 60_000
/** How often the three above are looked at. */
const CHECKING_MS = 2_000
/** For answers under way when the server is told to stop. */
const CLOSING_MS_MAX = 5_000

/**
 * Opens a KMS and serves it over HTTP on loopback: POST /v1/exchange (frames), GET /v1/identity, /healthz, /readyz. The port
 * comes first, so that a second start by mistake is refused before it touches the ledger.
 * @throws {KeyriseError} ERR_ADDRESS_REFUSED, ERR_PORT_IN_USE, and as `openKms`.
 */
export const serveKms = async (options: ServeOptions): Promise<ServedKms> => {
  const { directory, custody, host = '127.0.0.1', port = PORT, policy, onEvent } = options
  if (!LOOPBACK.includes(host)) throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: host })
  const desk = new FrontDesk()
  const server = makeServer(desk)
  await listen(server, { host, port })
  try {
    using passphrase = Secret.take(copyBytes(options.passphrase))
    const place = placeOf({ directory, custody })
    const world = { fs: nodeFileSystem, clock: nodeClock, random: nodeRandom }
    const kms = await openKms({ place, passphrase, policy, ...world, ...(onEvent === undefined ? {} : { onEvent }) })
    desk.kms = kms
    const close = async (): Promise<void> => {
      desk.kms = undefined
      await closeServer(server)
      await kms.close()
    }
    const url = `http://${host === '::1' ? '[::1]' : host}:${(server.address() as AddressInfo).port}`
    return { url, identity: kms.identity, keys: kms.keys, close, wipe: () => kms.wipe(), [Symbol.asyncDispose]: close }
  } catch (error) {
    await closeServer(server)
    throw error
  }
}

const makeServer = (desk: FrontDesk): Server => {
  const limits = {
    maxHeaderSize: HEADERS_SIZE_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    headersTimeout: HEADERS_MS_MAX,
    keepAliveTimeout: IDLE_MS_MAX,
    connectionsCheckingInterval: CHECKING_MS,
  }
  const server = createServer(limits, (request, response) => {
    // A fault of ours ends one connection, not the process.
    desk.answer(request, response).catch(() => response.destroy())
  })
  server.maxConnections = CONNECTION_COUNT_MAX
  return server
}

const listen = (server: Server, address: { host: string; port: number }): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const detail = `${address.host}:${address.port}`
      const code = error.code === 'EADDRINUSE' ? 'ERR_PORT_IN_USE' : 'ERR_ADDRESS_REFUSED'
      reject(new KeyriseError(code, { detail, cause: error }))
    }
    server.once('error', failed)
    server.listen(address, () => {
      server.off('error', failed)
      // Running out of file descriptors, say, must not end the process: connections wait.
      server.on('error', () => undefined)
      resolve()
    })
  })

const closeServer = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), CLOSING_MS_MAX)
    server.close(() => {
      clearTimeout(timer)
      resolve()
    })
    server.closeIdleConnections()
  })

/** HTTP statuses of refusals that come before any frame is read. */
type Refusal = readonly [status: number, code: ErrorCode, detail: string]

class FrontDesk {
  /** Undefined before it is open, and from when it is told to close. */
  kms: OpenKms | undefined
  readonly #budget: Budget = { leftSizeBytes: HELD_SIZE_BYTES_MAX, arriving: new Set() }

  /** Answers every request: with what it asks for, or with a code. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A client that goes away is no failure of ours.
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    const path = (request.url ?? '').split('?', 1)[0]
    if (path === '/v1/exchange') return this.#exchange(request, response)
    const page = path === undefined ? undefined : this.#page(path)
    if (page === undefined) return refuse(response, NO_SUCH_PATH)
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(response, NOT_THAT_WAY)
    return sendJson(response, ...page)
  }

  #page(path: string): [status: number, value: object] | undefined {
    switch (path) {
      case '/v1/identity':
        return this.kms === undefined
          ? [503, { ready: false }]
          : [200, { identity: toHex(this.kms.identity), keys: this.kms.keys }]
      case '/healthz':
        return [200, { status: 'ok' }]
      case '/readyz':
        return [this.kms === undefined ? 503 : 200, { ready: this.kms !== undefined }]
      default:
        return undefined
    }
  }

  async #exchange(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const kms = this.kms
    if (kms === undefined) return refuse(response, NOT_READY)
    const claimedSize = request.headers['content-length']
    const size = claimedSize !== undefined && /^\d{1,10}$/.test(claimedSize) ? Number(claimedSize) : undefined
    const refusal = checkHeaders(request, size)
    if (refusal !== undefined) return refuse(response, refusal)
    const hold = new Hold(this.#budget, () => request.destroy())
    try {
      const frame = await readBody(request, hold)
      if (frame === 'busy') return refuse(response, BUSY)
      if (frame === 'broken') return void response.destroy()
      const reply = await kms.exchange(frame)
      response.writeHead(200, {
        'content-type': FRAME_TYPE,
        'content-length': reply.length,
        'cache-control': 'no-store',
      })
      await send(response, reply)
    } finally {
      hold.end()
    }
  }
}

/** What is wrong with a request for an exchange, before a byte of its body is read. */
const checkHeaders = (request: IncomingMessage, size: number | undefined): Refusal | undefined => {
  if (request.method !== 'POST') return NOT_THAT_WAY
  if (request.headers['content-type'] !== FRAME_TYPE) return [415, 'ERR_REQUEST_INVALID', `content-type: ${FRAME_TYPE}`]
  if (size === undefined) return [411, 'ERR_REQUEST_INVALID', 'content-length is needed']
  if (size > KMS_FRAME_SIZE_BYTES_MAX)
    return [413, 'ERR_SIZE_LIMIT', `a frame has at most ${KMS_FRAME_SIZE_BYTES_MAX} bytes`]
  return undefined
}

const NO_SUCH_PATH: Refusal = [404, 'ERR_REQUEST_INVALID', 'no such path']
const NOT_THAT_WAY: Refusal = [405, 'ERR_REQUEST_INVALID', 'not with this method']

const NOT_READY: Refusal = [503, 'ERR_KMS_FAILED', 'it is starting or stopping']
const BUSY: Refusal = [503, 'ERR_CALLS_LIMIT', 'try again in a moment']

/** Memory for large frames, shared by all requests. */
interface Budget {
  leftSizeBytes: number
  /** Those whose frames are large and not whole, the first to have become so first. */
  readonly arriving: Set<Hold>
}

/** What one request holds of the budget: what has arrived of it, from the moment it is large. */
class Hold {
  readonly #budget: Budget
  readonly #breakOff: () => void
  #sizeBytes = 0
  #sinceMs = 0

  /** @param breakOff - called where it must make room: no more of the frame is to come. */
  constructor(budget: Budget, breakOff: () => void) {
    this.#budget = budget
    this.#breakOff = breakOff
  }

  /** False when the frame grows larger than there is room for. */
  grow(totalSizeBytes: number): boolean {
    if (totalSizeBytes <= SMALL_FRAME_SIZE_BYTES_MAX) return true
    const budget = this.#budget
    if (this.#sizeBytes === 0) {
      this.#sinceMs = performance.now()
      budget.arriving.add(this)
    }
    const more = totalSizeBytes - this.#sizeBytes
    for (const other of budget.arriving) {
      if (more <= budget.leftSizeBytes || !other.#isLate()) break
      if (other !== this) other.#giveUp()
    }
    if (more > budget.leftSizeBytes) return false
    budget.leftSizeBytes -= more
    this.#sizeBytes += more
    return true
  }

  /** All of the frame is there. */
  arrived(): void {
    this.#budget.arriving.delete(this)
  }

  /** Safe to repeat. */
  end(): void {
    this.arrived()
    this.#budget.leftSizeBytes += this.#sizeBytes
    this.#sizeBytes = 0
  }

  #isLate(): boolean {
    return performance.now() - this.#sinceMs > ARRIVAL_MS_MAX
  }

  #giveUp(): void {
    this.end()
    this.#breakOff()
  }
}

/** The body, as it arrives: a claimed length alone takes no memory. */
const readBody = async (request: IncomingMessage, hold: Hold): Promise<Bytes | 'busy' | 'broken'> => {
  const parts: Uint8Array[] = []
  const tiny: Uint8Array[] = []
  let size = 0
  try {
    for await (const part of request as AsyncIterable<Uint8Array>) {
      size += part.length
      if (!hold.grow(size)) return 'busy'
      if (part.length <= TINY_PART_SIZE_BYTES_MAX) tiny.push(part)
      else parts.push(...tiny.splice(0), part)
      if (tiny.length === TINY_PART_COUNT_MAX) parts.push(concatBytes(...tiny.splice(0)))
    }
  } catch {
    return 'broken'
  }
  hold.arrived()
  return concatBytes(...parts, ...tiny)
}

/** Settles when the answer is on its way, or its reader gone: one who does not read holds it no longer than it may take to send. */
const send = (response: ServerResponse, reply: Uint8Array): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => response.destroy(), REQUEST_MS_MAX)
    const settle = (): void => {
      clearTimeout(timer)
      resolve()
    }
    response.once('close', settle).end(reply, settle)
  })

const sendJson = (response: ServerResponse, status: number, value: object): void => {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(`${JSON.stringify(value)}\n`)
}

/** Refuses, and ends the connection: what is left of the body is not waited for. */
const refuse = (response: ServerResponse, [status, code, detail]: Refusal): void => {
  response.setHeader('connection', 'close')
  sendJson(response, status, { code, detail, remedy: describeError(code).remedy })
}
