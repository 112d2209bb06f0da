import type { IncomingMessage, ServerResponse } from 'node:http'
import { toHex } from '../protocol/bytes.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { KmsControl } from './control.js'
import { HELD_SIZE_BYTES_MAX, Hold, readBody, type Budget } from './held-frames.js'
import {
  claimedSize,
  NO_SUCH_PATH,
  NOT_THAT_WAY,
  refuse,
  REQUEST_MS_MAX,
  sendJson,
  type Refusal,
} from './http-listener.js'
import type { RequestNote } from './request-note.js'

const EXCHANGE_PATH = '/v1/exchange'
const FRAME_TYPE = 'application/octet-stream'

/** The enclaves’ surface: POST /v1/exchange (frames), GET /v1/identity, /healthz, /readyz. */
export class FrontDesk {
  /** Undefined before there is one, and from when it is told to close. */
  control: KmsControl | undefined
  readonly #budget: Budget = { leftSizeBytes: HELD_SIZE_BYTES_MAX, arriving: new Set() }

  /** Answers every request: with what it asks for, or with a code. */
  async answer(request: IncomingMessage, response: ServerResponse, note: RequestNote): Promise<void> {
    const path = (request.url ?? '').split('?', 1)[0]
    if (path === EXCHANGE_PATH) return this.#exchange(request, response, note)
    const page = path === undefined ? undefined : this.#page(path)
    if (path === undefined || page === undefined) return refuse(response, NO_SUCH_PATH, note)
    note.op = path
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(response, NOT_THAT_WAY, note)
    return sendJson(response, ...page)
  }

  #page(path: string): [status: number, value: object] | undefined {
    const kms = this.control?.kms
    const isServing = kms?.isServing === true
    switch (path) {
      case '/v1/identity':
        return kms === undefined ? [503, { ready: false }] : [200, { identity: toHex(kms.identity), keys: kms.keys }]
      case '/healthz':
        return [200, { status: 'ok' }]
      case '/readyz':
        return [isServing ? 200 : 503, { ready: isServing }]
      default:
        return undefined
    }
  }

  async #exchange(request: IncomingMessage, response: ServerResponse, note: RequestNote): Promise<void> {
    note.op = EXCHANGE_PATH
    const control = this.control
    if (control === undefined) return refuse(response, NOT_READY, note)
    const kms = control.kms
    if (kms === undefined) return refuse(response, SEALED, note)
    const refusal = checkHeaders(request, claimedSize(request))
    if (refusal !== undefined) return refuse(response, refusal, note)
    const hold = new Hold(this.#budget, () => request.destroy())
    try {
      const frame = await readBody(request, hold)
      if (frame === 'busy') return refuse(response, BUSY, note)
      if (frame === 'broken') return void response.destroy()
      const reply = await kms.exchange(frame, note)
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

const NOT_READY: Refusal = [503, 'ERR_KMS_FAILED', 'it is starting or stopping']
const SEALED: Refusal = [503, 'ERR_KMS_SEALED', 'nobody has given its passphrase']
const BUSY: Refusal = [503, 'ERR_CALLS_LIMIT', 'try again in a moment']

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
