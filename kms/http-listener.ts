import { randomUUID } from 'node:crypto'
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { ListenOptions } from 'node:net'
import type { Duplex } from 'node:stream'
import { describeError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { noteFault, type RequestNote } from './request-note.js'
import { lend, type ListenerTls } from './tls.js'

/** A whole request, the largest frame over loopback included. */
export const REQUEST_MS_MAX = 30_000
const CONNECTION_COUNT_MAX = 1024
const HEADERS_MS_MAX = 5_000
const HEADERS_SIZE_BYTES_MAX = 8 * 1024
/** Between two requests of a connection. */
const IDLE_MS_MAX = 60_000
/** How often the three above are looked at. */
const CHECKING_MS = 2_000
/** For answers under way when the server is told to stop. */
const CLOSING_MS_MAX = 5_000

/** What answers each request of a listener, and writes down what it was. */
export type Answer = (request: IncomingMessage, response: ServerResponse, note: RequestNote) => Promise<void>

/** A request that has been answered, or whose connection has ended before. */
export interface Answered {
  readonly note: RequestNote
  /** HTTP’s; 0 where no answer left. */
  readonly status: number
  readonly seconds: number
}

/** Told of every request of a listener. */
export interface Watch {
  began(): void
  ended(answered: Answered): void
}

export type HttpServer = Server | TlsServer

/** An HTTP server with the limits of both surfaces, not listening yet; with an authority in `tls`, only for clients that it certifies. */
export const makeServer = (answer: Answer, tls?: ListenerTls, watch?: Watch): HttpServer => {
  const limits = {
    maxHeaderSize: HEADERS_SIZE_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    headersTimeout: HEADERS_MS_MAX,
    keepAliveTimeout: IDLE_MS_MAX,
    connectionsCheckingInterval: CHECKING_MS,
    // Node would refuse its absence without a code; nothing here looks at it.
    requireHostHeader: false,
  }
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const note = begin(request, response, watch)
    answer(request, response, note).catch((error: unknown) => fail(response, note, error))
  }
  const server =
    tls === undefined ? createServer(limits, onRequest) : createTlsServer({ ...limits, ...tlsOptions(tls) }, onRequest)
  server.maxConnections = CONNECTION_COUNT_MAX
  refuseUnread(server, watch)
  return server
}

const begin = (request: IncomingMessage, response: ServerResponse, watch: Watch | undefined): RequestNote => {
  // A client that goes away is no failure of ours.
  request.on('error', () => undefined)
  response.on('error', () => undefined)
  const note: RequestNote = { id: randomUUID(), op: 'unknown' }
  let startMs = performance.now()
  // What its client takes to send it, waiting for a disk of its own perhaps, is no time of ours.
  request.once('end', () => (startMs = performance.now()))
  response.setHeader('x-request-id', note.id)
  if (watch !== undefined) {
    watch.began()
    response.on('close', () => {
      const status = response.headersSent ? response.statusCode : 0
      watch.ended({ note, status, seconds: (performance.now() - startMs) / 1000 })
    })
  }
  return note
}

/** A fault of ours ends one connection, not the process; the operator’s log has what is known of it. */
const fail = (response: ServerResponse, note: RequestNote, error: unknown): void => {
  noteFault(note, 'ERR_KMS_FAILED', error)
  if (response.headersSent) response.destroy()
  else refuse(response, FAILED, note)
}

/** What Node would refuse by itself, without a code: what cannot be read as HTTP, or asks for what is not spoken here. */
const refuseUnread = (server: HttpServer, watch: Watch | undefined): void => {
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy()
    endRaw(socket, UNREAD[error.code ?? ''] ?? [400, 'ERR_REQUEST_INVALID', 'it is not HTTP'])
  })
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => undefined)
    endRaw(socket, NOT_THAT_WAY)
  })
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    refuse(response, [417, 'ERR_REQUEST_INVALID', 'expect: 100-continue alone'], begin(request, response, watch))
  })
}

const UNREAD: Readonly<Record<string, Refusal>> = {
  HPE_HEADER_OVERFLOW: [431, 'ERR_SIZE_LIMIT', 'the headers are too large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'ERR_REQUEST_INVALID', 'it took too long to arrive'],
}

/** Of a connection of which no request could be made. */
const endRaw = (socket: Duplex, refusal: Refusal): void => {
  const body = refusalBody(refusal)
  const head = [
    `HTTP/1.1 ${String(refusal[0])} ${STATUS_CODES[refusal[0]] ?? 'Refused'}`,
    'content-type: application/json',
    `content-length: ${String(Buffer.byteLength(body))}`,
    'connection: close',
    `x-request-id: ${randomUUID()}`,
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

const tlsOptions = ({ cert, key, clientCa }: ListenerTls) => ({
  cert: lend(cert),
  key: lend(key),
  ...(clientCa === undefined ? {} : { ca: lend(clientCa), requestCert: true, rejectUnauthorized: true }),
  // RFC 8446, and nothing before it.
  minVersion: 'TLSv1.3' as const,
  handshakeTimeout: HEADERS_MS_MAX,
})

/** @param name - of the address, for messages. @throws {KeyriseError} ERR_PORT_IN_USE, ERR_ADDRESS_REFUSED. */
export const listen = (server: HttpServer, address: ListenOptions, name: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const code = error.code === 'EADDRINUSE' ? 'ERR_PORT_IN_USE' : 'ERR_ADDRESS_REFUSED'
      reject(new KeyriseError(code, { detail: name, cause: error }))
    }
    server.once('error', failed)
    server.listen(address, () => {
      server.off('error', failed)
      // Running out of file descriptors, say, must not end the process: connections wait.
      server.on('error', () => undefined)
      resolve()
    })
  })

/** Takes no more connections, and settles when every answer under way is sent, or its time is over. */
export const closeServer = (server: HttpServer): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), CLOSING_MS_MAX)
    server.close(() => {
      clearTimeout(timer)
      resolve()
    })
    server.closeIdleConnections()
  })

/** HTTP status, code and detail of a request that is not answered with what it asks for. */
export type Refusal = readonly [status: number, code: ErrorCode, detail: string]

export const NO_SUCH_PATH: Refusal = [404, 'ERR_REQUEST_INVALID', 'no such path']
/** What went wrong inside stays inside. */
export const FAILED: Refusal = [503, 'ERR_KMS_FAILED', 'see the KMS’s log']
export const NOT_THAT_WAY: Refusal = [405, 'ERR_REQUEST_INVALID', 'not with this method']

/** The size that a request tells for its body; undefined where it tells none that can be read. */
export const claimedSize = ({ headers }: IncomingMessage): number | undefined => {
  const claimed = headers['content-length']
  return claimed !== undefined && /^\d{1,10}$/.test(claimed) ? Number(claimed) : undefined
}

export const sendJson = (response: ServerResponse, status: number, value: object): void => {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(`${JSON.stringify(value)}\n`)
}

/** Refuses, and ends the connection: what is left of the body is not waited for. */
export const refuse = (response: ServerResponse, refusal: Refusal, note: RequestNote): void => {
  const [status, code, detail] = refusal
  note.code = code
  note.detail ??= detail
  response.setHeader('connection', 'close')
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(refusalBody(refusal))
}

const refusalBody = ([, code, detail]: Refusal): string =>
  `${JSON.stringify({ code, detail, remedy: describeError(code).remedy })}\n`
