import { createSecretKey } from 'node:crypto'
import { createRequire } from 'node:module'
import { MessagePort, type Worker, type WorkerOptions } from 'node:worker_threads'
import test from 'ava'
import { unsealKeys } from '../../kms/unseal-keys.js'
import type { PoolOptions } from '../../kms/pool.js'
import { SEGMENT_KEYS_SIZE, slotAreas } from '../../kms/reseal.js'
import { Slots } from '../../kms/slots.js'
import { InlineUnsealer, type SegmentRequest } from '../../kms/unseal.js'
import { parseHeader } from '../../protocol/age-header.js'
import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { decodeKmsReply } from '../../protocol/kms.js'
import { parseFlowId } from '../../protocol/names.js'
import { openDelivery, segmentAt, segmentCount } from '../../protocol/crypto/delivery.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  payloadSize,
  PAYLOAD_NONCE_SIZE,
  SEALED_CHUNK_SIZE,
  SEALED_SEGMENT_SIZE,
  sealPayloadInto,
  SEGMENT_SIZE,
} from '../../protocol/crypto/payload.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { newestKey, sealToKms } from './attested-client.js'
import { IMAGE, startInProcess } from './in-process.js'

const random = (size: number): Bytes => nodeRandom.fill(allocate(size))
const plaintextOf = (index: number, size = 100): Uint8Array => new Uint8Array(size).fill(index + 1)
const headerOf = (envelope: Bytes): Bytes => envelope.slice(0, parseHeader(envelope).sizeBytes)

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

/** Kills workers while `work` is under way, one after the other, as soon as each could have been given a task. */
const killWhile = async (work: Promise<unknown>, count: number): Promise<void> => {
  const done = Promise.allSettled([work])
  for (let killed = 0; killed < count; killed++) {
    await Promise.all(workers.slice(-2).map((worker) => worker.terminate()))
    await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 20))])
  }
}

const withPool = async (t: { teardown: (work: () => Promise<void>) => void }, options: PoolOptions = {}) => {
  const { UnsealPool } = await import('../../kms/pool.js')
  const kms = await startInProcess()
  const client = await kms.connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const seal = (plaintext: Uint8Array) => sealToKms(plaintext, { encryptionKey, origin: client.origin, image: IMAGE })
  const pool = await UnsealPool.start(unsealKeys(kms.keyring), options)
  t.teardown(() => pool.close())
  const originKey = client.origin?.key.expose((bytes) => createSecretKey(bytes))
  if (originKey === undefined) throw new Error('no origin key')
  const task = (items: readonly Bytes[]) => ({
    kind: 'unwrap' as const,
    items,
    flow: parseFlowId('flow-1'),
    image: IMAGE,
    originKey,
  })
  return { ...kms, pool, task, seal }
}

test.serial('the pool gives what the calling thread would, over many parts', async (t) => {
  const { pool, task, seal, keyring } = await withPool(t)
  const headers = Array.from({ length: 600 }, (_, index) =>
    index % 7 === 0 ? new Uint8Array(index) : headerOf(seal(plaintextOf(index % 200, index % 90))),
  )
  const unsealed = await pool.unseal(task(headers))
  t.deepEqual(unsealed, await new InlineUnsealer(unsealKeys(keyring)).unseal(task(headers)))
  t.deepEqual(
    unsealed.items.map(({ error }) => error),
    headers.map((_, index) => (index % 7 === 0 ? 'ERR_ENVELOPE_INVALID' : null)),
  )
  t.deepEqual(await pool.unseal(task([])), { items: [], secrets: new Uint8Array(0) })
})

test.serial('a pool worker that is killed costs nothing: its task is repeated', async (t) => {
  const { pool, task, seal } = await withPool(t)
  const headers = Array<Bytes>(2000).fill(headerOf(seal(plaintextOf(1))))
  const unsealing = pool.unseal(task(headers))
  await killWhile(unsealing, 2)
  const { items, secrets } = await unsealing
  t.true(items.every(({ error }) => error === null))
  t.is(secrets.length, 2000 * 16)
  t.true((await pool.unseal(task(headers))).items.every(({ error }) => error === null))
})

