import test from 'ava'
import { equalPublicBytes } from '../../protocol/bytes.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import type { EntryName } from '../../protocol/names.js'
import type { Random } from '../../protocol/ports.js'
import { OTHER_IMAGE } from '../kms/in-process.js'
import { FLOW, HostStore, readAll, readText, startWorld, text, type Interrupt } from './flow-world.js'

test('what a checkpoint acknowledged is there after a relaunch, bit for bit', async (t) => {
  const world = await startWorld()
  const first = await world.launch()
  t.deepEqual(first.recovery, { kind: 'fresh', adopted: false, epoch: 1 })
  t.is(first.flow.epoch, 1)
  t.is(
    await first.flow.checkpoint({
      'password/db': text('hunter2'),
      'session/peer': { to: 'kms', bytes: text('resume') },
      'session/other': { to: 'kms', bytes: text('other') },
    }),
    2,
  )
  t.is(await first.flow.checkpoint({ 'password/db': text('hunter3'), 'final-result/model': new Uint8Array(0) }), 3)
  const before = await readAll(first)
  t.deepEqual(before, {
    'final-result/model': '',
    'password/db': 'hunter3',
    'session/other': 'other',
    'session/peer': 'resume',
  })

  const second = await world.launch()
  t.deepEqual(second.recovery, { kind: 'recovered', adopted: false, epoch: 3 })
  t.deepEqual(await readAll(second), before)
  t.deepEqual(second.flow.list(), first.flow.list())
  t.deepEqual(second.flow.list()[3], { name: 'session/peer', kind: 'session', epoch: 2, sizeBytes: 6 })
  t.is(await readText(second, 'password/other'), undefined)
})

test('a large entry, of many chunks, survives sealed either way', async (t) => {
  const world = await startWorld()
  const large = new Uint8Array(300_000).map((_, index) => index % 251)
  await (
    await world.launch()
  ).flow.checkpoint({ 'processed-data/a': large, 'processed-data/b': { to: 'kms', bytes: large } })
  const { flow } = await world.launch()
  t.true(equalPublicBytes((await flow.read('processed-data/a')) ?? text(''), large))
  t.true(equalPublicBytes((await flow.read('processed-data/b')) ?? text(''), large))
})

test('values are copied in and out', async (t) => {
  const { flow } = await (await startWorld()).launch()
  const value = text('kept')
  const committed = flow.checkpoint({ 'password/a': value, 'password/b': { to: 'kms', bytes: value } })
  value.fill(0)
  await committed
  for (const name of ['password/a', 'password/b'] as const) {
    const read = await flow.read(name)
    t.deepEqual(read, text('kept'))
    t.is(read?.buffer.byteLength, 4)
    read?.fill(1)
    t.deepEqual(await flow.read(name), text('kept'))
  }
})

test('concurrent checkpoints commit one after the other', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  const epochs = await Promise.all(
    [1, 2, 3, 4].map((n) => flow.checkpoint({ [`session/${n}`]: text(String(n)), 'session/last': text(String(n)) })),
  )
  t.deepEqual(epochs, [2, 3, 4, 5])
  t.deepEqual(await readAll(await world.launch()), {
    'session/1': '1',
    'session/2': '2',
    'session/3': '3',
    'session/4': '4',
    'session/last': '4',
  })
})

test('delete removes entries as an epoch of its own, and names what is not there', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a'), 'password/b': text('b') })
  await t.throwsAsync(flow.delete(['password/a', 'password/c']), { code: 'ERR_ENTRY_MISSING' })
  t.is(await flow.delete(['password/a']), 3)
  t.is(await flow.read('password/a'), undefined)
  t.deepEqual(await readAll(await world.launch()), { 'password/b': 'b' })
})

/** All that a flow that was only born has stored. */
const ROOT = ['flow-1/root-0000000001.header-0000000001', 'flow-1/root-0000000001.payload']

