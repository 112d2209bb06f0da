import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import {
  faultyKms,
  faultyStore,
  KillablePlatform,
  portPair,
  Recorder,
  SeededRandom,
  SimulatedClock,
  type Moment,
} from '../../faults/index.js'
import { launch, MemoryStore } from '../../host/index.js'
import { RUNTIME_OCALLS, encodeCall } from '../../protocol/calls.js'
import { echoKms, scriptedImage, ScriptedPlatform } from '../host/scripted-platform.js'

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values)
const text = (characters: string): Uint8Array => new TextEncoder().encode(characters)

test('a store without faults is the store, and the plan sees every moment', async (t) => {
  const moments: Moment[] = []
  const store = faultyStore(new MemoryStore(), (moment) => {
    moments.push(moment)
    return undefined
  })
  await store.put('a/1', bytes(1))
  t.deepEqual(await store.get('a/1'), bytes(1))
  t.deepEqual(await store.list('a/'), ['a/1'])
  await store.delete('a/1')
  t.is(await store.read('a/1', 0, 1), undefined)
  t.deepEqual(
    moments.map(({ at, operation, subject, index }) => `${String(index)} ${at} ${operation} ${subject}`),
    [
      '0 before store-put a/1',
      '0 after store-put a/1',
      '1 before store-get a/1',
      '1 after store-get a/1',
      '2 before store-list a/',
      '2 after store-list a/',
      '3 before store-delete a/1',
      '3 after store-delete a/1',
      '4 before store-read a/1',
      '4 after store-read a/1',
    ],
  )
})

test('a put fails before it happens, or after', async (t) => {
  for (const at of ['before', 'after'] as const) {
    const inner = new MemoryStore()
    const store = faultyStore(inner, (moment) => (moment.at === at ? { fail: 'ERR_STORE_IO' } : undefined))
    await t.throwsAsync(store.put('a/1', bytes(1)), { code: 'ERR_STORE_IO' })
    t.is((await inner.get('a/1')) === undefined, at === 'before')
  }
})

test('another answer takes the true one’s place, once or of any type', async (t) => {
  const inner = new MemoryStore()
  await inner.put('a/1', bytes(1))
  const store = faultyStore(inner, ({ index, at }) =>
    at === 'after' ? { answer: [bytes(2), undefined, 'nonsense'][index] } : undefined,
  )
  t.deepEqual(await store.get('a/1'), bytes(2))
  t.is(await store.get('a/1'), undefined)
  const hostile: unknown = await store.get('a/1')
  t.is(hostile, 'nonsense')
})

test('a KMS loses requests and answers', async (t) => {
  let arrived = 0
  const inner = { ...echoKms, exchange: (frame: Uint8Array) => Promise.resolve(bytes(frame[0] ?? 0, ++arrived)) }
  const kms = faultyKms(inner, ({ at, index }) =>
    at === (['before', 'after'] as const)[index] ? { fail: 'ERR_KMS_UNREACHABLE' } : undefined,
  )
  t.is(kms.identity, inner.identity)
  await t.throwsAsync(kms.exchange(bytes(7)), { code: 'ERR_KMS_UNREACHABLE' })
  t.is(arrived, 0)
  await t.throwsAsync(kms.exchange(bytes(7)), { code: 'ERR_KMS_UNREACHABLE' })
  t.is(arrived, 1)
  t.deepEqual(await kms.exchange(bytes(7)), bytes(7, 2))
})

test('an enclave is killed in the middle of a put, which is lost or done, and is launched again', async (t) => {
  for (const at of ['before', 'after'] as const) {
    const scripted = new ScriptedPlatform()
    const platform = new KillablePlatform(scripted)
    const inner = new MemoryStore()
    const store = faultyStore(inner, async (moment) => {
      if (moment.operation !== 'store-put' || moment.at !== at) return undefined
      t.is(await platform.kill('flow-1'), 1)
      return { fail: 'ERR_STORE_IO' }
    })
    const handle = await launch({ image: scriptedImage(), platform, store, kms: echoKms, flow: 'flow-1' })
    const [first] = scripted.launched
    const { message } = encodeCall('1', RUNTIME_OCALLS.storePut, { name: 'flow-1/a', bytes: bytes(1) })
    if (first !== undefined) {
      first.onCall = () => {
        first.inside.ocalls.post(message)
      }
    }
    await t.throwsAsync(handle.ecalls['echo']?.(1) as Promise<unknown>, { code: 'ERR_ENCLAVE_LOST' })
    t.is(await handle.ecalls['echo']?.(2), 2)
    t.deepEqual(
      [await inner.list(''), scripted.launched.length, platform.killCount, first?.terminateCount],
      [at === 'before' ? [] : ['flow-1/a'], 2, 1, 0],
    )
    await handle.close()
  }
})

test('killing a flow that has no live enclave kills none', async (t) => {
  const scripted = new ScriptedPlatform()
  const platform = new KillablePlatform(scripted)
  t.is(await platform.kill('flow-1'), 0)
  const handle = await launch({
    image: scriptedImage(),
    platform,
    store: new MemoryStore(),
    kms: echoKms,
    flow: 'flow-1',
  })
  t.is(await platform.kill('flow-2'), 0)
  await handle.close()
  t.is(await platform.kill('flow-1'), 0)
  t.is(platform.killCount, 0)
})

