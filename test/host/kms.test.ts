import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import test from 'ava'
import { connectKms } from '../../host/index.js'
import { allocate, concatBytes, equalPublicBytes } from '../../protocol/bytes.js'
import { decodeKmsRequest, encodeKmsError, encodeKmsReply } from '../../protocol/kms.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import type { KmsLink } from '../../protocol/ports.js'

const IDENTITY = allocate(32).fill(7)

const bodyOf = async (request: IncomingMessage): Promise<Uint8Array> => {
  const parts: Uint8Array[] = []
  for await (const part of request as AsyncIterable<Uint8Array>) parts.push(part)
  return concatBytes(...parts)
}

type Answer = (body: Uint8Array, response: ServerResponse, request: IncomingMessage) => void

const sayIdentity = (response: ServerResponse): void => {
  response.end(encodeKmsReply({ identity: IDENTITY, ready: true }))
}

/** A KMS that says its identity, and answers anything else as told. */
const serve = async (
  answer: Answer,
  port = 0,
): Promise<{ url: string; port: number; server: Server; stop: () => Promise<void> }> => {
  const server = createServer((request, response) => {
    const answered = bodyOf(request).then((body) => {
      try {
        if (decodeKmsRequest(body).op === 'identity') {
          sayIdentity(response)
          return
        }
      } catch {
        // Not a frame: for the test.
      }
      answer(body, response, request)
    })
    // It broke off: for the test.
    answered.catch(() => undefined)
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const { port: bound } = server.address() as AddressInfo
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => {
        resolve()
      })
      server.closeAllConnections()
    })
  return { url: `http://127.0.0.1:${String(bound)}`, port: bound, server, stop }
}

const echo: Answer = (body, response) => response.end(body)
const frame = (...bytes: number[]): Uint8Array => new Uint8Array(bytes)

test('frames go out and come back, many at once, as exact copies', async (t) => {
  const kms = await serve((body, response, request) => {
    t.is(request.method, 'POST')
    t.is(request.url, '/v1/exchange')
    t.is(request.headers['content-type'], 'application/octet-stream')
    response.end(body)
  })
  const link = await connectKms(kms.url, { identity: IDENTITY })
  t.deepEqual([...link.identity], [...IDENTITY])
  const replies = await Promise.all(Array.from({ length: 40 }, (_value, index) => link.exchange(frame(0xff, index))))
  t.deepEqual(
    replies.map((reply) => reply[1]),
    Array.from({ length: 40 }, (_value, index) => index),
  )
  t.true(replies.every((reply) => reply.buffer.byteLength === 2))
  const large = new Uint8Array(3_000_000).fill(9)
  t.true(equalPublicBytes(await link.exchange(large), large))
  await link.close()
  await kms.stop()
})

test('a path before /v1 and a trailing slash are kept apart', async (t) => {
  let path: string | undefined
  const kms = await serve((body, response, request) => {
    path = request.url
    response.end(body)
  })
  const link = await connectKms(`${kms.url}/keys/`)
  await link.exchange(frame(0xff))
  t.is(path, '/keys/v1/exchange')
  await link.close()
  await kms.stop()
})

test('a KMS that claims another identity is not trusted', async (t) => {
  const kms = await serve(echo)
  const error = await t.throwsAsync(connectKms(kms.url, { identity: allocate(32) }), { code: 'ERR_KMS_UNTRUSTED' })
  t.regex(error.message, /0707/)
  await kms.stop()
})

test('nobody there: said with the address, at connecting and later', async (t) => {
  const kms = await serve(echo)
  const link = await connectKms(kms.url)
  await kms.stop()
  await t.throwsAsync(link.exchange(frame(0xff)), { code: 'ERR_KMS_UNREACHABLE', message: new RegExp(kms.url) })
  await t.throwsAsync(connectKms(kms.url), { code: 'ERR_KMS_UNREACHABLE', message: /ECONNREFUSED/ })
  await t.throwsAsync(connectKms('http://no-such-host.invalid:1'), { code: 'ERR_KMS_UNREACHABLE' })
  await link.close()
})

