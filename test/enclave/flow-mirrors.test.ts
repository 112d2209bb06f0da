import test from 'ava'
import type { OpenedFlow } from '../../enclave/flow.js'
import type { VerifiedObject } from '../../enclave/index.js'
import { aroundStore } from '../../faults/around.js'
import { launchInProcess } from '../../faults/index.js'
import { MirrorStore, type EnclaveEvent } from '../../host/index.js'
import type { Bytes } from '../../protocol/bytes.js'
import { KeyriseError } from '../../protocol/errors.js'
import { MemoryStore } from '../../storage/index.js'
import notebook from '../host/notebook.enclave.js'
import { failing, HostStore, readAll, readText, startWorld, text, type LaunchOptions } from './flow-world.js'

const STATE = { 'password/a': 'a', 'password/b': 'b', 'session/peer': 'peer', 'session/other': 'other' }

/** A flow of three epochs whose store keeps two copies; each launch forgets what the one before had cached. */
const mirroredWorld = async () => {
  const world = await startWorld()
  const [a, b] = [new HostStore(), new HostStore()]
  const store = new MirrorStore([a, b])
  const found: string[] = []
  const launch = (options: LaunchOptions = {}): Promise<OpenedFlow> =>
    world.launch({ store, found: (object, status) => found.push(`${object} ${status}`), ...options })
  const { flow } = await launch()
  await flow.checkpoint({ 'password/a': text('a'), 'session/peer': { to: 'kms', bytes: text('peer') } })
  await flow.checkpoint({ 'password/b': text('b'), 'session/other': { to: 'kms', bytes: text('other') } })
  const whole = await a.objects()
  const isWhole = async (): Promise<boolean> => same(await a.objects(), whole) && same(await b.objects(), whole)
  const reset = async (): Promise<void> => {
    await a.restore(whole)
    await b.restore(whole)
    found.length = 0
  }
  return { ...world, store, a, b, found, launch, names: [...whole.keys()], whole, isWhole, reset }
}

const same = (one: ReadonlyMap<string, Bytes>, other: ReadonlyMap<string, Bytes>): boolean =>
  one.size === other.size && [...one].every(([name, bytes]) => Buffer.compare(bytes, other.get(name) ?? text('')) === 0)

const statuses = (verified: readonly VerifiedObject[]): string[] =>
  verified.map(({ object, status, copies, entries }) =>
    [object.replace(/-.*/, ''), status, ...copies, ...entries].join(' '),
  )

const verifyAll = async ({ flow }: OpenedFlow, options: Parameters<typeof flow.verify>[0] = {}) => {
  const verified: VerifiedObject[] = []
  for await (const one of flow.verify(options)) verified.push(one)
  return verified
}

/** Ways in which a copy of an object goes bad. */
const DAMAGE: Readonly<Record<string, (bytes: Bytes) => Uint8Array | undefined>> = {
  missing: () => undefined,
  empty: () => new Uint8Array(0),
  'cut short': (bytes) => bytes.subarray(0, bytes.length - 1),
  'flipped at its end': (bytes) => bytes.map((byte, index) => (index === bytes.length - 1 ? byte ^ 1 : byte)),
  'flipped in its middle': (bytes) => bytes.map((byte, index) => (index === bytes.length >> 1 ? byte ^ 1 : byte)),
}

const harm = async (copy: HostStore, name: string, how: (bytes: Bytes) => Uint8Array | undefined): Promise<void> => {
  const bytes = (await copy.get(name)) as Bytes
  const damaged = how(bytes)
  await copy.delete(name)
  if (damaged !== undefined) await copy.put(name, damaged)
}

for (const [kind, how] of Object.entries(DAMAGE)) {
  test(`any one object, ${kind} in the copy that is read first, is served by the other and written back`, async (t) => {
    const world = await mirroredWorld()
    for (const name of world.names) {
      await world.reset()
      await harm(world.a, name, how)
      const opened = await world.launch()
      t.deepEqual(await readAll(opened), STATE, name)
      t.true(await world.isWhole(), name)
      t.is(world.found.length, 1, name)
      t.regex(world.found[0] ?? '', / repaired$/)
    }
  })
}

test('all objects at once, each bad in one of the copies, and the halves of one pair in different ones', async (t) => {
  const world = await mirroredWorld()
  const kinds = Object.values(DAMAGE)
  for (const [index, name] of world.names.entries()) {
    const how = kinds[index % kinds.length] ?? (() => undefined)
    await harm(index % 2 === 0 ? world.a : world.b, name, how)
  }
  const opened = await world.launch()
  t.deepEqual(await readAll(opened), STATE)
  await verifyAll(opened)
  t.true(await world.isWhole())
})