test('a name that is none is refused before anything is written', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  for (const name of ['password', '../x', 'password/../x', 'secret/x', `password/${'x'.repeat(4096)}`, 'password/\0']) {
    await t.throwsAsync(flow.checkpoint({ [name]: text('x') }), { code: 'ERR_NAME_INVALID' }, name)
    await t.throwsAsync(flow.read(name as EntryName), { code: 'ERR_NAME_INVALID' }, name)
  }
  t.deepEqual(await world.store.list(''), ROOT)
  t.is(flow.epoch, 1)
})

test('an empty checkpoint writes nothing and returns the epoch', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  t.is(await flow.checkpoint({}), 1)
  t.deepEqual(await world.store.list(''), ROOT)
})

test('files that no entry needs any more are collected, eight at once, the rest stays', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/long-lived': text('stays'), 'password/a': text('0') })
  let most = 0
  for (let round = 1; round <= 20; round++) {
    await flow.checkpoint({
      'password/a': text(String(round)),
      'session/kms': { to: 'kms', bytes: text(String(round)) },
    })
    // Epoch 2 for the long-lived entry, the head, and what waits.
    most = Math.max(most, (await world.store.names('epoch')).length + (await world.store.pairs('direct')).length)
  }
  t.deepEqual(await world.store.names('root'), ROOT)
  // Three are needed; seven may wait, and one checkpoint adds two.
  t.true(most > 6 && most <= 12, String(most))
  const { flow: next } = await world.launch()
  await next.checkpoint({ 'password/a': text('21') })
  t.is((await world.store.pairs('direct')).length, 1)
  t.deepEqual(await readAll(await world.launch()), {
    'password/a': '21',
    'password/long-lived': 'stays',
    'session/kms': '20',
  })
})

test('files that are large do not wait until there are eight of them', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  for (let round = 1; round <= 4; round++)
    await flow.checkpoint({ 'password/a': new Uint8Array(2 * 1024 * 1024).fill(round) })
  // The head, and what the last commit dropped.
  t.true((await world.store.names('epoch')).length <= 3)
})

test('a read that a checkpoint overtakes gives the newer value, not a loss', async (t) => {
  const world = await startWorld()
  await (await world.launch()).flow.checkpoint({ 'password/a': text('1'), 'password/b': text('b') })
  await (await world.launch()).flow.checkpoint({ 'password/b': text('b2') })
  const overtaking: { run?: () => Promise<void> } = {}
  const { flow } = await world.launch({
    interrupt: async ({ at, operation }) => {
      const { run } = overtaking
      if (run === undefined || operation !== 'store-get' || at !== 'before') return
      delete overtaking.run
      await run()
    },
  })
  overtaking.run = async () => {
    await flow.checkpoint({ 'password/a': text('2') })
    // Collects the file that held the first value.
    await flow.checkpoint({ 'password/b': text('b3') })
  }
  t.deepEqual(await flow.read('password/a'), text('2'))
  t.false('run' in overtaking)
})

test('what could be stored but not be recovered or published is refused by size', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  const bytes = new Uint8Array(64 * 1024 * 1024)
  await t.throwsAsync(flow.checkpoint({ 'processed-data/a': { to: 'kms', bytes } }), { code: 'ERR_SIZE_LIMIT' })
  await t.throwsAsync(flow.publish({ key: new Uint8Array(1025) }), { code: 'ERR_SIZE_LIMIT' })
  const values = Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`key-${n}`, text('v')]))
  await t.throwsAsync(flow.publish(values), { code: 'ERR_SIZE_LIMIT' })
  t.deepEqual(await world.store.names('direct'), [])
})

test('one durable publish and one exchange with the KMS carry a checkpoint of any number of entries', async (t) => {
  const world = await startWorld()
  const operations: string[] = []
  const interrupt: Interrupt = ({ at, operation }) => {
    if (at === 'before') operations.push(operation)
  }
  const { flow } = await world.launch({ interrupt })
  operations.length = 0
  await flow.checkpoint(Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`password/${n}`, text(String(n))])))
  t.deepEqual(operations, ['store-put', 'kms-exchange'])
})

