import { lstat, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { connectKms } from '../../host/kms.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { serveKms } from '../../kms/server.js'
import { checkPolicy, policyDigest } from '../../kms/policy-file.js'
import type { Policy } from '../../kms/policy.js'
import { toHex, type Bytes } from '../../protocol/bytes.js'
import { nodeFileSystem } from '../../storage/index.js'
import { KeyriseError } from '../../protocol/errors.js'
import { askSocket } from './admin.js'
import { AttestedClient } from './attested-client.js'
import { IMAGE, OTHER_IMAGE } from './in-process.js'
import { initPlace, makePlace, PASSPHRASE, serve } from './served.js'

const SECRET = { 'content-type': 'application/octet-stream' }

/** A KMS that nobody has unlocked. */
const serveSealed = async (t: Parameters<typeof serve>[0]) => {
  const made = await serve(t)
  const { place, policy, platform } = made
  await made.served.close()
  const served = await serveKms({ ...place, policy, port: 0, insecureLoopback: true })
  t.teardown(() => served.close())
  return { served, platform, place, socket: join(place.directory, 'admin.sock') }
}

const unlock = (socket: string, body: Uint8Array = PASSPHRASE) =>
  askSocket(socket, '/v1/unlock', { method: 'POST', body, headers: SECRET })

test('a sealed KMS says who it is and answers no enclave; its passphrase unlocks it, and it can be sealed again', async (t) => {
  const { served, platform, socket } = await serveSealed(t)
  const identity = toHex(served.identity)
  t.like((await askSocket(socket, '/v1/status')).json, { state: 'sealed', identity, keys: [] })
  t.is((await fetch(`${served.url}/healthz`)).status, 200)
  t.is((await fetch(`${served.url}/readyz`)).status, 503)
  await t.throwsAsync(connectKms(served.url), { code: 'ERR_KMS_SEALED' })

  const unlocked = await unlock(socket)
  t.is(unlocked.status, 200)
  t.like(unlocked.json, { state: 'unlocked', identity })
  t.is((await fetch(`${served.url}/readyz`)).status, 200)
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  t.is(await client.launch(), 1)

  const again = await unlock(socket)
  t.is(again.status, 409)
  t.like(again.json, { code: 'ERR_KMS_UNLOCKED' })
  t.like((await askSocket(socket, '/v1/seal', { method: 'POST' })).json, { state: 'sealed' })
  t.is((await fetch(`${served.url}/readyz`)).status, 503)
  await t.throwsAsync(client.open(), { code: 'ERR_KMS_SEALED' })
  const sealedTwice = await askSocket(socket, '/v1/seal', { method: 'POST' })
  t.is(sealedTwice.status, 503)
  t.like(sealedTwice.json, { code: 'ERR_KMS_SEALED' })
})

test('a KMS whose log another process has taken is not ready, and is sealed all the same when it is told to', async (t) => {
  const { served, place, platform } = await serve(t)
  const socket = join(place.directory, 'admin.sock')
  await using link = await connectKms(served.url)
  const client = await AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image: IMAGE })
  await (await FileLedger.open(nodeFileSystem, place.directory, served.identity)).close()
  await t.throwsAsync(client.open())
  t.is((await fetch(`${served.url}/readyz`)).status, 503)
  t.like((await askSocket(socket, '/v1/seal', { method: 'POST' })).json, { code: 'ERR_LEDGER_TAKEN' })
  t.like((await askSocket(socket, '/v1/status')).json, { state: 'sealed', keys: [] })
  t.is((await unlock(socket)).status, 200)
  t.is((await fetch(`${served.url}/readyz`)).status, 200)
})

test('a KMS does not start without its keyring', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const options = { directory: place.directory, policy: { platforms: [], images: [] }, port: 0, insecureLoopback: true }
  await t.throwsAsync(serveKms(options), { code: 'ERR_KEYRING_MISSING', message: /keyring\.age/ })
})

test('a wrong passphrase leaves it sealed; two at once unlock it once', async (t) => {
  const { socket } = await serveSealed(t)
  const wrong = await unlock(socket, new Uint8Array([1, 2, 3]))
  t.is(wrong.status, 403)
  t.like(wrong.json, { code: 'ERR_PASSPHRASE_WRONG' })
  t.like((await askSocket(socket, '/v1/status')).json, { state: 'sealed' })
  const statuses = (await Promise.all([unlock(socket), unlock(socket)])).map(({ status }) => status ?? 0)
  t.deepEqual(
    statuses.toSorted((a, b) => a - b),
    [200, 409],
  )
})

