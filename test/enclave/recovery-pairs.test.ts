import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { aroundStore, MemoryFileSystem } from '../../faults/index.js'
import { Keyring } from '../../kms/keyring.js'
import { rewrapPairs, type RewrappedPair } from '../../kms/rewrap.js'
import type { Bytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity } from '../../protocol/crypto/recipients.js'
import { openEnvelope } from '../../protocol/crypto/envelope.js'
import { Secret } from '../../protocol/crypto/secret.js'
import type { Store } from '../../protocol/ports.js'
import { getHeaders, headerName, pairsAmong, payloadName } from '../../protocol/sealed-pair.js'
import { publish, readWhole } from '../../storage/index.js'
import { startInProcess } from '../kms/in-process.js'
import { readAll, readText, startWorld, text, type World } from './flow-world.js'

/** What is stored as header and payload: generations of headers, halves, headers of others; and a rotation around a live flow. */

const STATE = { 'password/a': 'a', 'processed-data/one': 'one', 'processed-data/two': 'two' }

/** A flow with two entries that are pairs, beside its root. */
const worldWithPairs = async () => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a'), 'processed-data/one': { to: 'kms', bytes: text('one') } })
  await flow.checkpoint({ 'processed-data/two': { to: 'kms', bytes: text('two') } })
  const [root = ''] = await world.store.pairs('root')
  const [one = '', two = ''] = await world.store.pairs('direct')
  const header = async (pair: string): Promise<Bytes> => (await getHeaders(world.store, pair)).at(-1)?.bytes ?? text('')
  return { ...world, root, one, two, header }
}

const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.map((byte, index) => (index === at ? byte ^ 1 : byte))

test('with the newest header damaged anywhere, or cut, the older one serves; and the newest where the older is damaged', async (t) => {
  const world = await worldWithPairs()
  for (const pair of [world.root, world.one]) {
    const whole = await world.header(pair)
    const size = whole.length
    // Version, share, file key, context, tag, MAC; cut; extended; nothing.
    const places = [5, 40, 100, Math.floor(size / 2), size - 60, size - 10]
    const damaged = [
      ...places.map((at) => flipped(whole, at)),
      whole.subarray(0, size - 5),
      Uint8Array.from([...whole, 0]),
      new Uint8Array(0),
    ]
    for (const [index, bytes] of damaged.entries()) {
      for (const [older, newer] of [
        [whole, bytes],
        [bytes, whole],
      ] as const) {
        await world.store.replace(headerName(pair, 1), older)
        await world.store.replace(headerName(pair, 2), newer)
        t.deepEqual(await readAll(await world.launch()), STATE, `${pair} ${String(index)}`)
      }
    }
    await world.store.replace(headerName(pair, 1), whole)
    await world.store.delete(headerName(pair, 2))
  }
})

test('a half that is missing is a loss that is named, of that entry alone', async (t) => {
  const world = await worldWithPairs()
  const files = await world.store.objects()
  for (const half of await world.store.names(world.one)) {
    await world.store.restore(files)
    await world.store.delete(half)
    const opened = await world.launch()
    const name = world.one.slice(world.one.indexOf('/') + 1)
    await t.throwsAsync(opened.flow.read('processed-data/one'), { code: 'ERR_STATE_LOST', message: new RegExp(name) })
    t.is(await readText(opened, 'processed-data/two'), 'two')
  }
  for (const half of await world.store.names(world.root)) {
    await world.store.restore(files)
    await world.store.delete(half)
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST', message: /root key/ })
  }
})

test('a header of another object is refused in its place, and passed over above the right one', async (t) => {
  const world = await worldWithPairs()
  const [one, two, root] = [
    await world.header(world.one),
    await world.header(world.two),
    await world.header(world.root),
  ]
  await world.store.replace(headerName(world.one, 1), two)
  const { flow } = await world.launch()
  await t.throwsAsync(flow.read('processed-data/one'), { code: 'ERR_DIGEST_MISMATCH' })
  await world.store.replace(headerName(world.one, 1), one)
  await world.store.put(headerName(world.one, 2), two)
  t.is(await readText(await world.launch(), 'processed-data/one'), 'one')
  await world.store.replace(headerName(world.root, 1), one)
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST', message: /root key/ })
  await world.store.replace(headerName(world.root, 1), root)
  await world.store.put(headerName(world.root, 2), one)
  t.deepEqual(await readAll(await world.launch()), STATE)
})

