import { concatBytes } from '../../protocol/bytes.js'
import type { AdminRoute } from '../../kms/admin-route.js'
import { ADMIN_ROUTES } from '../../kms/admin-routes.js'
import type { ObjectSchema, Schema } from '../../kms/admin-schema.js'
import { OPENAPI_PATH } from '../../kms/openapi.js'
import type { Dice } from '../boundary/hostile-messages.js'

/** Which listener of a KMS. */
export type Surface = 'enclaves' | 'admin'

/** One request, as a client of Node’s makes it, or as bytes on a connection of its own. */
export interface FuzzRequest {
  readonly surface: Surface
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly body: Uint8Array | undefined
  /** Sent as it is instead; what there is of it may not be HTTP. */
  readonly raw?: Uint8Array
}

/** What an operator may do, and a fuzzer must not: these are sent, but never as the description wants them. */
const DRASTIC: ReadonlySet<string> = new Set(['/v1/seal', '/v1/keys/rotate', '/v1/keys/state', '/v1/backups'])
const ENCLAVE_PATHS = ['/v1/exchange', '/v1/identity', '/healthz', '/readyz'] as const
const STRANGE_PATHS = [
  '/',
  '',
  '*',
  '//',
  '/v1',
  '/v1/exchange/',
  '/../../etc/passwd',
  '/%2e%2e/%2e%2e/keyring.age',
  '/console/../admin.sock',
  '/__proto__',
  '/constructor',
  '/v1/exchange?x=1',
  '/v1/status?a=1&a=2',
  '/%00',
  '/%ff',
  `/${'a'.repeat(4000)}`,
  'http://other.example/v1/status',
] as const
const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND'] as const
const TYPES = [
  'application/json',
  'application/octet-stream',
  'text/plain',
  'multipart/form-data',
  'application/json; charset=utf-16',
  '',
] as const
const WORDS = [
  '',
  'x',
  '__proto__',
  'constructor',
  'root@1',
  'root@0',
  '../../x',
  '\u0000',
  '\ud800',
  'é'.repeat(40),
  '9'.repeat(400),
] as const

const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'utf8'))

/** Makes requests from the description of a KMS and beyond it, all of them from one seed. */
export class FuzzRequests {
  readonly #dice: Dice
  readonly #frames: readonly Uint8Array[]

  /** @param frames - that a KMS answers, to be sent again, changed and cut. */
  constructor(dice: Dice, frames: readonly Uint8Array[]) {
    this.#dice = dice
    this.#frames = frames
  }

