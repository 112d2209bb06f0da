import { request } from 'node:http'
import { connect as connectSocket, createServer, type Socket } from 'node:net'
import test from 'ava'
import { connectKms } from '../../host/kms.js'
import { serveKms } from '../../kms/server.js'
import { decodeCbor } from '../../protocol/cbor.js'
import { decodeKmsReply, encodeKmsRequest } from '../../protocol/kms.js'
import { toHex } from '../../protocol/bytes.js'
import { AttestedClient } from './attested-client.js'
import { IMAGE } from './in-process.js'
import { initPlace, makePlace, PASSPHRASE, serve } from './served.js'

const FRAME = { 'content-type': 'application/octet-stream' }
const post = (url: string, body: Uint8Array<ArrayBuffer>, headers: Record<string, string> = FRAME) =>
  fetch(`${url}/v1/exchange`, { method: 'POST', body, headers })

test('enclaves reach it through the host’s link', async (t) => {
  const { served, platform } = await serve(t)
  await using link = await connectKms(served.url)
  t.deepEqual(link.identity, served.identity)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  t.is(await client.launch(), 1)
})

test('it shows its identity and root keys, health and readiness', async (t) => {
  const { served } = await serve(t)
  const get = async (path: string) => {
    const response = await fetch(served.url + path)
    return [response.status, await response.json()] as const
  }
  t.deepEqual(await get('/v1/identity'), [200, { identity: toHex(served.identity), keys: served.keys }])
  t.deepEqual(await get('/healthz'), [200, { status: 'ok' }])
  t.deepEqual(await get('/readyz?x=1'), [200, { ready: true }])
})

test('whatever else is asked gets a status below 500 and a code', async (t) => {
  const { served } = await serve(t)
  const codes: readonly (readonly [path: string, init: RequestInit, status: number])[] = [
    ['/', {}, 404],
    ['/constructor', {}, 404],
    ['/v1/exchange', {}, 405],
    ['/v1/identity', { method: 'POST' }, 405],
    ['/v1/exchange/../identity', { method: 'DELETE' }, 405],
    ['/v1/exchange', { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } }, 415],
  ]
  for (const [path, init, status] of codes) {
    const response = await fetch(served.url + path, init)
    t.is(response.status, status, path)
    t.like(await response.json(), { code: 'ERR_REQUEST_INVALID' })
  }
  const nonsense = await post(served.url, new Uint8Array(100))
  t.is(nonsense.status, 200)
  t.deepEqual(decodeCbor(new Uint8Array(await nonsense.arrayBuffer())), { error: 'ERR_REQUEST_INVALID' })
})

/** Sends raw bytes and gives what comes back until the server ends the connection. */
const sendRaw = (url: string, bytes: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connectSocket(Number(new URL(url).port), '127.0.0.1', () => socket.write(bytes))
    let received = ''
    socket.setEncoding('latin1').on('data', (part: string) => (received += part))
    socket.on('error', reject).on('close', () => resolve(received))
  })

test('a frame that claims to be too large, or tells no length, is refused before its body', async (t) => {
  const { served } = await serve(t)
  const head = 'POST /v1/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n'
  t.regex(await sendRaw(served.url, `${head}content-length: 20971521\r\n\r\nabc`), /^HTTP\/1.1 413 .*ERR_SIZE_LIMIT/s)
  t.regex(
    await sendRaw(served.url, `${head}transfer-encoding: chunked\r\n\r\n`),
    /^HTTP\/1.1 411 .*ERR_REQUEST_INVALID/s,
  )
  t.regex(await sendRaw(served.url, `${head}content-length: 9999999999999\r\n\r\n`), /^HTTP\/1.1 41[13] /)
  t.regex(await sendRaw(served.url, `GET / HTTP/1.1\r\nx: ${'y'.repeat(10_000)}\r\n\r\n`), /^HTTP\/1.1 431 /)
  t.regex(await sendRaw(served.url, '\0\0\0\0\r\n\r\n'), /^HTTP\/1.1 400 /)
})

const openSocket = (url: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connectSocket(Number(new URL(url).port), '127.0.0.1', () => resolve(socket))
    socket.on('error', reject)
  })

test('clients that stall, break off or send halves leave the others served', async (t) => {
  const { served, platform } = await serve(t)
  const head = 'POST /v1/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: '
  const sockets = await Promise.all(Array.from({ length: 200 }, () => openSocket(served.url)))
  sockets.forEach((socket, index) => {
    if (index % 3 === 0) socket.write(`${head}20971520\r\n\r\nabc`)
    else if (index % 3 === 1) socket.write(head)
    if (index % 4 === 0) socket.destroy()
  })
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  t.is(await client.launch(), 1)
  sockets.forEach((socket) => socket.destroy())
})