test('a KMS that comes back is used again by the same link', async (t) => {
  const before = await serve(echo)
  const link = await connectKms(before.url)
  await link.exchange(frame(0xff, 1))
  await before.stop()
  await t.throwsAsync(link.exchange(frame(0xff, 2)), { code: 'ERR_KMS_UNREACHABLE' })
  const after = await serve(echo, before.port)
  t.deepEqual([...(await link.exchange(frame(0xff, 3)))], [0xff, 3])
  await link.close()
  await after.stop()
})

const HOSTILE: Readonly<Record<string, readonly [answer: Answer, code: string]>> = {
  'never answers': [() => undefined, 'ERR_KMS_UNREACHABLE'],
  'stops in the middle': [
    (_body, response) => {
      response.writeHead(200, { 'content-length': 100 })
      response.write(frame(1, 2))
    },
    'ERR_KMS_UNREACHABLE',
  ],
  'breaks the connection': [(_body, response) => response.destroy(), 'ERR_KMS_UNREACHABLE'],
  'breaks it in the middle of an answer': [
    (_body, response) => {
      response.writeHead(200, { 'content-length': 100 })
      response.write(frame(1, 2), () => response.destroy())
    },
    'ERR_KMS_UNREACHABLE',
  ],
  'answers with a status': [(_body, response) => response.writeHead(500).end('no'), 'ERR_KMS_FAILED'],
  redirects: [
    (_body, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
    'ERR_KMS_FAILED',
  ],
  'announces too much': [
    (_body, response) => {
      response.writeHead(200, { 'content-length': KMS_FRAME_SIZE_BYTES_MAX + 1 })
      response.flushHeaders()
    },
    'ERR_KMS_FAILED',
  ],
}

for (const [what, [answer, code]] of Object.entries(HOSTILE)) {
  test(`a KMS that ${what}: every exchange settles, with ${code}`, async (t) => {
    const kms = await serve(answer)
    const link = await connectKms(kms.url, { deadlineMs: 2_000 })
    await t.throwsAsync(link.exchange(frame(0xff)), { code })
    await link.close()
    await kms.stop()
  })
}

const exchangeAfter = (link: KmsLink, durable: Promise<void>, bytes: Uint8Array): Promise<Uint8Array> =>
  link.exchangeAfter?.(durable, bytes) ?? Promise.reject(new Error('it cannot'))

/** A promise, and how it ends. */
const later = () => {
  let [resolve, reject]: [() => void, (error: Error) => void] = [() => undefined, () => undefined]
  const durable = new Promise<void>((...ends) => ([resolve, reject] = ends))
  return { durable, resolve, reject }
}

test('a frame that counts later is on its way before, and whole only then', async (t) => {
  let [began, whole] = [0, 0]
  const kms = await serve((body, response) => {
    whole++
    response.end(body)
  })
  const link = await connectKms(kms.url, { deadlineMs: 2_000 })
  const arrived = once(kms.server, 'request')
  kms.server.on('request', () => began++)
  const { durable, resolve } = later()
  const answered = exchangeAfter(link, durable, frame(0xff, 1, 2))
  await arrived
  await new Promise((ended) => setTimeout(ended, 50))
  t.deepEqual([began, whole], [1, 0])
  resolve()
  t.deepEqual(await answered, frame(0xff, 1, 2))
  t.deepEqual([began, whole], [1, 1])
  await link.close()
  await kms.stop()
})

test('frames that wait for a slow store leave connections to those that need not wait', async (t) => {
  const kms = await serve(echo)
  const link = await connectKms(kms.url)
  const { durable, resolve } = later()
  const waiting = Array.from({ length: 40 }, (_value, index) => exchangeAfter(link, durable, frame(0xff, index)))
  t.deepEqual(await link.exchange(frame(0xff, 99)), frame(0xff, 99))
  resolve()
  t.deepEqual(
    (await Promise.all(waiting)).map((reply) => reply[1]),
    Array.from({ length: 40 }, (_value, index) => index),
  )
  await link.close()
  await kms.stop()
})

test('a frame that never counts is never whole', async (t) => {
  const kms = await serve(() => t.fail('it was heard'))
  const link = await connectKms(kms.url)
  const { durable, reject } = later()
  const arrived = once(kms.server, 'request') as Promise<[IncomingMessage]>
  const answered = t.throwsAsync(exchangeAfter(link, durable, frame(0xff, 1)), { message: 'the disk is full' })
  const [request] = await arrived
  reject(new Error('the disk is full'))
  await answered
  await new Promise((closed) => request.once('close', closed))
  t.false(request.complete)
  await link.close()
  await kms.stop()
})

test('a KMS that does not wait for a frame gets it whole when it counts', async (t) => {
  let count = 0
  const server = createServer((request, response) => {
    count++
    // Refused, then broken off, before it is whole; then heard.
    if (count === 2) response.writeHead(503, { connection: 'close' }).end('{}')
    else if (count === 4) request.destroy()
    else void bodyOf(request).then((body) => (count === 1 ? sayIdentity(response) : response.end(body)))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const link = await connectKms(`http://127.0.0.1:${String((server.address() as AddressInfo).port)}`)
  for (const heardCount of [3, 5]) {
    const { durable, resolve } = later()
    const answered = exchangeAfter(link, durable, frame(0xff, 7))
    await once(server, 'request')
    // Until the link has heard of it.
    await new Promise((ended) => setTimeout(ended, 500))
    t.is(count, heardCount - 1)
    resolve()
    t.deepEqual(await answered, frame(0xff, 7))
    t.is(count, heardCount)
  }
  await link.close()
  server.close()
})

test('what breaks once the frame counts is not repeated: nobody knows what came of it', async (t) => {
  let count = 0
  const kms = await serve((_body, response) => {
    count++
    response.destroy()
  })
  const link = await connectKms(kms.url)
  await t.throwsAsync(exchangeAfter(link, Promise.resolve(), frame(0xff, 1)), { code: 'ERR_KMS_UNREACHABLE' })
  t.is(count, 1)
  await link.close()
  await kms.stop()
})

test('an answer without end is cut off at the limit', async (t) => {
  const kms = await serve((_body, response) => {
    const part = new Uint8Array(1 << 20)
    const send = (): void => {
      while (!response.destroyed && response.write(part)) continue
    }
    response.on('drain', send)
    send()
  })
  const link = await connectKms(kms.url)
  await t.throwsAsync(link.exchange(frame(0xff)), { code: 'ERR_KMS_FAILED', message: /too large/ })
  await link.close()
  await kms.stop()
})

test('what answers but is no KMS is said', async (t) => {
  const server = createServer((_request, response) => response.end('<html>')).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await t.throwsAsync(connectKms(`http://127.0.0.1:${String(port)}`), { code: 'ERR_KMS_FAILED' })
  server.close()
})

test('a sealed or refusing KMS is heard', async (t) => {
  const server = createServer((_request, response) => response.end(encodeKmsError('ERR_POLICY_DENIED'))).listen(
    0,
    '127.0.0.1',
  )
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await t.throwsAsync(connectKms(`http://127.0.0.1:${String(port)}`), { code: 'ERR_POLICY_DENIED' })
  server.close()
})

test('closing rejects what is pending and what comes after', async (t) => {
  const kms = await serve(() => undefined)
  const link = await connectKms(kms.url)
  const pending = t.throwsAsync(link.exchange(frame(0xff)), { code: 'ERR_KMS_UNREACHABLE', message: /closed/ })
  await new Promise((resolve) => kms.server.once('request', resolve))
  await link.close()
  await link[Symbol.asyncDispose]()
  await pending
  await t.throwsAsync(link.exchange(frame(0xff)), { code: 'ERR_KMS_UNREACHABLE', message: /closed/ })
  await kms.stop()
})

test('an address that is none is refused with what it should be', async (t) => {
  for (const url of ['', 'nonsense', 'ftp://127.0.0.1', 'https://127.0.0.1:7600', '127.0.0.1:7600']) {
    await t.throwsAsync(connectKms(url), { code: 'ERR_CONFIG_INVALID', message: /http:\/\/host:port/ }, url)
  }
})