test('verify names each object, what it holds and how its copies are, and repairs those that nobody reads', async (t) => {
  const world = await mirroredWorld()
  const opened = await world.launch()
  const intact = [
    'root intact intact intact password/a session/peer password/b session/other',
    'direct intact intact intact session/peer',
    'epoch intact intact intact password/a',
    'direct intact intact intact session/other',
    'epoch intact intact intact password/b',
  ]
  t.deepEqual(statuses(await verifyAll(opened)), intact)
  t.deepEqual(world.found, [])
  for (const name of world.names) await harm(world.b, name, () => undefined)
  t.deepEqual(
    statuses(await verifyAll(opened)),
    intact.map((line) => line.replace('intact intact intact', 'repaired intact repaired')),
  )
  t.true(await world.isWhole())
  t.is(world.found.length, 5)
  t.deepEqual(statuses(await verifyAll(opened)), intact)
})

test('what is lost in all copies is named, by object and by entry, and the others are read', async (t) => {
  const world = await mirroredWorld()
  for (const copy of [world.a, world.b]) {
    const [second = ''] = await copy.names('epoch-0000000002')
    await harm(copy, second, copy === world.a ? () => undefined : (bytes) => bytes.subarray(1))
    const [payload = ''] = await copy.names('direct-0000000003-0000000001-000003.payload')
    await harm(copy, payload, () => undefined)
  }
  const opened = await world.launch()
  await t.throwsAsync(opened.flow.read('password/a'), { code: 'ERR_DIGEST_MISMATCH', message: /epoch-0000000002/ })
  await t.throwsAsync(opened.flow.read('session/other'), { code: 'ERR_STATE_LOST', message: /direct-0000000003/ })
  t.is(await readText(opened, 'password/b'), 'b')
  t.is(await readText(opened, 'session/peer'), 'peer')
  t.deepEqual(world.found, [
    'epoch-0000000002-0000000001-000002 damaged',
    'direct-0000000003-0000000001-000003 missing',
  ])
  t.deepEqual(statuses(await verifyAll(opened)), [
    'root intact intact intact password/a session/peer password/b session/other',
    'direct intact intact intact session/peer',
    'epoch damaged missing damaged password/a',
    'direct missing missing missing session/other',
    'epoch intact intact intact password/b',
  ])
})

test('without mirrors verify names what is lost all the same, and changes nothing', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a') })
  await flow.checkpoint({ 'password/b': text('b') })
  const opened = await world.launch()
  const [second = ''] = await world.store.names('epoch-0000000002')
  await world.store.delete(second)
  const before = await world.store.objects()
  t.deepEqual(statuses(await verifyAll(opened)), [
    'root intact intact password/a password/b',
    'epoch missing missing password/a',
    'epoch intact intact password/b',
  ])
  t.true(same(before, await world.store.objects()))
})

test('verify looks at the newest epoch file also where it holds no entry, and names its loss', async (t) => {
  const world = await startWorld()
  const opened = await world.launch()
  await opened.flow.checkpoint({ 'password/a': text('a'), 'password/b': text('b') })
  await opened.flow.delete(['password/b'])
  const lines = ['root intact intact password/a', 'epoch intact intact password/a', 'epoch intact intact']
  t.deepEqual(statuses(await verifyAll(opened)), lines)
  const [newest = ''] = await world.store.names('epoch-0000000003')
  await world.store.delete(newest)
  t.deepEqual(statuses(await verifyAll(opened)), [...lines.slice(0, 2), 'epoch missing missing'])
})

test('verify goes on behind an object, stops when it is told to, and refuses a name that is none', async (t) => {
  const { launch } = await mirroredWorld()
  const opened = await launch()
  const all = await verifyAll(opened)
  const after = all[2]?.object ?? ''
  t.deepEqual(await verifyAll(opened, { after }), all.slice(3))
  t.deepEqual(await verifyAll(opened, { after: all[0]?.object ?? '' }), all.slice(1))
  await t.throwsAsync(verifyAll(opened, { after: 'epoch-2' }), { code: 'ERR_NAME_INVALID' })
  const controller = new AbortController()
  const seen: string[] = []
  await t.throwsAsync(
    (async () => {
      for await (const { object } of opened.flow.verify({ signal: controller.signal })) {
        seen.push(object)
        if (seen.length === 2) controller.abort(new Error('enough'))
      }
    })(),
    { message: 'enough' },
  )
  t.is(seen.length, 2)
})

test('two runs of verify at once read each object once; what a checkpoint dropped meanwhile is no loss', async (t) => {
  const world = await mirroredWorld()
  let readCount = 0
  let overtake: (() => Promise<unknown>) | undefined
  const opened = await world.launch({
    interrupt: async ({ at, operation }) => {
      if (at !== 'before' || operation !== 'store-get') return
      readCount++
      const run = overtake
      overtake = undefined
      await run?.()
    },
  })
  readCount = 0
  await verifyAll(opened)
  const alone = readCount
  readCount = 0
  const [one, other] = await Promise.all([verifyAll(opened), verifyAll(opened)])
  t.deepEqual(one, other)
  t.is(readCount, alone)
  const run = opened.flow.verify()[Symbol.asyncIterator]()
  await run.next()
  overtake = async () => {
    await opened.flow.delete(['session/peer'])
    await opened.flow.checkpoint({ 'password/a': text('2') })
    await opened.flow.checkpoint({ 'password/c': text('c') })
  }
  const rest: VerifiedObject[] = []
  for await (const item of { [Symbol.asyncIterator]: () => run }) rest.push(item)
  t.deepEqual(statuses(rest), ['direct intact intact intact session/other', 'epoch intact intact intact password/b'])
})

