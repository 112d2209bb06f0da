import { Agent, request as startRequest } from 'node:http'
import { connect } from 'node:net'
import { decodeCbor } from '../../protocol/cbor.js'
import { isErrorCode } from '../../protocol/errors.js'
import { Dice } from '../boundary/hostile-messages.js'
import { FuzzRequests, type FuzzRequest, type Surface } from './fuzz-requests.js'

/** Where a KMS is to be reached, by surface: a port of loopback, or a socket. */
export type Addresses = Readonly<
  Record<Surface, { readonly host: string; readonly port: number } | { readonly path: string }>
>

export interface FuzzReport {
  readonly requests: number
  /** How often each was answered: codes of refusals, `ok`, or `closed` where what was sent was no HTTP. */
  readonly codes: Readonly<Record<string, number>>
  /** The first of them, each with its request. */
  readonly violations: readonly string[]
  readonly seed: number
  readonly seconds: number
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly text: string
  readonly bytes: Uint8Array
}

const UNDER_WAY_COUNT = 16
/** Longer, and it hangs. What is no request yet is given 5 s to become one, and looked at every 2 s. */
const PATIENCE_MS = 10_000
const TOLD_COUNT_MAX = 20
/** A stack, or a place in a file: neither leaves. */
const INSIDE = /\bat .{1,200}:\d+:\d+|node:internal|\.[cm]?[jt]s:\d+/

/** In an answer’s body, or in a connection’s bytes, which may come in chunks. */
const REFUSAL = /^(?:[0-9a-f]+\r\n)?\{"code":"([A-Z0-9_]+)"/

/** Sends so many requests, some at a time, and judges each answer. */
export const fuzzServer = async (
  addresses: Addresses,
  options: {
    readonly requests: number
    readonly seed: number
    /** Frames that the KMS answers. */
    readonly frames: readonly Uint8Array[]
    readonly say?: (sent: number) => void
  },
): Promise<FuzzReport> => {
  const { requests, seed, frames, say = () => undefined } = options
  const made = new FuzzRequests(new Dice(seed), frames)
  const codes: Record<string, number> = {}
  const violations: string[] = []
  const startMs = performance.now()
  const agent = new Agent({ keepAlive: true, maxSockets: UNDER_WAY_COUNT })
  let sent = 0
  const work = async (): Promise<void> => {
    while (sent < requests && violations.length < TOLD_COUNT_MAX) {
      const request = made.next()
      if (++sent % 1000 === 0) say(sent)
      const outcome = await judged(request, addresses, agent)
      if ('code' in outcome) codes[outcome.code] = (codes[outcome.code] ?? 0) + 1
      else violations.push(`${outcome.violation}: ${describe(request)}`)
    }
  }
  await Promise.all(Array.from({ length: UNDER_WAY_COUNT }, work))
  agent.destroy()
  return { requests: sent, codes, violations, seed, seconds: (performance.now() - startMs) / 1000 }
}

const describe = ({ surface, method, path, headers, body, raw }: FuzzRequest): string =>
  raw === undefined
    ? `${surface} ${method} ${path.slice(0, 200)} ${JSON.stringify(headers).slice(0, 200)} ${Buffer.from(body ?? [])
        .toString('base64')
        .slice(0, 400)}`
    : `${surface} ${Buffer.from(raw).toString('base64').slice(0, 400)}`

type Outcome = { readonly code: string } | { readonly violation: string }

const judged = async (request: FuzzRequest, addresses: Addresses, agent: Agent): Promise<Outcome> => {
  try {
    const answer =
      request.raw === undefined
        ? await ask(request, addresses, agent)
        : await say(request.raw, addresses[request.surface])
    return answer === undefined ? { code: 'closed' } : judge(request, answer)
  } catch (error) {
    return { violation: error instanceof Error ? error.message : 'no answer' }
  }
}

const judge = (request: FuzzRequest, { status, type, text, bytes }: Answer): Outcome => {
  if (INSIDE.test(text)) return { violation: 'it tells of its inside' }
  if ((status >= 500 && status !== 503) || (status >= 300 && status < 400))
    return { violation: `status ${String(status)}` }
  if (status >= 400 && request.method === 'HEAD') return { code: 'HEAD' }
  const isFrame = request.path === '/v1/exchange' && type === 'application/octet-stream'
  const code = status >= 400 ? REFUSAL.exec(text)?.[1] : isFrame ? codeOfFrame(bytes) : 'ok'
  // A KMS that lacks nothing has no reason to fail: it would be a 500 by another name.
  if (code === 'ERR_KMS_FAILED') return { violation: code }
  return code === 'ok' || isErrorCode(code) ? { code } : { violation: `status ${String(status)} without a code` }
}

/** The code in a frame that answers one; what it carries otherwise is not looked at. */
const codeOfFrame = (frame: Uint8Array): unknown => {
  try {
    return (decodeCbor(frame) as { readonly error?: unknown }).error ?? 'ok'
  } catch {
    // A segment’s answer is CBOR in its head alone.
    return 'ok'
  }
}

const ask = (request: FuzzRequest, addresses: Addresses, agent: Agent): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { surface, method, path, headers, body } = request
    const address = addresses[surface]
    const to = 'path' in address ? { socketPath: address.path } : { ...address, agent }
    const sizes = body === undefined ? {} : { 'content-length': String(body.length) }
    const sending = startRequest({
      ...to,
      method,
      path,
      headers: { ...headers, ...sizes } as Record<string, string>,
      timeout: PATIENCE_MS,
    })
    sending.on('timeout', () => sending.destroy(new Error('it hangs')))
    sending.on('error', reject)
    sending.on('response', (response) => {
      const parts: Uint8Array[] = []
      response.on('data', (part: Uint8Array) => parts.push(part))
      response.on('error', reject)
      response.on('end', () => {
        const bytes = Buffer.concat(parts)
        const type = response.headers['content-type'] ?? ''
        resolve({
          status: response.statusCode ?? 0,
          type,
          text: bytes.toString('latin1'),
          bytes: Uint8Array.from(bytes),
        })
      })
    })
    sending.end(body)
  })

/** Undefined where the connection is closed without an answer, as it may be where nothing was asked in HTTP. */
const say = (raw: Uint8Array, address: Addresses[Surface]): Promise<Answer | undefined> =>
  new Promise((resolve, reject) => {
    const parts: Uint8Array[] = []
    const socket = connect('path' in address ? { path: address.path } : address)
    socket.setTimeout(PATIENCE_MS, () => {
      reject(new Error('it hangs'))
      socket.destroy()
    })
    socket.on('data', (part) => parts.push(part))
    socket.on('error', () => undefined)
    socket.on('close', () => {
      const text = Buffer.concat(parts).toString('latin1')
      const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)
      const body = text.slice(text.indexOf('\r\n\r\n') + 4)
      resolve(status === 0 ? undefined : { status, type: '', text: body, bytes: new Uint8Array(0) })
    })
    socket.end(raw)
  })