test('a recovery takes one asymmetric unwrap, and one more request unwraps all that was sealed straight to the KMS', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  for (let round = 1; round <= 3; round++) {
    await flow.checkpoint({
      [`intermediate-result/${round}`]: { to: 'kms' as const, bytes: text(`c${round}`) },
      [`password/${round}`]: text('p'),
    })
  }
  world.kms.events.length = 0
  const recovered = await world.launch()
  await Promise.all(recovered.flow.list().map(({ name }) => recovered.flow.read(name)))
  await readAll(recovered)
  const asked = world.kms.events.map(({ event }) => event)
  t.deepEqual(asked, ['handshake', 'open', 'unwrap', 'claim', 'unwrap'])
})

test('M13: the KMS reads headers in a registered store, and the host relays what is not there', async (t) => {
  const registered = new HostStore()
  const world = await startWorld({}, new Map([['party', registered]]))
  const first = await world.launch()
  await first.flow.checkpoint({ 'final-result/1': { to: 'kms', bytes: text('a') } })
  await first.flow.checkpoint({ 'final-result/2': { to: 'kms', bytes: text('b') } })
  const mirrored = await world.store.objects()
  const recover = async (kmsStore?: string) => {
    world.kms.events.length = 0
    const recovered = await world.launch({ ...(kmsStore === undefined ? {} : { kmsStore }) })
    const entries = await readAll(recovered)
    recovered.wipe()
    return {
      entries,
      asked: world.kms.events.flatMap(({ event, code }) => (event.startsWith('unwrap') ? [event] : (code ?? []))),
    }
  }
  const relayed = await recover()
  t.deepEqual(relayed, { entries: { 'final-result/1': 'a', 'final-result/2': 'b' }, asked: ['unwrap', 'unwrap'] })
  const lacking = ['unwrap-stored', 'unwrap']
  t.deepEqual(await recover('party'), { ...relayed, asked: [...lacking, ...lacking] })
  t.deepEqual(await recover('gone'), {
    ...relayed,
    asked: ['ERR_STORE_UNKNOWN', 'unwrap', 'ERR_STORE_UNKNOWN', 'unwrap'],
  })
  await registered.restore(mirrored)
  t.deepEqual(await recover('party'), { ...relayed, asked: ['unwrap-stored', 'unwrap-stored'] })
  const [one] = await registered.pairs('direct-')
  for (const name of await registered.names(`${one}.`)) await registered.delete(name)
  t.deepEqual(await recover('party'), { ...relayed, asked: ['unwrap-stored', ...lacking] })
})

test('seal and open: under one step only, of one flow only, for ever', async (t) => {
  const world = await startWorld()
  const first = await world.launch()
  const envelope = first.flow.seal('training/inputs', text('rows'))
  const { flow } = await world.launch()
  t.deepEqual(flow.open('training/inputs', envelope), text('rows'))
  t.throws(() => flow.open('training/outputs', envelope))
  t.throws(() =>
    flow.open(
      'training/inputs',
      envelope.map((byte, index) => (index === envelope.length - 1 ? byte ^ 1 : byte)),
    ),
  )
  t.throws(() => flow.seal('../x', text('')), { code: 'ERR_NAME_INVALID' })
  const other = await world.launch({ flow: 'flow-2' })
  t.throws(() => other.flow.open('training/inputs', envelope))
})

test('an author’s step cannot open what the runtime sealed', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a') })
  const [name] = await world.store.names('epoch')
  const epochFile = await world.store.get(name ?? '')
  t.throws(() => flow.open('epoch/2', epochFile ?? text('')), { code: 'ERR_IDENTITY_MISMATCH' })
})

