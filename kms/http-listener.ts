import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { ListenOptions } from 'node:net'
import { describeError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { lend, type ServeTls } from './tls.js'

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

/** What answers each request of a listener. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => Promise<void>

export type HttpServer = Server | TlsServer

/** An HTTP server with the limits of both surfaces, not listening yet; with `tls`, only for clients that its authority certifies. */
export const makeServer = (answer: Answer, tls?: ServeTls): HttpServer => {
  const limits = {
    maxHeaderSize: HEADERS_SIZE_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    headersTimeout: HEADERS_MS_MAX,
    keepAliveTimeout: IDLE_MS_MAX,
    connectionsCheckingInterval: CHECKING_MS,
  }
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    // A client that goes away is no failure of ours.
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    // A fault of ours ends one connection, not the process.
    answer(request, response).catch(() => response.destroy())
  }
  const server =
    tls === undefined ? createServer(limits, onRequest) : createTlsServer({ ...limits, ...tlsOptions(tls) }, onRequest)
  server.maxConnections = CONNECTION_COUNT_MAX
  return server
}

const tlsOptions = ({ cert, key, clientCa }: ServeTls) => ({
  cert: lend(cert),
  key: lend(key),
  ca: lend(clientCa),
  requestCert: true,
  rejectUnauthorized: true,
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
export const refuse = (response: ServerResponse, [status, code, detail]: Refusal): void => {
  response.setHeader('connection', 'close')
  sendJson(response, status, { code, detail, remedy: describeError(code).remedy })
}