  next(): FuzzRequest {
    const roll = this.#dice.roll(20)
    if (roll < 8) return this.#exchange()
    if (roll < 15) return this.#admin(this.#dice.pick(ADMIN_ROUTES))
    if (roll < 18) return this.#strange()
    return { ...this.#strange(), raw: this.#raw() }
  }

  /** Random bytes of a size. */
  noise(size: number): Uint8Array {
    return Uint8Array.from({ length: size }, () => this.#dice.roll(256))
  }

  #exchange(): FuzzRequest {
    const headers = { 'content-type': this.#dice.roll(8) === 0 ? this.#dice.pick(TYPES) : 'application/octet-stream' }
    return { surface: 'enclaves', method: 'POST', path: '/v1/exchange', headers, body: this.#frame() }
  }

  #frame(): Uint8Array {
    const dice = this.#dice
    const frame = Uint8Array.from(dice.pick(this.#frames))
    switch (dice.roll(6)) {
      case 0:
        return this.noise(dice.roll(200))
      case 1:
        // CBOR that claims far more than there is.
        return concatBytes(
          Uint8Array.of(dice.pick([0x5b, 0x7b, 0x9b, 0xbb, 0xdb, 0x9f])),
          this.noise(8),
          this.noise(dice.roll(20)),
        )
      case 2:
        return Uint8Array.from({ length: 1 + dice.roll(5000) }, () => dice.pick([0x81, 0xa1, 0x82]))
      case 3:
        return frame.subarray(0, dice.roll(frame.length + 1))
      case 4:
        return frame
      default:
        for (let count = 1 + dice.roll(4); count > 0; count--) frame[dice.roll(frame.length)] = dice.roll(256)
        return frame
    }
  }

  #admin(route: AdminRoute): FuzzRequest {
    const dice = this.#dice
    const { method, path, request } = route
    const surface = 'admin'
    const isChanged = DRASTIC.has(path) || dice.roll(3) > 0
    if (typeof request !== 'string' && method === 'GET') {
      const claimed = isChanged ? this.#changed(request) : this.#object(request)
      const query = Object.entries(Object(claimed) as object).map(
        ([key, value]) => `${encode(key)}=${encode(String(value))}`,
      )
      return { surface, method, path: `${path}?${query.join('&')}`, headers: {}, body: undefined }
    }
    if (request === 'none' || request === 'secret') {
      const body = request === 'secret' || isChanged ? this.noise(1 + dice.roll(2000)) : undefined
      const type = isChanged ? dice.pick(TYPES) : 'application/octet-stream'
      // Without a body, one of these would be what it is for.
      return { surface, method, path, headers: { 'content-type': type }, body }
    }
    const claimed = isChanged ? this.#changed(request) : this.#object(request)
    const text = dice.roll(6) === 0 ? this.#noJson(JSON.stringify(claimed)) : ascii(JSON.stringify(claimed))
    const type = dice.roll(8) === 0 ? dice.pick(TYPES) : 'application/json'
    return { surface, method, path, headers: { 'content-type': type }, body: text }
  }

  #noJson(text: string): Uint8Array {
    switch (this.#dice.roll(4)) {
      case 0:
        return ascii(text.slice(0, this.#dice.roll(text.length)))
      case 1:
        return concatBytes(ascii(text), this.noise(3))
      case 2:
        return ascii('['.repeat(1 + this.#dice.roll(60_000)))
      default:
        return this.noise(40)
    }
  }

  #value(schema: Schema): unknown {
    const dice = this.#dice
    switch (schema.type) {
      case 'string':
        return schema.enum !== undefined ? dice.pick(schema.enum) : dice.pick(WORDS).slice(0, schema.maxLength)
      case 'integer':
        return dice.pick([schema.minimum, schema.maximum])
      case 'boolean':
        return dice.roll(2) === 0
      case 'array':
        return Array.from({ length: dice.roll(Math.min(4, schema.maxItems + 1)) }, () => this.#value(schema.items))
      case 'object':
        return this.#object(schema)
    }
  }

  #object({ properties, required }: ObjectSchema): unknown {
    const wanted = Object.entries(properties).filter(([key]) => required.includes(key) || this.#dice.roll(2) === 0)
    return Object.fromEntries(wanted.map(([key, schema]) => [key, this.#value(schema)]))
  }

  /** What the schema does not describe. */
  #changed(schema: ObjectSchema): unknown {
    const dice = this.#dice
    const right = this.#object(schema) as Record<string, unknown>
    const key = dice.pick([...Object.keys(schema.properties), 'x'])
    switch (dice.roll(5)) {
      case 0:
        return { ...right, [dice.pick(['x', '__proto__2', 'constructor', 'toString'])]: dice.pick(WORDS) }
      case 1:
        return JSON.parse(`{"__proto__":{"x":1},"${key}":null}`) as unknown
      case 2:
        return { ...right, [key]: dice.pick([null, -1, 1.5, 1e308, [], {}, true, 'x'.repeat(70_000)]) }
      case 3:
        return dice.pick([[], 'x', 7, null, [right]])
      default:
        return { ...right, [key]: [[[[[[dice.pick(WORDS)]]]]]] }
    }
  }

  #strange(): FuzzRequest {
    const dice = this.#dice
    const path = dice.pick([
      ...STRANGE_PATHS,
      ...ENCLAVE_PATHS,
      ...ADMIN_ROUTES.map((route) => route.path),
      OPENAPI_PATH,
      '/metrics',
      '/',
    ])
    const surface = dice.pick(['enclaves', 'admin'] as const)
    // Never what an operator would send.
    const method = dice.pick(DRASTIC.has(path) ? METHODS.filter((name) => name !== 'POST') : METHODS)
    const headers = {
      'content-type': dice.pick(TYPES),
      ...(dice.roll(4) === 0 ? { expect: 'the impossible' } : {}),
      ...(dice.roll(4) === 0 ? { 'x-request-id': '<script>' } : {}),
      ...(dice.roll(4) === 0 ? { authorization: `Bearer ${'x'.repeat(dice.roll(200))}` } : {}),
      // Refused unread: whoever answers does not know that a HEAD wants no body.
      ...(method !== 'HEAD' && dice.roll(8) === 0 ? { 'x-large': 'x'.repeat(dice.roll(12_000)) } : {}),
    }
    return {
      surface,
      method,
      path: path === '' ? '/' : path,
      headers,
      body: dice.roll(2) === 0 ? undefined : this.noise(dice.roll(300)),
    }
  }

  /** Bytes that are nearly HTTP, or not at all. */
  #raw(): Uint8Array {
    const dice = this.#dice
    const path = dice.pick([...ENCLAVE_PATHS, '/v1/status'])
    switch (dice.roll(8)) {
      case 0:
        return this.noise(1 + dice.roll(400))
      case 1:
        return ascii(`POST ${path} HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!`)
      case 2:
        return ascii(`POST ${path} HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nffffffff\r\nabc`)
      case 3:
        return ascii(
          `POST ${path} HTTP/1.1\r\ncontent-length: ${dice.pick(['-1', '1e9', '99999999999999999999', 'x'])}\r\n\r\n`,
        )
      case 4:
        return ascii(`GET ${path} HTTP/${dice.pick(['0.9', '1.0', '2.0', '9.9', 'x'])}\r\n\r\n`)
      case 5:
        return ascii(`GET ${path} HTTP/1.1\r\n${'x: y\r\n'.repeat(dice.roll(3000))}\r\n`)
      case 6:
        return ascii(
          `POST ${path} HTTP/1.1\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n`,
        )
      default:
        return ascii(`GET ${path} HTTP/1.1\r\nhost: a\r\nbad header\u0000: x\r\n\r\n`)
    }
  }
}

const encode = (text: string): string => encodeURIComponent(text.replace(/[\ud800-\udfff]/g, ''))
