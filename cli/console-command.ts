import { randomBytes, timingSafeEqual } from 'node:crypto'
import { request as startRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Command } from 'commander'
import { adminSocketPath } from '../kms/admin-socket.js'
import { listen, makeServer } from '../kms/http-listener.js'
import { askKms } from './admin-client.js'
import { withRunning, wholeNumber, type RunningFlags } from './arguments.js'
import { statusRoute } from '../kms/admin-control.js'
import { printResult } from './terminal.js'

/**
 * `keyrise kms console`: shows a browser on this machine the console of the KMS that runs in a directory. The admin surface is a
 * unix socket, which a browser cannot open; this passes on what the console asks for, and nothing else, for who has the token.
 */

interface ConsoleFlags extends RunningFlags {
  readonly port: number
}

const HOST = '127.0.0.1'
const TOKEN_SIZE_BYTES = 24
/** What the console is made of, and what it asks for: everything else on the admin surface stays out of reach. */
const FILES = new Set(['/console', '/console/', '/console/style.css', '/console/page.js'])
const STATE = '/v1/console'

export const addConsoleCommand = (kms: Command): void => {
  withRunning(
    kms
      .command('console')
      .description('show the console of a running KMS to a browser on this machine, until interrupted'),
  )
    .option('--port <n>', 'the port on 127.0.0.1; 0 for any free one', wholeNumber(0, 65_535), 0)
    .action(showConsole)
}

const showConsole = async ({ directory, adminSocket, port, json }: ConsoleFlags): Promise<void> => {
  const place = { directory, ...(adminSocket === undefined ? {} : { adminSocket }) }
  // Where no KMS runs, it is said now and not in the browser.
  await askKms(place, statusRoute, undefined)
  const { url, close } = await passOn(adminSocket ?? adminSocketPath(directory), port)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  printResult(json === true, { url }, [`console  ${url}`, 'The link signs in; Ctrl-C ends it.'])
}

/**
 * Listens on loopback for browsers, and passes on what the console asks for.
 * @returns `url`: with the token that signs in. @throws {KeyriseError} ERR_PORT_IN_USE, ERR_ADDRESS_REFUSED.
 */
export const passOn = async (socketPath: string, port: number): Promise<{ url: string; close: () => void }> => {
  const token = randomBytes(TOKEN_SIZE_BYTES).toString('base64url')
  const server = makeServer((request, response) => {
    const isFor = `${HOST}:${String((server.address() as AddressInfo).port)}`
    const status = refusalStatus(request, isFor, token)
    if (status === undefined) forward(socketPath, request, response)
    else response.writeHead(status, { connection: 'close' }).end()
    return Promise.resolve()
  })
  await listen(server, { host: HOST, port }, `${HOST}:${port}`)
  const close = (): void => {
    server.close()
    server.closeAllConnections()
  }
  return { url: `http://${HOST}:${(server.address() as AddressInfo).port}/console#${token}`, close }
}

/** What a request is refused with; undefined where it is passed on. */
const refusalStatus = (request: IncomingMessage, host: string, token: string): number | undefined => {
  // A page of another origin can have a name of its own resolve to this address.
  if (request.headers.host !== host) return 421
  if (request.method !== 'GET') return 405
  const path = request.url?.split('?', 1)[0] ?? ''
  if (FILES.has(path)) return undefined
  if (path !== STATE) return 404
  return isToken(request.headers.authorization, token) ? undefined : 401
}

const isToken = (claimed: string | undefined, token: string): boolean => {
  const [given, wanted] = [Buffer.from(claimed ?? ''), Buffer.from(`Bearer ${token}`)]
  return given.length === wanted.length && timingSafeEqual(given, wanted)
}

const forward = (socketPath: string, request: IncomingMessage, response: ServerResponse): void => {
  const asked = startRequest({ socketPath, path: request.url, method: 'GET', agent: false }, (reply) => {
    response.writeHead(reply.statusCode ?? 502, reply.headers)
    reply.pipe(response)
  })
  asked.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()))
  response.on('close', () => asked.destroy())
  asked.end()
}