test('signing and agreement keys are the flow’s, in every incarnation', async (t) => {
  const world = await startWorld()
  const a = await world.launch({ flow: 'a' })
  const b = await world.launch({ flow: 'b', image: OTHER_IMAGE })
  await a.flow.publish({ agreement: a.flow.agreementKey })
  await b.flow.publish({ agreement: b.flow.agreementKey, 'public-key': text('he') })
  const again = await world.launch({ flow: 'a' })

  const roster = await again.flow.roster()
  t.deepEqual(
    roster.map(({ flow, image }) => [flow, image]),
    [
      ['a', 'party'],
      ['b', 'decryptor'],
    ],
  )
  const [memberA, memberB] = roster
  t.deepEqual(memberB?.published['public-key'], text('he'))
  t.true(verifyEd25519(memberA?.signingKey ?? text(''), text('m'), again.flow.sign(text('m'))))
  t.deepEqual(again.flow.sign(text('m')), a.flow.sign(text('m')))
  const agreed = again.flow.agree(memberB?.published['agreement'] ?? text(''), 'masks')
  t.deepEqual(agreed, b.flow.agree(memberA?.published['agreement'] ?? text(''), 'masks'))
  t.is(agreed.length, 32)
  t.notDeepEqual(agreed, b.flow.agree(a.flow.agreementKey, 'other'))
  t.throws(() => b.flow.agree(new Uint8Array(32), 'masks'))
})

test('a destroyed flow opens nothing any more, even with its files put back', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a') })
  const files = await world.store.objects()
  await flow.destroy()
  t.deepEqual(await world.store.list(''), [])
  await t.throwsAsync(flow.read('password/a'), { code: 'ERR_FLOW_DESTROYED' })
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('b') }), { code: 'ERR_FLOW_DESTROYED' })
  await world.store.restore(files)
  await t.throwsAsync(world.launch(), { code: 'ERR_FLOW_DESTROYED' })
})

test('after wipe every call is refused', async (t) => {
  const opened = await (await startWorld()).launch()
  const { flow } = opened
  await flow.checkpoint({ 'password/a': text('a') })
  opened.wipe()
  opened.wipe()
  await t.throwsAsync(flow.read('password/a'), { code: 'ERR_ENCLAVE_CLOSED' })
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('b') }), { code: 'ERR_ENCLAVE_CLOSED' })
  await t.throwsAsync(flow.roster(), { code: 'ERR_ENCLAVE_CLOSED' })
  t.throws(() => flow.sign(text('m')), { code: 'ERR_ENCLAVE_CLOSED' })
  t.throws(() => flow.seal('s', text('m')), { code: 'ERR_ENCLAVE_CLOSED' })
  t.throws(() => flow.list(), { code: 'ERR_ENCLAVE_CLOSED' })
})

test('wipe zero-fills the root key, and so does a birth that fails', async (t) => {
  for (const fails of [false, true]) {
    const filled: Uint8Array[] = []
    const random: Random = { fill: (bytes) => (filled.push(bytes), nodeRandom.fill(bytes)) }
    const interrupt: Interrupt = ({ operation }) => {
      if (fails && operation === 'store-put') throw new Error('dead')
    }
    const launched = (await startWorld()).launch({ random, interrupt })
    const opened = fails ? undefined : await launched
    if (fails) await t.throwsAsync(launched)
    const [root] = filled
    t.is(root?.length, 32)
    t.is(
      root?.every((byte) => byte === 0),
      fails,
    )
    opened?.wipe()
    t.true(root?.every((byte) => byte === 0))
  }
})

test('no value, name or key stands in the clear in the store or on the way to the KMS', async (t) => {
  const world = await startWorld()
  const frames: Uint8Array[] = []
  const kms = { exchange: async (frame: Uint8Array) => (frames.push(frame), world.kms.service.exchange(frame)) }
  const { flow } = await world.launch({ kms })
  await flow.checkpoint({
    'password/unique-name': text('a unique value'),
    'password/direct': { to: 'kms', bytes: text('a unique value') },
  })
  const seen = [...frames, ...(await world.store.objects()).values()].map((bytes) =>
    Buffer.from(bytes).toString('latin1'),
  )
  t.true(seen.some((bytes) => bytes.includes('keyrise/sub-key')))
  t.false(seen.some((bytes) => bytes.includes('a unique value') || bytes.includes('unique-name')))
  t.true((await world.store.list('')).every((name) => name.startsWith(`${FLOW}/`)))
})