test.serial('a pool whose workers cannot start says so; one whose workers all died starts others', async (t) => {
  const { pool, task, seal, keyring } = await withPool(t)
  const { UnsealPool } = await import('../../kms/pool.js')
  areBroken = true
  await t.throwsAsync(UnsealPool.start(unsealKeys(keyring)), { code: 'ERR_KMS_FAILED', message: /does not start/ })
  areBroken = false
  const header = headerOf(seal(plaintextOf(3)))
  await Promise.all(workers.slice(-4).map((worker) => worker.terminate()))
  const { items } = await pool.unseal(task([header]))
  t.deepEqual(items, [{ key: 'root@1', error: null, sizeBytes: 16 }])
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

/** A payload in shared memory, and what it holds. */
const sharedPayload = (sizeBytes: number) => {
  const plaintext = random(sizeBytes)
  const fileKey = Secret.random(16, nodeRandom)
  const sealed = allocate(payloadSize(sizeBytes))
  sealPayloadInto(fileKey, plaintext, nodeRandom, sealed)
  const payload = new Uint8Array(new SharedArrayBuffer(sealed.length))
  payload.set(sealed)
  const into = new Uint8Array(new SharedArrayBuffer(sizeBytes)).fill(7)
  return { plaintext, fileKey, payload, into }
}
const isZero = (bytes: Uint8Array): boolean => Buffer.compare(bytes, new Uint8Array(bytes.length)) === 0

test.serial('the pool opens whole payloads in shared memory, of every size', async (t) => {
  const { pool } = await withPool(t)
  for (const size of [
    0,
    1,
    CHUNK_SIZE,
    CHUNK_SIZE + 1,
    256 * CHUNK_SIZE,
    257 * CHUNK_SIZE,
    257 * CHUNK_SIZE + 1,
    36_000_000,
  ]) {
    const { plaintext, ...payload } = sharedPayload(size)
    await pool.openPayload(payload)
    t.is(Buffer.compare(payload.into, plaintext), 0, String(size))
  }
})

test.serial('of a payload that is damaged, cut or under another key nothing is released', async (t) => {
  const { pool } = await withPool(t)
  const size = 520 * CHUNK_SIZE + 9
  const whole = sharedPayload(size)
  const refuse = async (what: string, change: Partial<typeof whole>, code = 'ERR_PAYLOAD_INVALID') => {
    whole.into.fill(7)
    const changed = { ...whole, ...change }
    await t.throwsAsync(pool.openPayload(changed), { code }, what)
    t.true(isZero(changed.into), what)
  }
  for (const chunk of [0, 255, 256, 514, 519, 520]) {
    const place = PAYLOAD_NONCE_SIZE + chunk * SEALED_CHUNK_SIZE + 3
    whole.payload[place] = (whole.payload[place] ?? 0) ^ 1
    await refuse(`chunk ${chunk}`, {})
    whole.payload[place] ^= 1
  }
  await refuse('another key', { fileKey: Secret.random(16, nodeRandom) })
  const cutAt = PAYLOAD_NONCE_SIZE + 520 * SEALED_CHUNK_SIZE
  await refuse('cut at a chunk', {
    payload: whole.payload.subarray(0, cutAt),
    into: whole.into.subarray(0, 520 * CHUNK_SIZE),
  })
  whole.into.fill(0)
  await t.throwsAsync(pool.openPayload({ ...whole, payload: whole.payload.subarray(0, cutAt + 15) }), {
    code: 'ERR_PAYLOAD_TRUNCATED',
  })
  await t.throwsAsync(pool.openPayload({ ...whole, payload: whole.payload.subarray(0, 31) }), {
    code: 'ERR_PAYLOAD_TRUNCATED',
  })
  await t.throwsAsync(pool.openPayload({ ...whole, into: whole.into.subarray(1) }), { instanceOf: RangeError })
  await pool.openPayload(whole)
  t.is(Buffer.compare(whole.into, whole.plaintext), 0)
})

test.serial('opening a payload is cancelled by its signal, before and while it runs, and leaves zeroes', async (t) => {
  const { pool } = await withPool(t)
  const payload = sharedPayload(1600 * CHUNK_SIZE)
  const reason = new Error('enough')
  await t.throwsAsync(pool.openPayload(payload, { signal: AbortSignal.abort(reason) }), { is: reason })
  t.true(isZero(payload.into))
  const cancelled = new AbortController()
  const opening = pool.openPayload(payload, { signal: cancelled.signal })
  while (isZero(payload.into.subarray(-CHUNK_SIZE))) await new Promise(setImmediate)
  cancelled.abort(reason)
  await t.throwsAsync(opening, { is: reason })
  t.true(isZero(payload.into))
  await pool.openPayload(payload)
  t.is(Buffer.compare(payload.into, payload.plaintext), 0)
})

/** Segments of one payload, and how an enclave would read what is delivered. */
const segmented = (sizeBytes: number) => {
  const { plaintext, fileKey, payload } = sharedPayload(sizeBytes)
  const payloadKey = derivePayloadKey(fileKey, copyBytes(payload.subarray(0, PAYLOAD_NONCE_SIZE)))
  const deliveryKey = random(32)
  const request = (index: number, change: Partial<SegmentRequest> = {}): SegmentRequest => {
    const start = PAYLOAD_NONCE_SIZE + index * SEALED_SEGMENT_SIZE
    return {
      segment: segmentAt(sizeBytes, index),
      sealed: payload.slice(start, start + SEALED_SEGMENT_SIZE),
      known: undefined,
      writeKeys: (into) => {
        into.set(payloadKey)
        into.set(deliveryKey, 32)
      },
      ...change,
    }
  }
  const isRight = (index: number, reply: Uint8Array): boolean => {
    const delivered = decodeKmsReply('segment', reply).sealed
    const segment = segmentAt(sizeBytes, index)
    const into = allocate(segment.sizeBytes)
    const expected = plaintext.subarray(index * SEGMENT_SIZE, index * SEGMENT_SIZE + segment.sizeBytes)
    return openDelivery(deliveryKey, segment, delivered, into) !== undefined && Buffer.compare(into, expected) === 0
  }
  return { request, isRight, count: segmentCount(sizeBytes) }
}

test.serial('workers that are killed in mid-batch lose no segment and no chunk', async (t) => {
  const { pool } = await withPool(t)
  const { request, isRight, count } = segmented(23 * SEGMENT_SIZE + 5)
  const answers = Promise.all(Array.from({ length: count }, (_, index) => pool.reseal(request(index))))
  await killWhile(answers, 2)
  for (const [index, { reply }] of (await answers).entries()) t.true(isRight(index, reply), String(index))
  const payload = sharedPayload(2000 * CHUNK_SIZE)
  const opening = pool.openPayload(payload)
  await killWhile(opening, 2)
  await opening
  t.is(Buffer.compare(payload.into, payload.plaintext), 0)
})

test.serial('a segment that does not open is refused, and the slot serves the next', async (t) => {
  const { pool } = await withPool(t, { threadCount: 1 })
  const { request, isRight } = segmented(2 * SEGMENT_SIZE)
  const good = request(0)
  const { digest, reply } = await pool.reseal(good)
  t.true(isRight(0, reply))
  for (let round = 0; round < 3; round++) {
    const refused = { code: 'ERR_ENVELOPE_INVALID' }
    await t.throwsAsync(pool.reseal({ ...good, sealed: request(1).sealed }), refused)
    await t.throwsAsync(pool.reseal({ ...good, known: random(32) }), refused)
    const gone = new Error('its stream has ended')
    const writeKeys = () => {
      throw gone
    }
    await t.throwsAsync(pool.reseal({ ...good, writeKeys }), { is: gone })
  }
  t.is(Buffer.compare((await pool.reseal({ ...good, known: digest })).reply, reply), 0)
})

test.serial('more segments than may wait are refused at once; those that wait are served', async (t) => {
  const { pool } = await withPool(t, { threadCount: 1, segmentQueueCountMax: 3 })
  const { request, isRight } = segmented(8 * SEGMENT_SIZE)
  const asked = await Promise.allSettled(Array.from({ length: 8 }, (_, index) => pool.reseal(request(index))))
  asked.forEach((answer, index) => {
    // Two slots, three places to wait.
    if (answer.status === 'fulfilled') t.true(index < 5 && isRight(index, answer.value.reply))
    else t.true(index >= 5 && (answer.reason as { code?: string }).code === 'ERR_CALLS_LIMIT')
  })
})

/** Every piece of memory that is shared with a worker from here on. */
const captureShared = (t: { teardown: (work: () => void) => void }): Set<SharedArrayBuffer> => {
  const captured = new Set<SharedArrayBuffer>()
  const postMessage = Reflect.get(MessagePort.prototype, 'postMessage') as (...message: unknown[]) => void
  MessagePort.prototype.postMessage = function (message?: { task?: { slot?: unknown; key?: Uint8Array } }, ...rest) {
    for (const memory of [message?.task?.slot, message?.task?.key?.buffer])
      if (memory instanceof SharedArrayBuffer) captured.add(memory)
    Reflect.apply(postMessage, this, [message, ...rest])
  }
  t.teardown(() => (MessagePort.prototype.postMessage = postMessage))
  return captured
}

test.serial('shared memory keeps no key once its task is done, whatever became of it', async (t) => {
  const { pool } = await withPool(t)
  const shared = captureShared(t)
  const { request } = segmented(4 * SEGMENT_SIZE)
  const answers = Promise.allSettled(
    Array.from({ length: 8 }, (_, index) =>
      pool.reseal(request(index % 4, { known: index < 4 ? undefined : random(32) })),
    ),
  )
  await killWhile(answers, 1)
  await answers
  await pool.openPayload(sharedPayload(10))
  await t.throwsAsync(pool.openPayload({ ...sharedPayload(10), fileKey: Secret.random(16, nodeRandom) }))
  t.true(shared.size >= 4)
  for (const memory of shared) t.true(isZero(new Uint8Array(memory, 0, Math.min(memory.byteLength, SEGMENT_KEYS_SIZE))))
})

test('a slot that may still be worked in is never handed on', async (t) => {
  const slots = new Slots({ count: 1, waitingCountMax: 1 })
  const first = await slots.take()
  slotAreas(first).keys.fill(9)
  slots.give(first, true)
  const again = await slots.take()
  t.is(again, first)
  t.true(isZero(slotAreas(again).keys))
  const waiting = slots.take()
  await t.throwsAsync(slots.take(), { code: 'ERR_CALLS_LIMIT' })
  slots.give(again, false)
  t.not(await waiting, first)
})
