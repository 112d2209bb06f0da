import { readFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { request as requestTls, type RequestOptions } from 'node:https'
import { join } from 'node:path'
import test from 'ava'
import { LeakWatch } from '../../faults/leak-watch.js'
import { connectKms } from '../../host/kms.js'
import { statusRoute } from '../../kms/admin-control.js'
import { entryOfEvent, formatEntry, isLogged, type LogEntry } from '../../kms/log-entry.js'
import { describeFault } from '../../kms/request-note.js'
import { serveKms } from '../../kms/server.js'
import { asciiBytes } from '../../protocol/bytes.js'
import { KeyriseError } from '../../protocol/errors.js'
import { encodeKmsRequest } from '../../protocol/kms.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { askSocket, type AdminReply } from './admin.js'
import { AttestedClient, newestKey, openByKms, sealToKms } from './attested-client.js'
import { makeCertificates } from './certificates.js'
import { IMAGE, UNLISTED_IMAGE } from './in-process.js'
import { PASSPHRASE, serve } from './served.js'

const made = makeCertificates()
const SECRET_BODY = { 'content-type': 'application/octet-stream' }

/** A KMS that nobody has unlocked, and its log. */
const serveLogged = async (t: Parameters<typeof serve>[0], options: Parameters<typeof serve>[1] = {}) => {
  const { served: first, place, policy, platform } = await serve(t)
  await first.close()
  const entries: LogEntry[] = []
  const onLog = (entry: LogEntry) => entries.push(entry)
  const served = await serveKms({ ...place, policy, port: 0, insecureLoopback: true, onLog, ...options })
  t.teardown(() => served.close())
  return { served, place, platform, entries, socket: join(place.directory, 'admin.sock') }
}

/** Every secret that this process makes while `work` runs. */
const watchSecrets = async (watch: LeakWatch, work: () => Promise<void>): Promise<number> => {
  const [take, random] = [Secret.take.bind(Secret), Secret.random.bind(Secret)]
  let count = 0
  const see = (secret: Secret): Secret => {
    secret.expose((bytes) => watch.add(`secret ${String(++count)}, ${String(bytes.length)} bytes`, bytes))
    return secret
  }
  Object.assign(Secret, {
    take: (bytes: Uint8Array) => see(take(bytes)),
    random: (...all: Parameters<typeof Secret.random>) => see(random(...all)),
  })
  try {
    await work()
    return count
  } finally {
    Object.assign(Secret, { take, random })
  }
}

test('a busy KMS tells no secret: not in its log, its metrics, or an answer', async (t) => {
  const watch = new LeakWatch()
  const answers: string[] = []
  const [plaintext, claimed] = [
    asciiBytes('what the enclave keeps for itself'),
    asciiBytes('a share of nobody, mistyped'),
  ]
  watch.add('plaintext', plaintext)
  watch.add('share', claimed)
  const entries: LogEntry[] = []
  const count = await watchSecrets(watch, async () => {
    const { served, platform, socket, entries: told } = await serveLogged(t)
    const ask = async (path: string, body?: Uint8Array | string, type?: string): Promise<AdminReply> => {
      const post =
        body === undefined ? {} : { method: 'POST', body, headers: { 'content-type': type ?? 'application/json' } }
      const reply = await askSocket(socket, path, post)
      answers.push(JSON.stringify(reply.headers), reply.text)
      return reply
    }
    const BYTES = SECRET_BODY['content-type']
    await ask('/v1/unlock/share', claimed, BYTES)
    await ask('/v1/unlock', asciiBytes('a wrong passphrase, mistyped'), BYTES)
    await ask('/v1/unlock', JSON.stringify({ passphrase: 'correct horse' }))
    t.is((await ask('/v1/unlock', PASSPHRASE, BYTES)).status, 200)

    await using link = await connectKms(served.url)
    const kms = {
      exchange: async (frame: Uint8Array) => {
        const reply = await link.exchange(frame)
        answers.push(Buffer.from(reply).toString('latin1'))
        watch.search('a frame', reply)
        return reply
      },
    }
    const options = { kms, kmsIdentity: served.identity, platform, image: IMAGE }
    const client = await AttestedClient.connect(options)
    await client.launch()
    const { encryptionKey } = newestKey(await client.open())
    const envelope = sealToKms(plaintext, { encryptionKey, origin: client.origin, image: IMAGE })
    t.deepEqual(await openByKms(client, envelope), plaintext)
    await t.throwsAsync(AttestedClient.connect({ ...options, image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
    await t.throwsAsync(client.call({ op: 'destroy', incarnation: 7, head: null } as never))
    t.is((await ask('/v1/keys/rotate', JSON.stringify({ key: 'root', suite: 'x25519' }))).status, 200)
    await t.throwsAsync(openByKms(client, envelope), { code: 'ERR_SESSION_INVALID' })
    t.deepEqual(await openByKms(await reconnect(options), envelope), plaintext)
    for (const path of ['/v1/status', '/v1/console?after=0', '/metrics']) t.is((await ask(path)).status, 200)
    await served.close()
    entries.push(...told)
  })
  t.true(count > 10)
  const lines = entries.flatMap((entry) => [formatEntry(entry, 0, 'json'), formatEntry(entry, 0, 'text')])
  for (const text of [...lines, ...answers]) {
    watch.search(text.slice(0, 200), asciiBytes(text.replaceAll(/[^\0-\x7f]/g, '?')))
    t.false(text.includes('correct horse'))
  }
  t.deepEqual(watch.take(), [])
  // It would have found one.
  watch.search('a line', asciiBytes(`{"detail":"${Buffer.from(plaintext).toString('hex')}"}`))
  t.deepEqual(watch.take(), ['plaintext in a line'])
})

const reconnect = async (options: Parameters<typeof AttestedClient.connect>[0]): Promise<AttestedClient> => {
  const client = await AttestedClient.connect(options)
  await client.open()
  return client
}

test('what a client takes to send a request is no part of how long it took', async (t) => {
  const { served, entries, socket } = await serveLogged(t)
  await askSocket(socket, '/v1/unlock', { method: 'POST', body: PASSPHRASE, headers: SECRET_BODY })
  await using link = await connectKms(served.url)
  const pauseMs = 1_500
  const durable = new Promise<void>((resolve) => setTimeout(resolve, pauseMs))
  await link.exchangeAfter?.(durable, encodeKmsRequest({ op: 'challenge' }))
  await served.close()
  const entry = entries.find(({ event }) => event === 'challenge')
  t.true((entry?.durationMs ?? pauseMs) < pauseMs)
})

test('each request has one entry: its id, which its answer has too, what it was, what came of it, and how long it took', async (t) => {
  const { served, platform, entries, socket } = await serveLogged(t)
  const sealed = await fetch(`${served.url}/v1/exchange`, { method: 'POST', body: 'x', headers: SECRET_BODY })
  const own = { 'x-request-id': 'of-the-caller' }
  await askSocket(socket, '/v1/unlock', { method: 'POST', body: PASSPHRASE, headers: { ...SECRET_BODY, ...own } })
  const status = await askSocket(socket, '/v1/status')
  await using link = await connectKms(served.url)
  const options = { kms: link, kmsIdentity: served.identity, platform, image: IMAGE }
  const client = await AttestedClient.connect(options)
  await client.launch()
  await t.throwsAsync(AttestedClient.connect({ ...options, image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
  await served.close()

  const refused = entries.find(({ code }) => code === 'ERR_KMS_SEALED')
  t.like(refused, { level: 'warn', surface: 'enclaves', status: 503, event: '/v1/exchange' })
  t.is(refused?.request, sealed.headers.get('x-request-id') ?? '')
  t.is(entries.find(({ event }) => event === '/v1/status')?.request, status.headers['x-request-id'] as string)
  t.like(
    entries.find(({ event }) => event === '/v1/unlock'),
    { level: 'info', surface: 'admin', status: 200 },
  )
  t.like(
    entries.find(({ event }) => event === 'claim'),
    { level: 'info', surface: 'enclaves', status: 200, image: 'party', flow: 'flow-1' },
  )
  t.like(
    entries.find(({ code }) => code === 'ERR_POLICY_DENIED'),
    { level: 'warn', event: 'handshake', status: 200 },
  )
  t.true(entries.every(({ durationMs = 0 }) => durationMs > 0))
  const ids = entries.map(({ request }) => request)
  t.is(new Set(ids).size, entries.length)
  t.false(ids.includes('of-the-caller'))
})

test('a fault is told by its kind and place, and never by a message that may quote what it read', (t) => {
  const fault = describeFault(new SyntaxError('Unexpected token: correct horse'))
  t.is(fault.detail, 'SyntaxError')
  t.true((fault.frames?.length ?? 0) > 0)
  t.false(JSON.stringify(fault).includes('horse'))
  t.is(describeFault(Object.assign(new Error('no /secret'), { code: 'ENOENT' })).detail, 'Error ENOENT')
  t.is(describeFault(Object.assign(new Error('x'), { code: 'a secret\n' })).detail, 'Error')
  t.deepEqual(describeFault('correct horse'), { detail: 'something that is no error was thrown' })
  t.regex(describeFault(new KeyriseError('ERR_STORE_IO', { detail: 'EIO' })).detail, /EIO/)
})

test.serial('a fault of the KMS is answered with a code alone, and its log says where it was', async (t) => {
  const { served, socket, entries } = await serveLogged(t)
  // What a route throws here is no error of ours.
  const before = { ...statusRoute }
  Object.assign(statusRoute, { run: () => Promise.reject(new TypeError('correct horse')) })
  try {
    const reply = await askSocket(socket, '/v1/status')
    t.is(reply.status, 503)
    t.like(reply.json, { code: 'ERR_KMS_FAILED', detail: 'see the KMS’s log' })
  } finally {
    Object.assign(statusRoute, before)
  }
  await served.close()
  const [entry] = entries
  t.like(entry, { level: 'error', event: '/v1/status', code: 'ERR_KMS_FAILED', detail: 'TypeError' })
  t.regex(entry?.frames?.[0] ?? '', /^at /)
})

test('levels: what is less than asked for is left out; an event of no request is told by its own', (t) => {
  const at = (level: LogEntry['level'], least: LogEntry['level']) => isLogged({ level, event: 'x' }, least)
  t.deepEqual(
    [at('debug', 'info'), at('info', 'info'), at('error', 'warn'), at('warn', 'error')],
    [false, true, true, false],
  )
  t.like(entryOfEvent({ event: 'failed', code: 'ERR_STORE_FULL', detail: 'd' }), { level: 'error', event: 'failed' })
  t.is(entryOfEvent({ event: 'open', request: 'r' }), undefined)
  const text = formatEntry(
    { level: 'warn', event: 'open', code: 'ERR_FENCED', image: 'party', durationMs: 1.5 },
    0,
    'text',
  )
  t.is(text, '1970-01-01T00:00:00.000Z warn open ERR_FENCED party 1.5 ms\n')
})

test('Prometheus scrapes what it counts: requests by what came of them, sessions, receipts, the ledger, itself', async (t) => {
  const { served, platform, socket } = await serveLogged(t)
  const scrape = async () => (await askSocket(socket, '/metrics')).text
  t.regex(await scrape(), /^keyrise_unlocked 0$/m)
  await askSocket(socket, '/v1/unlock', { method: 'POST', body: PASSPHRASE, headers: SECRET_BODY })
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  await client.launch()
  await fetch(`${served.url}/${'x'.repeat(50)}`)
  const scraped = await askSocket(socket, '/metrics')
  t.regex(scraped.headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/)
  for (const line of [
    /^keyrise_unlocked 1$/m,
    /^keyrise_sessions 1$/m,
    /^keyrise_receipts [1-9]/m,
    /^keyrise_pool_queue 0$/m,
    /^keyrise_ledger_size_bytes [1-9]/m,
    /^keyrise_ledger_append_duration_seconds_count [1-9]/m,
    /^keyrise_requests_total\{surface="enclaves",op="claim",code="ok"\} 1$/m,
    /^keyrise_requests_total\{surface="enclaves",op="unknown",code="ERR_REQUEST_INVALID"\} 1$/m,
    /^keyrise_request_duration_seconds_count\{surface="admin",op="\/v1\/unlock"\} 1$/m,
    /^keyrise_requests_under_way\{surface="admin"\} 1$/m,
    /^process_cpu_seconds_total /m,
  ])
    t.regex(scraped.text, line)
  t.false(/flow-1|party|xxx/.test(scraped.text))
})

test('the document names every metric, and no other', async (t) => {
  const { socket } = await serveLogged(t)
  const document = readFileSync(new URL('../../../docs/operating.md', import.meta.url), 'utf8')
  const named = Array.from(document.matchAll(/^\| `(keyrise_\w+)` +\| (\w+) /gm), ([, name, kind]) => `${name} ${kind}`)
  const { text } = await askSocket(socket, '/metrics')
  const told = Array.from(text.matchAll(/^# TYPE (keyrise_\w+) (\w+)$/gm), ([, name, kind]) => `${name} ${kind}`)
  t.deepEqual(told.toSorted(), named.toSorted())
})

const TOKEN = asciiBytes('a-token.of~operators_0123456789+/=')
const askTls = (url: string, options: RequestOptions): Promise<{ status: number | undefined; text: string }> =>
  new Promise((resolve, reject) => {
    requestTls(url, { ca: made.client.ca, agent: false, ...options }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () => resolve({ status: response.statusCode, text }))
    })
      .on('error', reject)
      .end()
  })

test('the admin surface’s address takes a token in place of a certificate, and nothing without it', async (t) => {
  const { cert, key } = made.server
  const admin = { cert, key, host: '127.0.0.1', port: 0 }
  const { served, entries } = await serveLogged(t, { adminTls: { ...admin, token: TOKEN } })
  const url = served.adminUrl ?? ''
  const shown = (token: string) => askTls(`${url}/v1/status`, { headers: { authorization: token } })
  const right = `Bearer ${Buffer.from(TOKEN).toString()}`
  t.is((await shown(right)).status, 200)
  for (const wrong of [
    right.slice(0, -1),
    `${right}A`,
    right.replace('Bearer', 'Basic'),
    'Bearer',
    `Bearer ${'x'.repeat(2000)}`,
  ]) {
    const { status, text } = await shown(wrong)
    t.is(status, 401, wrong)
    t.like(JSON.parse(text), { code: 'ERR_TOKEN_WRONG' })
  }
  // Whatever is asked, the token comes first.
  for (const [path, method] of [
    ['/nope', 'GET'],
    ['/metrics', 'GET'],
    ['/v1/seal', 'POST'],
    ['/console', 'POST'],
  ] as const)
    t.is((await askTls(url + path, { method })).status, 401, path)
  t.is((await askTls(`${url}/console`, {})).status, 200)
  await served.close()
  t.false(JSON.stringify(entries).includes('a-token'))

  const { place, policy } = await serve(t)
  const options = { ...place, policy, port: 0, insecureLoopback: true }
  const refused = (adminTls: object) =>
    t.throwsAsync(serveKms({ ...options, adminTls: { ...admin, ...adminTls } }), { code: 'ERR_CONFIG_INVALID' })
  await refused({})
  await refused({ token: TOKEN, clientCa: made.server.clientCa })
  for (const token of ['short', 'x'.repeat(1025), `${'x'.repeat(40)} y`]) await refused({ token: asciiBytes(token) })
})

test('told to stop, it answers what is under way and takes nothing new', async (t) => {
  const { served } = await serve(t)
  const { port } = new URL(served.url)
  const socket = connectSocket(Number(port), '127.0.0.1')
  let received = ''
  const answered = new Promise<void>((resolve) => {
    socket.setEncoding('latin1').on('data', (part: string) => (received += part))
    socket.on('close', () => resolve())
  })
  const begun = new Promise<void>((resolve) => {
    socket.write(
      'POST /v1/exchange HTTP/1.1\r\ncontent-type: application/octet-stream\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n',
    )
    // It has the headers when it asks for the rest.
    socket.once('data', () => resolve())
  })
  await begun
  const closed = served.close()
  await t.throwsAsync(connectKms(served.url), { code: 'ERR_KMS_UNREACHABLE' })
  socket.write('ab')
  await Promise.all([closed, answered])
  t.regex(received, /HTTP\/1\.1 200 OK\r\n.*ERR_REQUEST_INVALID/s)
})

test('what Node would refuse by itself is refused with a code, too', async (t) => {
  const { served } = await serve(t)
  const send = (bytes: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectSocket(Number(new URL(served.url).port), '127.0.0.1', () => socket.write(bytes))
      let received = ''
      socket.setEncoding('latin1').on('data', (part: string) => (received += part))
      socket.on('error', reject).on('close', () => resolve(received))
    })
  for (const [bytes, status, code] of [
    ['nonsense\r\n\r\n', 400, 'ERR_REQUEST_INVALID'],
    ['CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n', 405, 'ERR_REQUEST_INVALID'],
    ['GET /healthz HTTP/1.1\r\nexpect: more\r\n\r\n', 417, 'ERR_REQUEST_INVALID'],
    [`GET / HTTP/1.1\r\nx: ${'y'.repeat(10_000)}\r\n\r\n`, 431, 'ERR_SIZE_LIMIT'],
    ['POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n', 400, 'ERR_REQUEST_INVALID'],
  ] as const)
    t.regex(await send(bytes), new RegExp(`^HTTP/1\\.1 ${String(status)} .*x-request-id.*"code":"${code}"`, 's'))
})
