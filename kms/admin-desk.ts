import type { IncomingMessage, ServerResponse } from 'node:http'
import { concatBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { Secret } from '../protocol/crypto/secret.js'
import { consoleFile, sendConsoleFile } from './admin-console.js'
import type { AdminRoute, ReplyShape, RequestShape } from './admin-route.js'
import { ADMIN_ROUTES } from './admin-routes.js'
import { checkSchema, type ObjectSchema } from './admin-schema.js'
import type { KmsControl } from './control.js'
import { claimedSize, FAILED, NO_SUCH_PATH, NOT_THAT_WAY, refuse, sendJson, type Refusal } from './http-listener.js'
import { openApiDocument, OPENAPI_PATH } from './openapi.js'
import { noteFault, type RequestNote } from './request-note.js'

const REQUEST_SIZE_BYTES_MAX = 64 * 1024
const JSON_TYPE = 'application/json'
const BYTES_TYPE = 'application/octet-stream'

/** Answers what operators ask: with what they ask for, or with a code. */
export class AdminDesk {
  /** Undefined before there is one, and from when it is told to close. */
  control: KmsControl | undefined

  async answer(request: IncomingMessage, response: ServerResponse, note: RequestNote): Promise<void> {
    const [path, query] = (request.url ?? '').split('?', 2)
    const file = request.method === 'GET' ? await consoleFile(path) : undefined
    if (file !== undefined) {
      note.op = '/console'
      return sendConsoleFile(response, file)
    }
    if (path === OPENAPI_PATH && request.method === 'GET') {
      note.op = path
      return sendJson(response, 200, openApiDocument())
    }
    const routes = ADMIN_ROUTES.filter((route) => route.path === path)
    if (routes.length === 0) return refuse(response, NO_SUCH_PATH, note)
    note.op = path ?? ''
    const route = routes.find(({ method }) => method === request.method)
    if (route === undefined) return refuse(response, NOT_THAT_WAY, note)
    if (this.control === undefined) return refuse(response, [503, 'ERR_KMS_FAILED', 'it is starting or stopping'], note)
    try {
      const reply = await run(this.control, route, request, query ?? '')
      send(response, route.reply, reply)
    } catch (error) {
      const refusal = refusalOf(error)
      noteFault(note, refusal[1], error)
      refuse(response, refusal, note)
    }
  }
}

const run = async (
  control: KmsControl,
  route: AdminRoute,
  request: IncomingMessage,
  query: string,
): Promise<unknown> => {
  const body = await readRequest(route, request)
  if (route.request !== 'secret') return route.run(control, parseRequest(route, body, query) as never)
  using secret = Secret.take(body)
  return await route.run(control, secret)
}

/** @throws {KeyriseError} ERR_REQUEST_INVALID, ERR_SIZE_LIMIT. */
const readRequest = async (route: AdminRoute, request: IncomingMessage): Promise<Bytes> => {
  const sizeMax = bodySizeMax(route)
  const type = wantedType(route.request)
  const isEmpty = request.headers['content-length'] === undefined && request.headers['transfer-encoding'] === undefined
  if (route.method === 'POST' && type !== undefined) {
    if (request.headers['content-type'] !== type) throw invalid(`content-type: ${type}`)
    if (claimedSize(request) === undefined) throw invalid('content-length is needed')
  }
  if (!isEmpty && (claimedSize(request) ?? Infinity) > sizeMax) throw tooLarge(sizeMax)
  const parts: Uint8Array[] = []
  try {
    let size = 0
    for await (const part of request as AsyncIterable<Uint8Array>) {
      parts.push(part)
      size += part.length
      if (size > sizeMax) throw tooLarge(sizeMax)
    }
    return concatBytes(...parts)
  } finally {
    // A passphrase may be in them.
    for (const part of parts) part.fill(0)
  }
}

const bodySizeMax = (route: AdminRoute): number =>
  wantedType(route.request) === undefined || route.method === 'GET'
    ? 0
    : (route.requestSizeBytesMax ?? REQUEST_SIZE_BYTES_MAX)

const wantedType = (shape: RequestShape): string | undefined =>
  shape === 'none' ? undefined : shape === 'secret' ? BYTES_TYPE : JSON_TYPE

const invalid = (detail: string): KeyriseError => new KeyriseError('ERR_REQUEST_INVALID', { detail })
const tooLarge = (sizeMax: number): KeyriseError =>
  new KeyriseError('ERR_SIZE_LIMIT', { detail: `the body has at most ${String(sizeMax)} bytes` })

const parseRequest = (route: AdminRoute, body: Bytes, query: string): unknown => {
  if (typeof route.request === 'string') return undefined
  const claimed = route.method === 'GET' ? parseQuery(route.request, query) : parseJson(body)
  checkSchema(route.request, claimed, route.method === 'GET' ? 'query' : 'body')
  return claimed
}

const parseJson = (body: Bytes): unknown => {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw invalid('body: it is not JSON')
  }
}

/** A query’s texts as values of the types that the schema wants; what is none of them stays a text, and is refused. */
const parseQuery = ({ properties }: ObjectSchema, query: string): Record<string, unknown> => {
  // Without a prototype: a field may have any name.
  const fields = Object.create(null) as Record<string, unknown>
  for (const [key, text] of new URLSearchParams(query)) {
    if (Object.hasOwn(fields, key)) throw invalid('query: a field is given twice')
    const type = Object.hasOwn(properties, key) ? properties[key]?.type : undefined
    if (type === 'integer' && /^-?\d{1,16}$/.test(text)) fields[key] = Number(text)
    else if (type === 'boolean' && (text === 'true' || text === 'false')) fields[key] = text === 'true'
    else fields[key] = text
  }
  return fields
}

const send = (response: ServerResponse, shape: ReplyShape, reply: unknown): void => {
  if (typeof shape !== 'string') return sendJson(response, 200, reply as object)
  const type = shape === 'bytes' ? BYTES_TYPE : 'text/plain; version=0.0.4; charset=utf-8'
  response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' })
  response.end(reply as Bytes | string)
}

/** HTTP statuses of codes; what is not listed is a conflict with the state that the KMS is in. */
const STATUSES: Partial<Record<ErrorCode, number>> = {
  ERR_REQUEST_INVALID: 400,
  ERR_NAME_INVALID: 400,
  ERR_CONFIG_INVALID: 400,
  ERR_PASSPHRASE_WRONG: 403,
  ERR_SHARE_INVALID: 403,
  ERR_POLICY_DENIED: 403,
  ERR_SIZE_LIMIT: 413,
  ERR_PASSPHRASE_THROTTLED: 429,
  ERR_KMS_SEALED: 503,
  ERR_KMS_FAILED: 503,
  ERR_STORE_FULL: 503,
  ERR_STORE_IO: 503,
  ERR_STORE_UNWRITABLE: 503,
}

const refusalOf = (error: unknown): Refusal => {
  if (!isKeyriseError(error)) return FAILED
  return [STATUSES[error.code] ?? 409, error.code, error.detail ?? '']
}
