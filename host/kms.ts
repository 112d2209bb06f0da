import { Agent, request, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import { concatBytes, equalPublicBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { decodeKmsReply, encodeKmsRequest } from '../protocol/kms.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { KmsLink } from '../protocol/ports.js'

export interface KmsConnectOptions {
  /** The identity that the KMS must have, 32 bytes. Without it, the one that answers first is believed. */
  readonly identity?: Uint8Array
  /** For `https:` addresses. */
  readonly tls?: KmsConnectTls
  /** For one exchange, all of it. */
  readonly deadlineMs?: number
}

/** What a host needs for a KMS with TLS, each PEM (RFC 7468). */
export interface KmsConnectTls {
  /** The authority that certifies the KMS’s server. */
  readonly ca: string | Buffer
  /** The host’s own certificate, which the KMS’s client authority has issued. */
  readonly cert: string | Buffer
  readonly key: Buffer
}

const DEADLINE_MS = 30_000
const CONNECTION_COUNT_MAX = 16
/** Frames that wait for a store, which may be slow: the other connections are for what need not wait. */
const AHEAD_COUNT_MAX = 8
const SEALED_STATUS = 503
const REFUSAL_LENGTH_MAX = 4096
const TOO_LARGE = 'the answer is too large'

/**
 * A link to a KMS over HTTP. What goes through it is sealed between enclave and KMS; the transport is not trusted.
 * @param url - as `keyrise kms serve` prints it: `https://kms.example:7600`, or `http://127.0.0.1:7600`.
 * @throws {KeyriseError} ERR_KMS_UNREACHABLE, ERR_KMS_UNTRUSTED when it claims another identity, ERR_CONFIG_INVALID.
 */
export const connectKms = async (url: string | URL, options: KmsConnectOptions = {}): Promise<KmsLink> => {
  const exchange = new HttpExchange(exchangeUrl(url, options.tls), options)
  try {
    const { identity } = decodeKmsReply('identity', await exchange.send(encodeKmsRequest({ op: 'identity' })))
    if (options.identity !== undefined && !equalPublicBytes(identity, options.identity)) {
      throw new KeyriseError('ERR_KMS_UNTRUSTED', { detail: `it claims the identity ${toHex(identity)}` })
    }
    const close = (): Promise<void> => exchange.close()
    return {
      identity,
      exchange: (frame) => exchange.send(frame),
      exchangeAfter: (durable, frame) => exchange.sendAfter(durable, frame),
      close,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await exchange.close()
    throw error
  }
}

const exchangeUrl = (base: string | URL, tls: KmsConnectTls | undefined): URL => {
  const text = String(base)
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== (tls === undefined ? 'http:' : 'https:'))
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: 'the address of the KMS: http://host:port, or with `tls` https://host:port',
    })
  url.pathname = url.pathname.replace(/\/*$/, '/v1/exchange')
  return url
}

/** POSTs frames over kept connections, a bounded number at once. */
class HttpExchange {
  readonly #url: URL
  readonly #deadlineMs: number
  readonly #agent: Agent
  readonly #request: typeof request
  #isClosed = false
  #aheadCount = 0

  constructor(url: URL, { tls, deadlineMs = DEADLINE_MS }: KmsConnectOptions) {
    this.#url = url
    this.#deadlineMs = deadlineMs
    const pooling = { keepAlive: true, maxSockets: CONNECTION_COUNT_MAX }
    this.#agent = tls === undefined ? new Agent(pooling) : new TlsAgent({ ...pooling, ...tls, minVersion: 'TLSv1.3' })
    this.#request = tls === undefined ? request : tlsRequest
  }

  send(frame: Uint8Array): Promise<Bytes> {
    return this.#exchange((request) => request.end(frame), frame.length)
  }

  /**
   * All but the last byte goes ahead: the way there, which takes longer than what is left, is over when `durable` resolves. Where
   * that went wrong (the KMS was restarted, or did not wait), nothing has come of it, and the frame goes whole.
   */
  async sendAfter(durable: Promise<void>, frame: Uint8Array): Promise<Bytes> {
    let isWhole = false as boolean
    if (this.#aheadCount < AHEAD_COUNT_MAX) {
      this.#aheadCount++
      try {
        return await this.#sendAhead(durable, frame, () => (isWhole = true))
      } catch (error) {
        if (isWhole) throw error
      } finally {
        this.#aheadCount--
      }
    }
    await durable
    return this.send(frame)
  }

  #sendAhead(durable: Promise<void>, frame: Uint8Array, whole: () => void): Promise<Bytes> {
    return this.#exchange((request, restart) => {
      request.write(frame.subarray(0, -1))
      durable.then(
        () => {
          if (request.destroyed) return
          whole()
          restart()
          request.end(frame.subarray(-1))
        },
        () => request.destroy(),
      )
    }, frame.length)
  }

  /** @param write - `restart` gives the exchange its whole time again. */
  async #exchange(write: (request: ClientRequest, restart: () => void) => void, sizeBytes: number): Promise<Bytes> {
    const deadline = new AbortController()
    const timer = setTimeout(() => {
      deadline.abort()
    }, this.#deadlineMs)
    try {
      if (this.#isClosed) throw new Error('closed')
      const asked = this.#post(sizeBytes, deadline.signal, (request) => write(request, () => timer.refresh()))
      return await readReply(await asked)
    } catch (error) {
      if (error instanceof KeyriseError) throw error
      throw new KeyriseError('ERR_KMS_UNREACHABLE', {
        detail: `${this.#url.origin} (${this.#why(error, deadline.signal)})`,
        cause: error,
      })
    } finally {
      clearTimeout(timer)
    }
  }

  close(): Promise<void> {
    this.#isClosed = true
    this.#agent.destroy()
    return Promise.resolve()
  }

  #why(error: unknown, deadline: AbortSignal): string {
    if (this.#isClosed) return 'the link is closed'
    if (deadline.aborted) return `no answer within ${String(this.#deadlineMs)} ms`
    return error instanceof Error && 'code' in error ? String(error.code) : 'the connection broke'
  }

  #post(sizeBytes: number, signal: AbortSignal, write: (request: ClientRequest) => void): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/octet-stream', 'content-length': sizeBytes }
      const options = { method: 'POST', agent: this.#agent, headers, signal }
      write(this.#request(this.#url, options, resolve).on('error', reject))
    })
  }
}