test('the admin socket is this user’s alone, takes the place of a dead one, and goes with the KMS', async (t) => {
  const place = await makePlace(t)
  await initPlace(place)
  const socket = join(place.directory, 'admin.sock')
  await writeFile(socket, '')
  const options = {
    ...place,
    passphrase: PASSPHRASE,
    policy: { platforms: [], images: [] },
    port: 0,
    insecureLoopback: true,
  }
  const served = await serveKms(options)
  const stats = await lstat(socket)
  t.true(stats.isSocket())
  t.is(stats.mode & 0o777, 0o600)
  t.false((await readdir(place.directory)).some((name) => name.startsWith('.a')))
  // A second one takes its place; the first takes nothing away when it ends.
  const second = await serveKms(options)
  await served.close()
  t.like((await askSocket(socket, '/v1/status')).json, { state: 'unlocked' })
  await second.close()
  await t.throwsAsync(lstat(socket), { code: 'ENOENT' })
  const adminSocket = join(place.root, 'x'.repeat(100))
  await t.throwsAsync(serveKms({ ...options, adminSocket }), { code: 'ERR_ADDRESS_REFUSED' })
})

test('what is asked wrongly on the admin surface gets a status below 500 and a code', async (t) => {
  const { socket } = await serveSealed(t)
  const large = new Uint8Array(1025)
  const asked: readonly (readonly [path: string, options: Parameters<typeof askSocket>[2], status: number])[] = [
    ['/', {}, 404],
    ['/v1/exchange', { method: 'POST' }, 404],
    ['/v1/status', { method: 'POST' }, 405],
    ['/v1/unlock', {}, 405],
    ['/v1/unlock', { method: 'POST', body: 'x' }, 400],
    ['/v1/unlock', { method: 'POST', body: 'x', headers: { 'content-type': 'application/json' } }, 400],
    ['/v1/unlock', { method: 'POST', body: large, headers: SECRET }, 413],
    ['/v1/seal', { method: 'POST', body: 'x' }, 413],
  ]
  for (const [path, options, status] of asked) {
    const reply = await askSocket(socket, path, options)
    t.is(reply.status, status, `${path} ${JSON.stringify(options)}`)
    t.like(reply.json, { code: status === 413 ? 'ERR_SIZE_LIMIT' : 'ERR_REQUEST_INVALID' })
  }
})

test('a policy is read again while the KMS runs: images that it no longer lists get nothing more, at once and after an unlock', async (t) => {
  const { served: first, place, policy, platform } = await serve(t)
  await first.close()
  let current: Policy | undefined = policy
  const readPolicy = () =>
    current === undefined ? Promise.reject(new KeyriseError('ERR_CONFIG_INVALID')) : Promise.resolve(current)
  const served = await serveKms({
    ...place,
    passphrase: PASSPHRASE,
    policy,
    readPolicy,
    port: 0,
    insecureLoopback: true,
  })
  t.teardown(() => served.close())
  const socket = join(place.directory, 'admin.sock')
  const reload = () => askSocket(socket, '/v1/policy/reload', { method: 'POST' })
  await using link = await connectKms(served.url)
  const connect = (image: Bytes) => AttestedClient.connect({ kms: link, kmsIdentity: served.identity, platform, image })
  const old = await connect(IMAGE)
  await old.launch()
  await t.throwsAsync(connect(OTHER_IMAGE), { code: 'ERR_POLICY_DENIED' })

  current = { ...policy, images: [{ name: 'other', measurement: OTHER_IMAGE }] }
  const reloaded = await reload()
  t.deepEqual(reloaded.json, { policy: toHex(policyDigest(checkPolicy(current))) })
  await t.throwsAsync(old.open(), { code: 'ERR_SESSION_INVALID' })
  await t.throwsAsync(connect(IMAGE), { code: 'ERR_POLICY_DENIED' })
  t.is(await (await connect(OTHER_IMAGE)).launch('flow-2'), 1)

  current = undefined
  const refused = await reload()
  t.is(refused.status, 400)
  t.like(refused.json, { code: 'ERR_CONFIG_INVALID' })
  t.is(await (await connect(OTHER_IMAGE)).launch('flow-2'), 2)
  await askSocket(socket, '/v1/seal', { method: 'POST' })
  t.like((await reload()).json, { code: 'ERR_KMS_SEALED' })
  await unlock(socket)
  await t.throwsAsync(connect(IMAGE), { code: 'ERR_POLICY_DENIED' })
  t.is(await (await connect(OTHER_IMAGE)).launch('flow-2'), 3)
})

test('a KMS that was given its policy by value has no file to read', async (t) => {
  const { place } = await serve(t)
  const reply = await askSocket(join(place.directory, 'admin.sock'), '/v1/policy/reload', { method: 'POST' })
  t.is(reply.status, 400)
  t.like(reply.json, { code: 'ERR_CONFIG_INVALID' })
})
