import { createSecretKey } from 'node:crypto'
import { createRequire } from 'node:module'
import type { Worker, WorkerOptions } from 'node:worker_threads'
import test from 'ava'
import { Keyring } from '../../kms/keyring.js'
import { unsealKeys } from '../../kms/open-kms.js'
import type { PoolOptions } from '../../kms/pool.js'
import { parseHeader } from '../../protocol/age-header.js'
import type { Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { parseFlowId } from '../../protocol/names.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { decodeProofs } from '../../protocol/session.js'
import { newestKey, sealToKms } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'

const plaintextOf = (index: number, size = 100): Uint8Array => new Uint8Array(size).fill(index + 1)
const headerOf = (envelope: Bytes): Bytes => envelope.slice(0, parseHeader(envelope).sizeBytes)

const launchOne = async (options: Parameters<typeof startInProcess>[0] = {}) => {
  const kms = await startInProcess(options)
  const client = await kms.connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const seal = (plaintext: Uint8Array, change: Partial<Parameters<typeof sealToKms>[1]> = {}) =>
    sealToKms(plaintext, { encryptionKey, origin: client.origin, image: IMAGE, ...change })
  return { ...kms, client, seal, encryptionKey }
}

test('bulk gives the plaintexts back in order, with a status for each', async (t) => {
  const { client, seal } = await launchOne()
  const envelopes = [
    seal(plaintextOf(0)),
    new Uint8Array([1, 2, 3]),
    seal(plaintextOf(2, 70_000)),
    seal(plaintextOf(3, 0)),
  ]
  const { reply, secrets, proof } = await client.call({ op: 'bulk', envelopes })
  t.deepEqual(reply.items, [
    { key: 'root@1', error: null, sizeBytes: 100 },
    { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 },
    { key: 'root@1', error: null, sizeBytes: 70_000 },
    { key: 'root@1', error: null, sizeBytes: 0 },
  ])
  t.deepEqual(secrets, new Uint8Array([...plaintextOf(0), ...plaintextOf(2, 70_000)]))
  t.deepEqual(
    decodeProofs(proof).map(({ key }) => key),
    ['root@1'],
  )
})

test('where nothing opened, nothing is proven', async (t) => {
  const { client } = await launchOne()
  const { reply, secrets, proof } = await client.call({ op: 'unwrap', headers: [new Uint8Array(0)] })
  t.deepEqual(reply.items, [{ key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 }])
  t.is(secrets.length, 0)
  t.deepEqual(decodeProofs(proof), [])
})

test('a forged, foreign or swapped envelope is refused by one code, whatever is wrong with it', async (t) => {
  const { client, connect, seal } = await launchOne()
  const otherFlow = await connect()
  await otherFlow.launch('flow-2')
  const otherImage = await connect({ image: OTHER_IMAGE })
  await otherImage.launch('flow-3')
  const stranger = Keyring.create(nodeRandom)
  const good = seal(plaintextOf(0))
  const flipped = good.slice()
  flipped[flipped.length - 1] = (flipped[flipped.length - 1] ?? 0) ^ 1
  const forged: Readonly<Record<string, Bytes>> = {
    'a host seals to the right recipient, without a tag': seal(plaintextOf(0), { origin: undefined }),
    'a host seals with a tag of its own': seal(plaintextOf(0), {
      origin: { authority: client.origin?.authority ?? IMAGE, key: Secret.random(32, nodeRandom) },
    }),
    'sealed by another flow': seal(plaintextOf(0), { origin: otherFlow.origin, flow: 'flow-2' }),
    'sealed by another flow that claims to be this one': seal(plaintextOf(0), { origin: otherFlow.origin }),
    'sealed by another image': seal(plaintextOf(0), { origin: otherImage.origin, image: OTHER_IMAGE }),
    'this flow’s key over another flow’s context': seal(plaintextOf(0), { flow: 'flow-2' }),
    'this flow’s key over another image’s context': seal(plaintextOf(0), { image: OTHER_IMAGE }),
    'for another KMS': seal(plaintextOf(0), {
      encryptionKey: stranger.rootKeys[0]?.certificate.encryptionKey ?? IMAGE,
    }),
    'its payload changed': flipped,
    'cut short': good.slice(0, -1),
    'with something behind it': new Uint8Array([...good, 0]),
  }
  const { reply, secrets } = await client.call({ op: 'bulk', envelopes: [...Object.values(forged), good] })
  Object.keys(forged).forEach((what, index) => {
    t.deepEqual(reply.items[index], { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0 }, what)
  })
  t.is(reply.items.at(-1)?.error, null)
  t.deepEqual(secrets, plaintextOf(0))
  const headers = Object.entries(forged)
    .filter(([what]) => !/payload|short|behind/.test(what))
    .map(([, envelope]) => headerOf(envelope))
  const unwrapped = await client.call({ op: 'unwrap', headers })
  t.true(unwrapped.reply.items.every(({ error }) => error === 'ERR_ENVELOPE_INVALID'))
  t.is(unwrapped.secrets.length, 0)
})

test('what was sealed before a restart opens after it, from the keyring alone', async (t) => {
  const before = await launchOne()
  const envelope = before.seal(plaintextOf(0))
  const file = before.keyring.seal({ passphrase: Secret.take(new Uint8Array([1])), random: nodeRandom, logN: 10 })
  before.keyring[Symbol.dispose]()
  const keyring = Keyring.open(file, Secret.take(new Uint8Array([1])))
  // Everything else is lost: another disk, another ledger.
  const after = await startInProcess({ keyring, platform: before.platform })
  const client = await after.connect()
  await client.open()
  const { secrets } = await client.call({ op: 'bulk', envelopes: [envelope] })
  t.deepEqual(secrets, plaintextOf(0))
})

/** Captures the workers that are started from here on, as a hostile host would before launch; makes them unable to start, if told to. */
let areBroken = false
const captureWorkers = (): Worker[] => {
  const captured: Worker[] = []
  const threads = createRequire(import.meta.url)('node:worker_threads') as { Worker: typeof Worker }
  threads.Worker = class extends threads.Worker {
    constructor(file: string, options: WorkerOptions) {
      super(file, areBroken ? { ...options, execArgv: ['--require', '/there-is-no-such-file.cjs'] } : options)
      captured.push(this)
    }
  }
  return captured
}
const workers = captureWorkers()

const withPool = async (t: { teardown: (work: () => Promise<void>) => void }, options: PoolOptions = {}) => {
  const { UnsealPool } = await import('../../kms/pool.js')
  const started = await launchOne()
  const pool = await UnsealPool.start(unsealKeys(started.keyring), options)
  t.teardown(() => pool.close())
  const originKey = started.client.origin?.key.expose((bytes) => createSecretKey(bytes))
  if (originKey === undefined) throw new Error('no origin key')
  const task = (items: readonly Bytes[], kind: 'unwrap' | 'bulk' = 'bulk') => ({
    kind,
    items,
    flow: parseFlowId('flow-1'),
    image: IMAGE,
    originKey,
  })
  return { ...started, pool, task }
}

test.serial('the pool gives what the calling thread would, over many parts', async (t) => {
  const { pool, task, seal } = await withPool(t)
  const envelopes = Array.from({ length: 600 }, (_, index) =>
    index % 7 === 0 ? new Uint8Array(index) : seal(plaintextOf(index % 200, index % 90)),
  )
  const bulk = await pool.unseal(task(envelopes))
  t.is(bulk.items.length, 600)
  let offset = 0
  bulk.items.forEach(({ error, sizeBytes }, index) => {
    t.is(error, index % 7 === 0 ? 'ERR_ENVELOPE_INVALID' : null)
    t.is(sizeBytes, index % 7 === 0 ? 0 : index % 90)
    t.true(bulk.secrets.subarray(offset, offset + sizeBytes).every((byte) => byte === (index % 200) + 1))
    offset += sizeBytes
  })
  t.is(offset, bulk.secrets.length)
  const unwrapped = await pool.unseal(
    task(
      envelopes.map((envelope, index) => (index % 7 === 0 ? envelope : headerOf(envelope))),
      'unwrap',
    ),
  )
  t.is(unwrapped.secrets.length, 16 * unwrapped.items.filter(({ error }) => error === null).length)
  t.deepEqual(await pool.unseal(task([])), { items: [], secrets: new Uint8Array(0) })
})

test.serial('a pool worker that is killed costs nothing: its task is repeated', async (t) => {
  const { pool, task, seal } = await withPool(t)
  const envelopes = Array.from({ length: 8 }, () => seal(plaintextOf(1, 3_000_000)))
  await pool.unseal(task(envelopes.slice(0, 2)))
  const underWay = pool.unseal(task(envelopes))
  const killed = workers.at(-1)
  await killed?.terminate()
  const { items } = await underWay
  t.true(items.every(({ error }) => error === null))
  t.true((await pool.unseal(task(envelopes))).items.every(({ error }) => error === null))
})

test.serial('a pool whose workers cannot start says so; one whose workers all died starts others', async (t) => {
  const { pool, task, seal, keyring } = await withPool(t)
  const { UnsealPool } = await import('../../kms/pool.js')
  areBroken = true
  await t.throwsAsync(UnsealPool.start(unsealKeys(keyring)), { code: 'ERR_KMS_FAILED', message: /does not start/ })
  areBroken = false
  const envelope = seal(plaintextOf(3))
  await Promise.all(workers.slice(-4).map((worker) => worker.terminate()))
  const { items } = await pool.unseal(task([envelope]))
  t.deepEqual(items, [{ key: 'root@1', error: null, sizeBytes: 100 }])
})

test.serial('more than the pool will ever queue is refused at once', async (t) => {
  const { pool, task } = await withPool(t, { queueCountMax: 4 })
  const items = Array.from({ length: 300 }, () => new Uint8Array(0))
  // Two parts each, for two workers and four places in the queue.
  const calls = await Promise.allSettled(Array.from({ length: 5 }, () => pool.unseal(task(items))))
  const refused = calls.filter((call) => call.status === 'rejected')
  t.is(calls[0]?.status, 'fulfilled')
  t.true(refused.length >= 2)
  for (const call of refused) t.like(call.reason, { code: 'ERR_CALLS_LIMIT' })
})
