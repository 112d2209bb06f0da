import { createRequire, syncBuiltinESMExports } from 'node:module'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { MessageChannel, MessagePort, Worker } from 'node:worker_threads'
import test from 'ava'
import type { StartKmsOptions } from '../../kms/embedded.js'
import { encodeKmsRequest, decodeKmsReply } from '../../protocol/kms.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import { AttestedClient, newestKey, openByKms, sealToKms, TestPlatform } from './attested-client.js'
import { IMAGE } from './in-process.js'
import { makePlace, PASSPHRASE } from './served.js'

/** Captures workers, and the host’s ends of their channels, as a hostile host could before launch. */
const threads = createRequire(import.meta.url)('node:worker_threads') as {
  Worker: typeof Worker
  MessageChannel: typeof MessageChannel
}
const workers: Worker[] = []
const ports: MessagePort[] = []
threads.MessageChannel = class extends threads.MessageChannel {
  constructor() {
    super()
    ports.push(this.port1)
  }
}
threads.Worker = class extends threads.Worker {
  constructor(...parameters: ConstructorParameters<typeof Worker>) {
    super(...parameters)
    workers.push(this)
  }
}
syncBuiltinESMExports()
const { startKms } = await import('../../kms/embedded.js')

const platform = new TestPlatform()
const policy = { platforms: [platform.publicKey], images: [{ name: 'party', measurement: IMAGE }] }
const start = (place: { directory: string; custody?: string }, options: Partial<StartKmsOptions> = {}) =>
  startKms({
    directory: place.directory,
    ...(place.custody === undefined ? {} : { custody: place.custody }),
    passphrase: PASSPHRASE,
    policy,
    workFactor: 10,
    ...options,
  })

test.serial('it makes its keys at the first start, serves, and comes back with all of it', async (t) => {
  const { directory } = await makePlace(t)
  const kms = await start({ directory: join(directory, 'new') })
  const client = await AttestedClient.connect({ kms, kmsIdentity: kms.identity, platform, image: IMAGE })
  await client.launch()
  const envelope = sealToKms(new Uint8Array([1, 2, 3]), {
    encryptionKey: newestKey(await client.open()).encryptionKey,
    origin: client.origin,
    image: IMAGE,
  })
  await kms.close()
  await kms.close()
  await t.throwsAsync(client.open(), { code: 'ERR_KMS_UNREACHABLE' })
  t.deepEqual((await readdir(join(directory, 'new'))).sort(), ['keyring.age', 'ledger.log'])

  await using again = await start({ directory: join(directory, 'new') })
  t.deepEqual(again.identity, kms.identity)
  const next = await AttestedClient.connect({ kms: again, kmsIdentity: kms.identity, platform, image: IMAGE })
  t.is((await next.open()).incarnation, 1)
  t.deepEqual(await openByKms(next, envelope), new Uint8Array([1, 2, 3]))
})

test.serial('custody in a third place is all it needs of its keys; without it, it makes no others', async (t) => {
  const place = await makePlace(t)
  const kms = await start(place)
  const client = await AttestedClient.connect({ kms, kmsIdentity: kms.identity, platform, image: IMAGE })
  await client.launch()
  await kms.close()
  t.deepEqual(await readdir(place.directory), ['ledger.log'])
  await (await start(place)).close()
  await rm(place.custody)
  await t.throwsAsync(start(place), { code: 'ERR_KEYRING_MISSING' })
  await t.throwsAsync(start({ directory: place.directory }), { code: 'ERR_KEYRING_MISSING' })
})

test.serial('custody may be inside the directory', async (t) => {
  const { directory } = await makePlace(t)
  await (await start({ directory, custody: join(directory, 'own.age') })).close()
  t.deepEqual((await readdir(directory)).sort(), ['ledger.log', 'own.age'])
})

test.serial(
  'what keeps it from starting is said by code, and the caller’s passphrase stays the caller’s',
  async (t) => {
    const place = await makePlace(t)
    await (await start(place)).close()
    const wrong = new Uint8Array([1, 2, 3])
    await t.throwsAsync(start(place, { passphrase: wrong }), {
      code: 'ERR_PASSPHRASE_WRONG',
      message: 'The passphrase does not open the keyring',
    })
    t.deepEqual(wrong, new Uint8Array([1, 2, 3]))
    await t.throwsAsync(start(place, { policy: { platforms: [new Uint8Array(1)], images: [] } }), {
      code: 'ERR_CONFIG_INVALID',
    })
    await t.throwsAsync(start({ directory: `${place.directory},*` }), { code: 'ERR_CONFIG_INVALID' })
    await writeFile(join(dirname(place.custody), 'file'), '')
    await t.throwsAsync(start({ directory: join(dirname(place.custody), 'file', 'x') }), {
      code: 'ERR_STORE_UNWRITABLE',
    })
  },
)

test.serial('messages that are not frames are ignored; frames are answered meanwhile', async (t) => {
  const { directory } = await makePlace(t)
  await using kms = await start({ directory })
  const port = ports.at(-1)
  const hostile: readonly unknown[] = [
    undefined,
    null,
    1,
    'x',
    [],
    {},
    { id: 1 },
    { id: '1', frame: new Uint8Array(1) },
    { id: 1, frame: [1] },
    { id: 1, frame: new Uint8Array(new SharedArrayBuffer(8)) },
    { id: 1, frame: new ArrayBuffer(8) },
    new Map([['id', 1]]),
  ]
  for (const message of hostile) port?.postMessage(message)
  // Nobody waits for this answer.
  port?.postMessage({ id: -7, frame: new Uint8Array(8) })
  const shared = new Uint8Array(new SharedArrayBuffer(8))
  await t.throwsAsync(async () => decodeKmsReply('identity', await kms.exchange(shared)), {
    code: 'ERR_REQUEST_INVALID',
  })
  t.true(decodeKmsReply('identity', await kms.exchange(encodeKmsRequest({ op: 'identity' }))).ready)
})

test.serial('when its worker dies, what is under way and what comes rejects', async (t) => {
  const { directory } = await makePlace(t)
  const before = workers.length
  const kms = await start({ directory })
  const calls = Array.from({ length: 20 }, () => kms.exchange(encodeKmsRequest({ op: 'challenge' })))
  await workers[before]?.terminate()
  const outcomes = await Promise.allSettled(calls)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') t.like(outcome.reason, { code: 'ERR_KMS_UNREACHABLE' })
  await t.throwsAsync(kms.exchange(encodeKmsRequest({ op: 'identity' })), { code: 'ERR_KMS_UNREACHABLE' })
  await t.notThrowsAsync(kms.close())
})

test('a frame over the limit is refused where it is handed over, and the KMS goes on', async (t) => {
  await using kms = await start(await makePlace(t))
  await t.throwsAsync(kms.exchange(new Uint8Array(KMS_FRAME_SIZE_BYTES_MAX + 1)), { code: 'ERR_SIZE_LIMIT' })
  t.true(decodeKmsReply('identity', await kms.exchange(encodeKmsRequest({ op: 'identity' }))).ready)
})