/** True where the body is the refusal of a sealed KMS: what else answers with this status is no concern of ours. */
const saysSealed = async (response: IncomingMessage): Promise<boolean> => {
  let text = ''
  for await (const part of response.setEncoding('latin1') as AsyncIterable<string>) {
    text += part
    if (text.length > REFUSAL_LENGTH_MAX) return false
  }
  return text.includes('"code":"ERR_KMS_SEALED"')
}

/** The whole of a reply, bounded before it is held. */
const readReply = async (response: IncomingMessage): Promise<Bytes> => {
  const refuse = (detail: string): never => {
    response.destroy()
    throw new KeyriseError('ERR_KMS_FAILED', { detail })
  }
  if (response.statusCode === SEALED_STATUS && (await saysSealed(response))) throw new KeyriseError('ERR_KMS_SEALED')
  if (response.statusCode !== 200) return refuse(`HTTP status ${String(response.statusCode)}`)
  if (Number(response.headers['content-length'] ?? 0) > KMS_FRAME_SIZE_BYTES_MAX) return refuse(TOO_LARGE)
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response as AsyncIterable<Uint8Array>) {
    size += part.length
    if (size > KMS_FRAME_SIZE_BYTES_MAX) return refuse(TOO_LARGE)
    parts.push(part)
  }
  return concatBytes(...parts)
}