test('the recorder keeps every message of every boundary, in both directions', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-recorder-'))
  const scripted = new ScriptedPlatform((enclave) => {
    enclave.onCall = ({ id, claimedArgument }) => {
      enclave.inside.ocalls.post(
        encodeCall('1', RUNTIME_OCALLS.storePut, { name: 'flow-1/a', bytes: text('ocall-out') }).message,
      )
      enclave.inside.ocalls.post(encodeCall('2', RUNTIME_OCALLS.kmsExchange, { frame: text('frame-out') }).message)
      enclave.inside.ocalls.post(encodeCall('3', RUNTIME_OCALLS.storeGet, { name: 'flow-1/b' }).message)
      setTimeout(() => enclave.reply(id, ['ecall-out', claimedArgument]), 50)
    }
    enclave.ready()
  })
  using recorder = new Recorder(join(directory, 'spool'))
  const store = new MemoryStore()
  await store.put('flow-1/b', text('stored-in'))
  const handle = await launch({
    image: scriptedImage(),
    platform: recorder.platform(scripted),
    store: recorder.store(store),
    kms: recorder.kms({ ...echoKms, exchange: () => Promise.resolve(text('frame-in')) }),
    flow: 'flow-1',
  })
  // A view: the whole buffer crosses with it, so the whole buffer counts.
  const pool = text('before|ecall-in|after')
  await handle.ecalls['echo']?.([1, 2, 255, { key: 'text' }])
  recorder.record('own', {
    view: pool.subarray(7, 15),
    map: new Map([['k', 'in-a-map']]),
    error: new Error('in-an-error'),
    big: 10n,
  })
  await handle.close()
  const spool = async (name: string): Promise<string> =>
    readFile(join(directory, 'spool', `${name}.messages`), 'latin1')
  for (const [boundary, ...contents] of [
    ['ecalls-to-enclave', '1,2,255,', '"key":text'],
    ['ecalls-from-enclave', 'READY', 'ecall-out', '1,2,255,'],
    ['ocalls-from-enclave', 'ocall-out', 'frame-out'],
    ['ocalls-to-enclave', 'frame-in', 'stored-in'],
    ['store-out', 'store-put', 'flow-1/a', 'ocall-out'],
    ['store-in', 'stored-in'],
    ['kms-out', 'frame-out'],
    ['kms-in', 'frame-in'],
    ['own', 'before|ecall-in|after', 'in-a-map', 'in-an-error', '10'],
  ] as const) {
    const spooled = await spool(boundary)
    for (const content of contents) t.true(spooled.includes(content), `${boundary}: ${content}`)
  }
  t.is(recorder.files.length, 9)
  t.is(
    recorder.sizeBytes,
    (await Promise.all(recorder.files.map((file) => readFile(file)))).reduce((sum, { length }) => sum + length, 0),
  )
  await rm(directory, { recursive: true })
})

test('a simulated clock runs timers in order, and only when told', async (t) => {
  const clock = new SimulatedClock(1_000)
  const ran: string[] = []
  clock.timer(20, () => ran.push(`b at ${String(clock.nowMs())}`))
  clock.timer(10, () => {
    ran.push(`a at ${String(clock.nowMs())}`)
    clock.timer(5, () => ran.push(`c at ${String(clock.nowMs())}`))
  })
  clock.timer(15, () => ran.push('never'))[Symbol.dispose]()
  t.deepEqual(clock.pendingMs, [10, 20])
  await clock.advance(9)
  t.deepEqual(ran, [])
  await clock.advance(11)
  t.deepEqual(ran, ['a at 1010', 'c at 1015', 'b at 1020'])
  clock.timer(10, () => ran.push('d'))
  clock.jump(-5_000)
  t.is(clock.nowMs(), -3_980)
  await clock.advance(10)
  t.is(ran.at(-1), 'd')
})

test('seeded bytes are the same for the same seed and no other', (t) => {
  const draw = (seed: string | number, ...sizes: number[]): string =>
    sizes.map((size) => Buffer.from(new SeededRandom(seed).fill(new Uint8Array(size))).toString('hex')).join()
  t.is(draw(1, 5, 70), draw('1', 5, 70))
  t.not(draw(1, 70), draw(2, 70))
  const random = new SeededRandom(1)
  t.notDeepEqual(random.fill(new Uint8Array(32)), random.fill(new Uint8Array(32)))
})

test('a port pair delivers clones, in order, later, and nothing after it closed', async (t) => {
  const [a, b] = portPair()
  const got: unknown[] = []
  const sent = { list: [1] }
  a.post(sent)
  sent.list.push(2)
  a.post('second')
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(got, [])
  b.onMessage((message) => got.push(message))
  t.deepEqual(got, [{ list: [1] }, 'second'])
  const moved = new Uint8Array([1, 2])
  b.post(moved, [moved.buffer])
  t.is(moved.length, 0)
  a.post('lost')
  b.close()
  a.post('nobody')
  await new Promise((resolve) => setImmediate(resolve))
  t.is(got.length, 2)
})
