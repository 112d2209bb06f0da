import { request } from 'node:https'
import { connect, type ConnectionOptions } from 'node:tls'
import test from 'ava'
import { connectKms } from '../../host/kms.js'
import { serveKms } from '../../kms/server.js'
import { AttestedClient } from './attested-client.js'
import { makeCertificates } from './certificates.js'
import { IMAGE } from './in-process.js'
import { serve } from './served.js'

const made = makeCertificates()

/** The status of GET `path`, or the code of the failure. */
const get = (url: string, options: ConnectionOptions): Promise<number | string | undefined> =>
  new Promise((resolve) => {
    request(url, { ...options, agent: false }, (response) => resolve(response.resume().statusCode))
      .on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
      .end()
  })

test('with TLS only certified clients are let in, and they reach the KMS as over plain HTTP', async (t) => {
  const { served, platform } = await serve(t, { tls: made.server, insecureLoopback: false })
  t.regex(served.url, /^https:\/\/127\.0\.0\.1:\d+$/)
  await using link = await connectKms(served.url, { tls: made.client, identity: served.identity })
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  t.is(await client.launch(), 1)

  for (const [name, tls] of Object.entries({ strange: made.strange, expired: made.expired }))
    await t.throwsAsync(connectKms(served.url, { tls }), { code: 'ERR_KMS_UNREACHABLE' }, name)
  // One whose server is certified by another authority is not believed, whatever it would answer.
  const { cert, key } = made.client
  await t.throwsAsync(connectKms(served.url, { tls: { ca: made.client.cert, cert, key } }), {
    code: 'ERR_KMS_UNREACHABLE',
  })
  t.not(await get(`${served.url}/healthz`, { ca: made.client.ca }), 200, 'without a certificate')
  t.is(await get(`${served.url}/healthz`, made.client), 200)
})

test('nothing older than TLS 1.3 is spoken', async (t) => {
  const { served } = await serve(t, { tls: made.server, insecureLoopback: false })
  const port = Number(new URL(served.url).port)
  const spoken = (options: ConnectionOptions): Promise<string | null> =>
    new Promise((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, ...made.client, ...options }, () => {
        resolve(socket.getProtocol())
        socket.destroy()
      })
      socket.on('error', () => resolve(null))
    })
  t.is(await spoken({}), 'TLSv1.3')
  t.is(await spoken({ maxVersion: 'TLSv1.2' }), null)
})

test('plain HTTP must be chosen, and is never offered elsewhere; a wrong certificate or key is named', async (t) => {
  const { place, policy } = await serve(t)
  const options = { ...place, policy, port: 0 }
  await t.throwsAsync(serveKms(options), { code: 'ERR_CONFIG_INVALID', message: /--insecure-loopback/ })
  await t.throwsAsync(serveKms({ ...options, host: '0.0.0.0', insecureLoopback: true }), {
    code: 'ERR_ADDRESS_REFUSED',
  })
  const nothing = new Uint8Array(10)
  for (const [wrong, message] of [
    [{ cert: nothing }, /the certificate/],
    [{ key: nothing }, /the private key/],
    [{ key: made.client.key }, /the private key/],
    [{ clientCa: nothing }, /the clients’ authority/],
  ] as const)
    await t.throwsAsync(serveKms({ ...options, tls: { ...made.server, ...wrong } }), {
      code: 'ERR_CONFIG_INVALID',
      message,
    })
})

test('the admin surface has an address of its own, and an authority that enclaves’ hosts have nothing of', async (t) => {
  const operators = makeCertificates()
  const { served } = await serve(t, {
    tls: made.server,
    insecureLoopback: false,
    adminTls: { ...operators.server, host: '127.0.0.1', port: 0 },
  })
  const admin = `${served.adminUrl ?? ''}/v1/status`
  t.is(await get(admin, operators.client), 200)
  t.not(await get(admin, { ...made.client, ca: operators.client.ca }), 200)
  t.is(await get(`${served.url}/v1/status`, made.client), 404)
})