test('large frames share a budget of memory: one too many is told to come back, small ones pass', async (t) => {
  const { served } = await serve(t)
  const size = 8 * 1024 * 1024
  const part = new Uint8Array(size - 1)
  const uploads = Array.from({ length: 8 }, () =>
    request(`${served.url}/v1/exchange`, { method: 'POST', headers: { ...FRAME, 'content-length': size } }),
  )
  const statuses = uploads.map((upload) => {
    upload.on('error', () => undefined)
    return new Promise<number | undefined>((resolve) => {
      upload.on('response', ({ statusCode }) => resolve(statusCode)).write(part)
    })
  })
  // They are never whole, so only what is turned away is answered.
  t.is(await Promise.race(statuses), 503)
  t.is((await post(served.url, encodeKmsRequest({ op: 'identity' }))).status, 200)
  uploads.forEach((upload) => upload.destroy())
})

test('large bodies that stand still make room for those that come', async (t) => {
  const { served } = await serve(t)
  const size = 16 * 1024 * 1024
  const head = `POST /v1/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: ${size}\r\n\r\n`
  const sockets = await Promise.all([openSocket(served.url), openSocket(served.url)])
  for (const socket of sockets) {
    socket.on('error', () => undefined).write(head)
    socket.write(new Uint8Array(size - 1))
  }
  const startMs = Date.now()
  const segment = new Uint8Array(1024 * 1024)
  let status = 503
  // Half a minute later they would be given up anyhow.
  while (status === 503 && Date.now() - startMs < 20_000) {
    await new Promise((resolve) => setTimeout(resolve, 500))
    status = (await post(served.url, segment)).status
  }
  t.is(status, 200)
  sockets.forEach((socket) => socket.destroy())
})

test('a body that arrives byte by byte is the same frame', async (t) => {
  const { served } = await serve(t)
  const frame = encodeKmsRequest({ op: 'segment', stream: new Uint8Array(16), index: 0, sealed: new Uint8Array(3_000) })
  const upload = request(`${served.url}/v1/exchange`, {
    method: 'POST',
    headers: { ...FRAME, 'content-length': frame.length },
  })
  upload.setNoDelay(true)
  const answered = new Promise<Uint8Array>((resolve) => {
    upload.on('response', (response) => response.once('data', resolve))
  })
  const sendEach = async (from: number, to: number, step: number): Promise<void> => {
    for (let offset = from; offset < to; offset += step) {
      upload.write(frame.subarray(offset, Math.min(offset + step, to)))
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }
  await sendEach(0, 600, 1)
  await sendEach(600, 2_700, 2_100)
  await sendEach(2_700, frame.length, 1)
  // It is understood, and names a stream that is not there.
  const reply = await answered
  t.throws(() => decodeKmsReply('segment', reply), { code: 'ERR_SESSION_INVALID' })
})

test('a port in use is said before the ledger is touched; the one that runs goes on', async (t) => {
  const { served, platform, place, policy } = await serve(t)
  const port = Number(new URL(served.url).port)
  await t.throwsAsync(serveKms({ ...place, passphrase: PASSPHRASE, policy, port, insecureLoopback: true }), {
    code: 'ERR_PORT_IN_USE',
    message: new RegExp(`:${port}`),
  })
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  await t.notThrowsAsync(client.launch())
})

test('only loopback is served', async (t) => {
  const place = await makePlace(t)
  const options = { ...place, passphrase: PASSPHRASE, policy: { platforms: [], images: [] }, insecureLoopback: true }
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.org', '']) {
    await t.throwsAsync(serveKms({ ...options, host }), { code: 'ERR_ADDRESS_REFUSED' })
  }
})

test('one that cannot open its keyring leaves the port free', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const options = { ...place, policy: { platforms: [], images: [] }, port: await freePort(), insecureLoopback: true }
  await t.throwsAsync(serveKms({ ...options, passphrase: new Uint8Array([1]) }), { code: 'ERR_PASSPHRASE_WRONG' })
  const served = await serveKms({ ...options, passphrase: PASSPHRASE })
  await served.close()
  await t.throwsAsync(connectKms(served.url), { code: 'ERR_KMS_UNREACHABLE' })
})

test('closing answers what is under way; state is there at the next start', async (t) => {
  const { served, platform, place, policy } = await serve(t)
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  await client.launch()
  await served.close()
  await t.throwsAsync(client.open(), { code: 'ERR_KMS_UNREACHABLE' })
  const again = await serveKms({ ...place, passphrase: PASSPHRASE, policy, port: 0, insecureLoopback: true })
  t.teardown(() => again.close())
  await using newLink = await connectKms(again.url, { identity: served.identity })
  const next = await AttestedClient.connect({ kms: newLink, kmsIdentity: served.identity, platform, image: IMAGE })
  t.is((await next.open()).incarnation, 1)
})

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