test('a header of an earlier attempt at the same entry, alike but for its file key, hinders nobody', async (t) => {
  const world = await startWorld()
  const state = { on: false }
  let puts = 0
  const { flow } = await world.launch({
    interrupt: ({ at, operation }) => {
      // Two payloads, two headers: the last of them fails, before any epoch file.
      if (state.on && at === 'before' && operation === 'store-put' && ++puts === 4) throw new Error('EIO')
    },
  })
  const change = {
    'processed-data/one': { to: 'kms' as const, bytes: text('one') },
    'processed-data/two': { to: 'kms' as const, bytes: text('two') },
  }
  state.on = true
  await t.throwsAsync(flow.checkpoint(change))
  state.on = false
  const failed = await world.store.pairs('direct')
  const [header] = await getHeaders(world.store, failed[0] ?? '')
  await flow.checkpoint(change)
  const [pair = ''] = (await world.store.pairs('direct')).filter((name) => !failed.includes(name))
  await world.store.put(headerName(pair, 2), header?.bytes ?? text(''))
  t.is(await readText(await world.launch(), 'processed-data/one'), 'one')
})

test('an epoch file waits for the pairs that it lists, however long they take', async (t) => {
  const world = await startWorld()
  const stored: string[] = []
  const slow = aroundStore(world.store, async ({ operation, subject }, work) => {
    if (subject.includes('direct-')) await delay(20)
    const answer = await work()
    if (operation === 'store-put') stored.push(/direct|epoch/.exec(subject)?.[0] ?? 'root')
    return answer
  })
  const { flow } = await world.launch({ store: slow })
  await flow.checkpoint({ 'password/a': text('a'), 'processed-data/one': { to: 'kms', bytes: text('one') } })
  t.deepEqual(stored, ['root', 'root', 'direct', 'direct', 'epoch'])
})

test('halves and generations that no state needs are collected, and none that one needs', async (t) => {
  const world = await worldWithPairs()
  const header = await world.header(world.one)
  await world.store.put(payloadName('flow-1/direct-0000000003-0000000001-000077'), text('no header ever came'))
  await world.store.put(headerName('flow-1/direct-0000000003-0000000001-000078', 4), header)
  await world.store.put(headerName('flow-1/root-0000000009', 1), header)
  await world.store.put(headerName(world.one, 2), header)
  await world.store.put(headerName(world.root, 2), await world.header(world.root))
  let late = async (): Promise<void> => {}
  const { flow } = await world.launch({
    interrupt: async ({ at, operation }) => {
      if (at === 'before' && operation === 'store-delete') await late()
    },
  })
  await flow.checkpoint({ 'password/a': text('a') })
  t.deepEqual(
    [...pairsAmong(await world.store.list(''))],
    [
      [world.one, { hasPayload: true, generations: [2, 1] }],
      [world.two, { hasPayload: true, generations: [1] }],
      [world.root, { hasPayload: true, generations: [2, 1] }],
    ],
  )
  // What is dropped goes with all its generations, also with such as come later.
  await flow.delete(['processed-data/one'])
  await world.store.put(headerName(world.one, 3), header)
  late = async () => {
    late = async () => {}
    await world.store.put(headerName(world.one, 4), header)
  }
  await flow.checkpoint({ 'password/a': text('a') })
  t.deepEqual(await world.store.names(world.one), [])
  t.deepEqual(await readAll(await world.launch()), { 'password/a': 'a', 'processed-data/two': 'two' })
})

/** The KMS after a rotation and a start: the same place, one root key more. */
const rotate = async ({ kms }: World) => {
  const fs = new MemoryFileSystem()
  await fs.makeDirectory('/kms')
  await publish(fs, '/kms', 'ledger.log', (await readWhole(kms.fs, '/kms/ledger.log', 2 ** 20)) ?? text(''))
  using passphrase = Secret.take(text('correct horse'))
  const keyring = Keyring.open(kms.keyring.seal({ passphrase, random: nodeRandom, logN: 10 }), passphrase)
  keyring.rotate(nodeRandom)
  return await startInProcess({ fs, keyring, platform: kms.platform })
}

