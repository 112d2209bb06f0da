import { request as startRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { concatBytes, type Bytes } from '../protocol/bytes.js'
import { isErrorCode, KeyriseError } from '../protocol/errors.js'
import { Secret } from '../protocol/crypto/secret.js'
import { statusRoute } from '../kms/admin-control.js'
import type { AdminRoute, ReplyOf, ReplyShape, RequestOf, RequestShape } from '../kms/admin-route.js'
import { problemOf } from '../kms/admin-schema.js'
import { adminSocketPath } from '../kms/admin-socket.js'
import { systemCode } from '../storage/failures.js'

/** Longer than any answer takes: opening a keyring, or answering what is under way before it is sealed. */
const DEADLINE_MS = 120_000
/** A backup is the largest. */
const REPLY_SIZE_BYTES_MAX = 1024 * 1024 * 1024

/** Where the admin surface of a KMS is. */
export interface AdminPlace {
  /** The KMS’s. */
  readonly directory: string
  /** Its admin socket, where it is not in the directory. */
  readonly adminSocket?: string
}

/**
 * Asks the KMS that runs at a place.
 * @returns undefined where none runs there: who wants something of its files may take them.
 * @throws {KeyriseError} the code that the KMS answers; ERR_KMS_FAILED: its answer is not understood; ERR_KMS_UNREACHABLE.
 */
export const askRunning = async <Q extends RequestShape, P extends ReplyShape>(
  place: AdminPlace,
  route: AdminRoute<Q, P>,
  request: RequestOf<Q>,
): Promise<ReplyOf<P> | undefined> => {
  const socketPath = place.adminSocket ?? adminSocketPath(place.directory)
  try {
    return await ask(socketPath, route, request)
  } catch (error) {
    if (error instanceof KeyriseError) throw error
    const why = systemCode(error)
    if (why === 'ENOENT' || why === 'ECONNREFUSED' || why === 'ENOTDIR') return undefined
    throw new KeyriseError('ERR_KMS_UNREACHABLE', { detail: `${socketPath} (${why ?? 'unknown'})`, cause: error })
  }
}

/** The same for what only a running KMS can do. @throws {KeyriseError} as `askRunning`; ERR_KMS_UNREACHABLE: none runs there. */
export const askKms = async <Q extends RequestShape, P extends ReplyShape>(
  place: AdminPlace,
  route: AdminRoute<Q, P>,
  request: RequestOf<Q>,
): Promise<ReplyOf<P>> => {
  const reply = await askRunning(place, route, request)
  if (reply === undefined)
    throw new KeyriseError('ERR_KMS_UNREACHABLE', { detail: place.adminSocket ?? adminSocketPath(place.directory) })
  return reply
}

/**
 * Before a command takes the ledger of a KMS: one that runs unlocked would find it taken, and serve nobody any more.
 * @throws {KeyriseError} ERR_KMS_UNLOCKED, ERR_KMS_UNREACHABLE.
 */
export const demandSealed = async (place: AdminPlace): Promise<void> => {
  const running = await askRunning(place, statusRoute, undefined)
  if (running?.state === 'unlocked')
    throw new KeyriseError('ERR_KMS_UNLOCKED', {
      detail: 'this needs it sealed, or stopped: `keyrise kms seal`, and `keyrise kms unlock` afterwards',
    })
}

const ask = async <Q extends RequestShape, P extends ReplyShape>(
  socketPath: string,
  route: AdminRoute<Q, P>,
  request: RequestOf<Q>,
): Promise<ReplyOf<P>> => {
  const response = await post(socketPath, route, request)
  const body = await readWhole(response)
  if (response.statusCode !== 200) throw refusalOf(body, response.statusCode)
  if (route.reply === 'bytes') return body as ReplyOf<P>
  if (route.reply === 'text') return new TextDecoder().decode(body) as ReplyOf<P>
  const claimed = parseJson(body)
  const problem = problemOf(route.reply, claimed, 'reply')
  if (problem !== undefined) throw new KeyriseError('ERR_KMS_FAILED', { detail: problem })
  return claimed as ReplyOf<P>
}

const post = (socketPath: string, route: AdminRoute, request: unknown): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const query = route.method === 'GET' && route.request !== 'none' ? `?${queryOf(request)}` : ''
    const signal = AbortSignal.timeout(DEADLINE_MS)
    const options: RequestOptions = { socketPath, path: route.path + query, method: route.method, signal, agent: false }
    const send = (body?: Uint8Array, type?: string): void => {
      const headers = body === undefined ? {} : { 'content-type': type, 'content-length': body.length }
      startRequest({ ...options, headers }, resolve)
        .on('error', reject)
        .end(body)
    }
    if (route.method === 'GET' || route.request === 'none') send()
    else if (request instanceof Secret) request.expose((bytes) => send(bytes, 'application/octet-stream'))
    else send(new TextEncoder().encode(JSON.stringify(request)), 'application/json')
  })

const queryOf = (request: unknown): string =>
  new URLSearchParams(
    Object.entries(request as Record<string, unknown>).map(([key, value]): [string, string] => [key, String(value)]),
  ).toString()

const readWhole = async (response: IncomingMessage): Promise<Bytes> => {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response as AsyncIterable<Uint8Array>) {
    size += part.length
    if (size > REPLY_SIZE_BYTES_MAX) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'the answer is too large' })
    parts.push(part)
  }
  return concatBytes(...parts)
}

const parseJson = (body: Bytes): unknown => {
  try {
    return JSON.parse(new TextDecoder().decode(body))
  } catch {
    throw new KeyriseError('ERR_KMS_FAILED', { detail: 'the answer is not JSON' })
  }
}

const refusalOf = (body: Bytes, status: number | undefined): KeyriseError => {
  const claimed = parseJson(body) as { readonly code?: unknown; readonly detail?: unknown } | null
  const [code, detail] = [claimed?.code, claimed?.detail]
  if (!isErrorCode(code)) return new KeyriseError('ERR_KMS_FAILED', { detail: `HTTP status ${String(status)}` })
  return new KeyriseError(code, typeof detail === 'string' && detail !== '' ? { detail } : {})
}