test('a copy out of reach loses nothing and hides nothing: the other is read, and nothing is said to be lost', async (t) => {
  const world = await mirroredWorld()
  let isAway = false
  const unsteady = aroundStore(world.a, async (_call, work) => {
    if (isAway) throw new KeyriseError('ERR_STORE_IO')
    return work()
  })
  const store = new MirrorStore([unsteady, world.b], { required: 1 })
  isAway = true
  // One of two is required, so the copy that is away may know of more.
  await t.throwsAsync(world.launch({ store }), { code: 'ERR_STORE_IO' })
  isAway = false
  const opened = await world.launch({ store })
  isAway = true
  t.deepEqual(await readAll(opened), STATE)
  const [name = ''] = await world.b.names('epoch-0000000002')
  await world.b.delete(name)
  t.deepEqual(statuses(await verifyAll(opened))[2], 'epoch unreadable unreadable missing password/a')
  // Nor is damage in one copy the last word while the other does not answer.
  isAway = false
  const next = await world.launch({ store })
  isAway = true
  const [third = ''] = await world.b.names('direct-0000000003-0000000001-000003.payload')
  await harm(world.b, third, (bytes) => bytes.subarray(1))
  await t.throwsAsync(next.flow.read('session/other'), { code: 'ERR_STORE_IO' })
})

test('a checkpoint that a crash left in one copy alone is in both before the ledger names it', async (t) => {
  const world = await mirroredWorld()
  let isDead = false
  const dying = await world.launch({
    interrupt: ({ at, operation }) => {
      if (isDead && operation === 'kms-exchange' && at === 'before') throw new KeyriseError('ERR_KMS_UNREACHABLE')
    },
  })
  isDead = true
  await t.throwsAsync(dying.flow.checkpoint({ 'password/a': text('adopted') }))
  const [name = ''] = await world.a.names('epoch-0000000004')
  await world.a.delete(name)
  const operations: string[] = []
  const opened = await world.launch({
    interrupt: ({ at, operation }) => {
      if (at === 'after') operations.push(operation)
    },
  })
  t.deepEqual(opened.recovery, { kind: 'recovered', adopted: true, epoch: 4 })
  // The claim is the last word with the KMS.
  t.true(operations.lastIndexOf('store-put') < operations.lastIndexOf('kms-exchange'))
  t.truthy(await world.a.get(name))
  t.is(await readText(opened, 'password/a'), 'adopted')
})

test('what was adopted but cannot be made durable is not claimed: the ledger stays where it was', async (t) => {
  const world = await startWorld()
  let isDead = false
  const dying = await world.launch({
    interrupt: ({ at, operation }) => {
      if (isDead && operation === 'kms-exchange' && at === 'before') throw new KeyriseError('ERR_KMS_UNREACHABLE')
    },
  })
  isDead = true
  await t.throwsAsync(dying.flow.checkpoint({ 'password/a': text('adopted') }))
  const full = failing('store-put', 'before', 'ERR_STORE_FULL')
  full.state.active = true
  await t.throwsAsync(world.launch({ interrupt: full.interrupt }), { code: 'ERR_STORE_FULL' })
  // Had it been claimed, this loss would be named.
  for (const name of await world.store.names('epoch-0000000002')) await world.store.delete(name)
  t.like(await world.launch(), { recovery: { adopted: false, epoch: 1 } })
})

test('a bulk read takes the other copy of a payload that is missing or damaged in one', async (t) => {
  for (const how of [() => undefined, (bytes: Bytes) => bytes.map((byte) => byte ^ 1)]) {
    const world = await mirroredWorld()
    for (const name of await world.a.names('.payload')) if (name.includes('direct-')) await harm(world.a, name, how)
    const opened = await world.launch()
    const items: string[] = []
    for await (const item of opened.flow.readBulk(['session/peer', 'session/other']))
      items.push('bytes' in item ? new TextDecoder().decode(item.bytes) : item.error.code)
    t.deepEqual(items, ['peer', 'other'])
  }
})

test('a host hears what its enclave found in the store, and nothing of the entries', async (t) => {
  const [a, b] = [new MemoryStore(), new MemoryStore()]
  const events: EnclaveEvent[] = []
  await using handle = await launchInProcess(notebook, {
    store: new MirrorStore([a, b]),
    ocalls: { pause: () => undefined },
    onEvent: (event) => events.push(event),
  })
  await handle.ecalls.write({ page: 'one', bytes: text('1') })
  await handle.ecalls.write({ page: 'two', bytes: text('2') })
  await handle.crash()
  const [second = ''] = (await a.list('')).filter((name) => name.includes('epoch-0000000002'))
  await a.delete(second)
  t.deepEqual(await handle.ecalls.read('one'), text('1'))
  t.truthy(await a.get(second))
  const found = events.find(({ type }) => type === 'found')
  t.like(found, { object: 'epoch-0000000002-0000000001-000001', status: 'repaired' })
})