const rewrap = async (store: Store, keyring: Keyring): Promise<RewrappedPair[]> => {
  const all: RewrappedPair[] = []
  for await (const pair of rewrapPairs({ keyring, store, prefix: '', random: nodeRandom })) all.push(pair)
  return all
}

test('a live flow goes on over a rotation, seals to the newest key from then on, and reads what was rewrapped', async (t) => {
  const world = await worldWithPairs()
  const relay = { kms: world.kms.service }
  const through = { exchange: (frame: Uint8Array) => relay.kms.exchange(frame) }
  const opened = await world.launch({ kms: through })
  const { flow } = opened
  t.is(await readText(opened, 'processed-data/one'), 'one')
  const rotated = await rotate(world)
  relay.kms = rotated.service
  // The first checkpoint seals to the key that the last session named; its commit opens a new session.
  await flow.checkpoint({ 'password/a': text('a') })
  await flow.checkpoint({ 'processed-data/three': { to: 'kms', bytes: text('three') } })
  const newest = rotated.keyring.rootKeys.slice(0, 1).map(({ privateKey }) => x25519Identity(privateKey))
  const [three = ''] = (await world.store.pairs('direct')).slice(-1)
  t.deepEqual(openEnvelope(await world.store.envelope(three), { identities: newest }).plaintext, text('three'))

  t.deepEqual((await rewrap(world.store, rotated.keyring)).map(({ status }) => status).sort(), [
    'current',
    'rewrapped',
    'rewrapped',
    'rewrapped',
  ])
  const state = { ...STATE, 'processed-data/three': 'three' }
  t.deepEqual(await readAll(opened), state)
  t.deepEqual(await readAll(await world.launch({ kms: rotated.service })), state)
  for (const pair of pairsAmong(await world.store.list('')).keys()) {
    const envelope = await world.store.envelope(pair)
    t.notThrows(() => openEnvelope(envelope, { identities: newest }), pair)
  }
})

test('a rewrap beside checkpoints, reads and collection loses nothing, and the next one and a recovery leave no rest', async (t) => {
  const world = await startWorld()
  const names = Array.from({ length: 12 }, (_value, index) => `processed-data/${String(index)}` as const)
  const direct = (round: number) =>
    Object.fromEntries(names.map((name) => [name, { to: 'kms' as const, bytes: text(`${name} ${String(round)}`) }]))
  const old = await world.launch()
  await old.flow.checkpoint(direct(0))
  const rotated = await rotate(world)
  let opened = await world.launch({ kms: rotated.service })
  const state: Record<string, string> = Object.fromEntries(names.map((name) => [name, `${name} 0`]))
  let round = 0
  const act = async (): Promise<void> => {
    const name = names[round % names.length] as (typeof names)[number]
    switch (round++ % 5) {
      case 0:
        await opened.flow.checkpoint({ [name]: { to: 'kms', bytes: text(`${name} ${String(round)}`) } })
        state[name] = `${name} ${String(round)}`
        break
      case 2:
        await opened.flow.checkpoint({ 'password/a': text(String(round)) })
        break
      case 4:
        if (round % 3 === 0) opened = await world.launch({ kms: rotated.service })
        t.is(await readText(opened, name), state[name])
    }
  }
  // At each operation of the rewrap the enclave does something in turn: overwrites an entry, collects, dies, reads.
  let turn = Promise.resolve()
  const store = aroundStore(world.store, async (_call, work) => {
    await (turn = turn.then(act))
    return work()
  })
  const found = await rewrap(store, rotated.keyring)
  t.deepEqual(
    found.filter(({ status }) => status === 'failed'),
    [],
  )
  t.true(found.some(({ status }) => status === 'rewrapped'))
  t.true((await rewrap(world.store, rotated.keyring)).every(({ status }) => status !== 'failed'))
  t.true((await rewrap(world.store, rotated.keyring)).every(({ status }) => status === 'current'))
  const last = await world.launch({ kms: rotated.service })
  const { 'password/a': _, ...values } = await readAll(last)
  t.deepEqual(values, state)
  await last.flow.checkpoint({ 'password/a': text('last') })
  await last.flow.checkpoint({ 'password/a': text('last') })
  const pairs = pairsAmong(await world.store.list(''))
  t.is(pairs.size, 1 + names.length)
  t.true([...pairs.values()].every(({ hasPayload, generations }) => hasPayload && generations.length === 1))
})
