import test from 'ava'
import { parseHeader } from '../../protocol/age-header.js'
import type { Bytes } from '../../protocol/bytes.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Recipient } from '../../protocol/crypto/recipients.js'
import { parseFlowId } from '../../protocol/names.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from '../kms/in-process.js'
import { failing, readAll, readText, startWorld, text, type Interrupt, type World } from './flow-world.js'
import { copyOfLedger, restartedWith } from './ledger-world.js'

/** A flow at epoch 4, with its store's contents at each epoch. */
const worldAtEpoch4 = async () => {
  const world = await startWorld()
  const { flow } = await world.launch()
  const copies = [new Map<string, Bytes>(), await world.store.objects()]
  for (let epoch = 2; epoch <= 4; epoch++) {
    await flow.checkpoint({ 'password/a': text(`epoch ${epoch}`), [`session/${epoch}`]: text(`kept since ${epoch}`) })
    copies.push(await world.store.objects())
  }
  const at = (epoch: number): Map<string, Bytes> => copies[epoch] ?? new Map<string, Bytes>()
  return { ...world, flow, at, head: await nameOf(world, 4) }
}
const STATE = {
  'password/a': 'epoch 4',
  'session/2': 'kept since 2',
  'session/3': 'kept since 3',
  'session/4': 'kept since 4',
}

const nameOf = async ({ store }: World, epoch: number): Promise<string> => {
  const [name] = await store.names(`epoch-${String(epoch).padStart(10, '0')}`)
  if (name === undefined) throw new Error(`no file of epoch ${epoch}`)
  return name
}

/** What refuses leaves everything as it was: with the right files back, the flow recovers. */
const recoversWith = async (world: World, files: ReadonlyMap<string, Bytes>): Promise<boolean> => {
  await world.store.restore(files)
  return JSON.stringify(await readAll(await world.launch())) === JSON.stringify(STATE)
}

test('case 10: a store rolled back as a whole is ERR_ROLLBACK, naming both epochs', async (t) => {
  const world = await worldAtEpoch4()
  for (const epoch of [1, 2, 3]) {
    await world.store.restore(world.at(epoch))
    await t.throwsAsync(world.launch(), {
      code: 'ERR_ROLLBACK',
      message: new RegExp(`newest epoch is ${epoch}, the ledger’s 4`),
    })
  }
  t.true(await recoversWith(world, world.at(4)))
})

test('case 9: an older file of the same flow under the newest one’s name is ERR_ROLLBACK', async (t) => {
  const world = await worldAtEpoch4()
  const older = await world.store.get(await nameOf(world, 3))
  await world.store.replace(world.head, older ?? text(''))
  await t.throwsAsync(world.launch(), { code: 'ERR_ROLLBACK', message: /newest epoch is 3, the ledger’s 4/ })
  t.true(await recoversWith(world, world.at(4)))
})

test('an honest head + 1 under another epoch’s name is not adopted, and moves no epoch', async (t) => {
  const world = await worldAtEpoch4()
  const cut = failing('kms-exchange', 'before', 'ERR_KMS_UNREACHABLE')
  const { flow } = await world.launch({ interrupt: cut.interrupt })
  cut.state.active = true
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('epoch 5') }), { code: 'ERR_KMS_UNREACHABLE' })
  const fifth = await nameOf(world, 5)
  const bytes = (await world.store.get(fifth)) ?? text('')
  await world.store.delete(fifth)
  await world.store.put(fifth.replace('epoch-0000000005', 'epoch-0000000009'), bytes)
  const recovered = await world.launch()
  t.is(recovered.flow.epoch, 4)
  t.deepEqual(await readAll(recovered), STATE)
})

test('case 14: an empty store under a ledger that knows better is ERR_STATE_LOST, never a fresh start', async (t) => {
  const world = await worldAtEpoch4()
  await world.store.restore(new Map())
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  t.deepEqual(await world.store.list(''), [])
  t.true(await recoversWith(world, world.at(4)))
})

test('case 14: the same when the flow was only born', async (t) => {
  const world = await startWorld()
  await world.launch()
  await world.store.restore(new Map())
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  t.deepEqual(await world.store.list(''), [])
})

test('case 17: a root key missing or damaged beside existing ciphertext is ERR_STATE_LOST, never made anew', async (t) => {
  const world = await worldAtEpoch4()
  const [root = ''] = await world.store.pairs('root')
  const envelope = await world.store.envelope(root)
  for (const half of await world.store.names('root')) {
    await world.store.restore(world.at(4))
    await world.store.delete(half)
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST', message: /root key/ }, half)
    t.is((await world.store.names('root')).length, 1)
  }
  for (const at of [0, 30, 120, envelope.length - 40, envelope.length - 1]) {
    await world.store.replacePair(
      root,
      envelope.map((byte, index) => (index === at ? byte ^ 1 : byte)),
      parseHeader(envelope).sizeBytes,
    )
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' }, `byte ${at}`)
  }
  t.true(await recoversWith(world, world.at(4)))
})

test('cases 1, 2, 3, 15: a newest file truncated, flipped, extended, empty or zeroed is refused and serves nothing', async (t) => {
  const world = await worldAtEpoch4()
  const file = (await world.store.get(world.head)) ?? text('')
  const step = Math.ceil(file.length / 40)
  const damaged = [new Uint8Array(0), new Uint8Array(file.length), Uint8Array.from([...file, 0])]
  for (let at = 0; at < file.length; at += step)
    damaged.push(
      file.subarray(0, at),
      file.map((byte, index) => (index === at ? byte ^ 0x10 : byte)),
    )
  for (const bytes of damaged) {
    await world.store.replace(world.head, bytes)
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  }
  t.true(await recoversWith(world, world.at(4)))
})

test('cases 7, 8: another flow’s files in the place of one’s own are refused', async (t) => {
  const world = await worldAtEpoch4()
  const other = await world.launch({ flow: 'flow-2', image: OTHER_IMAGE })
  for (let epoch = 2; epoch <= 4; epoch++) await other.flow.checkpoint({ 'password/a': text('theirs') })
  const files = await world.store.objects()
  const swapped = [...files].map(
    ([name, bytes]) => [name, files.get(name.replace('flow-1', 'flow-2')) ?? bytes] as const,
  )
  await world.store.restore(new Map(swapped))
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  t.true(await recoversWith(world, files))
})

test('case 7: an entry’s older file swapped, damaged or gone is named when it is read, and harms no other entry', async (t) => {
  const world = await worldAtEpoch4()
  const [second, third] = [await nameOf(world, 2), await nameOf(world, 3)]
  const [secondBytes = text(''), thirdBytes = text('')] = [await world.store.get(second), await world.store.get(third)]
  await world.store.replace(second, thirdBytes)
  await world.store.replace(third, secondBytes)
  const { flow } = await world.launch()
  await t.throwsAsync(flow.read('session/2'), { code: 'ERR_DIGEST_MISMATCH' })
  await t.throwsAsync(flow.read('session/3'), { code: 'ERR_DIGEST_MISMATCH' })
  t.deepEqual(await flow.read('session/4'), text('kept since 4'))
  await world.store.delete(second)
  await t.throwsAsync(flow.read('session/2'), { code: 'ERR_STATE_LOST' })
  const flipped = (at: number): Uint8Array => thirdBytes.map((byte, index) => (index === at ? byte ^ 1 : byte))
  await world.store.replace(third, flipped(thirdBytes.length - 1))
  await t.throwsAsync(flow.read('session/3'), { code: 'ERR_DIGEST_MISMATCH' })
  // The digest does not cover the rest of the header, so that it can be rewrapped: the header's own MAC does.
  await world.store.replace(third, flipped(thirdBytes.indexOf(45, 22) + 30))
  await t.throwsAsync(flow.read('session/3'))
  // The files come back, the running instance needs nothing else.
  await world.store.replace(second, secondBytes)
  await world.store.replace(third, thirdBytes)
  t.deepEqual(await flow.read('session/2'), text('kept since 2'))
  t.deepEqual(await flow.read('session/3'), text('kept since 3'))
})

test('of entries sealed straight to the KMS, those that are lost are named and the others open', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  for (const name of ['a', 'b', 'c'])
    await flow.checkpoint({ [`processed-data/${name}`]: { to: 'kms' as const, bytes: text(name) } })
  const [a = '', b = '', c = ''] = await world.store.pairs('direct')
  const files = await world.store.objects()
  const whole = await world.store.envelope(c)
  await world.store.replacePair(a, await world.store.envelope(b))
  for (const half of await world.store.names(b)) await world.store.delete(half)
  const recovered = await world.launch()
  await t.throwsAsync(recovered.flow.read('processed-data/a'), { code: 'ERR_DIGEST_MISMATCH' })
  await t.throwsAsync(recovered.flow.read('processed-data/b'), { code: 'ERR_STATE_LOST' })
  t.is(await readText(recovered, 'processed-data/c'), 'c')
  // Damage that the digest does not cover is the KMS's to find.
  await world.store.replacePair(
    c,
    whole.map((byte, index) => (index === 60 ? byte ^ 1 : byte)),
  )
  await t.throwsAsync((await world.launch()).flow.read('processed-data/c'), { code: 'ERR_ENVELOPE_INVALID' })
  await world.store.restore(files)
  t.is(await readText(recovered, 'processed-data/a'), 'a')
  t.is(await readText(recovered, 'processed-data/b'), 'b')
})

test('case 6: what a host seals to the right recipient is nobody’s state', async (t) => {
  const world = await startWorld()
  const [{ certificate }] = world.kms.keyring.rootKeys as unknown as [{ certificate: { encryptionKey: Bytes } }]
  const forged = sealEnvelope(text('a root key, 32 bytes: the host’s'), {
    recipients: [x25519Recipient(certificate.encryptionKey)],
    context: {
      flow: parseFlowId('flow-1'),
      task: parseFlowId('task-1'),
      kind: 'root',
      name: 'root',
      epoch: 1,
      incarnation: 1,
      image: IMAGE,
    },
    random: nodeRandom,
  })
  // An instance claims and dies before its root is written; the host writes one in its place.
  await t.throwsAsync(
    world.launch({
      interrupt: ({ operation }) => {
        if (operation === 'store-put') throw new Error('dead')
      },
    }),
  )
  await world.store.replacePair('flow-1/root-0000000001', forged)
  const opened = await world.launch()
  t.deepEqual(opened.recovery, { kind: 'fresh', adopted: false, epoch: 1 })
  await opened.flow.checkpoint({ 'password/a': text('a') })
  t.is(await readText(await world.launch(), 'password/a'), 'a')
  t.deepEqual(await world.store.pairs('root'), ['flow-1/root-0000000002'])
})

test('an entry sealed straight to the KMS, which a host may know, is not taken for a root key', async (t) => {
  const world = await startWorld()
  const dead: Interrupt = ({ operation }) => {
    if (operation === 'store-put') throw new Error('dead')
  }
  await t.throwsAsync(world.launch({ interrupt: dead }))
  // A ledger that goes back to where a birth was under way, so that a root of incarnation 1 would be adopted.
  const old = await restartedWith(world, await copyOfLedger(world))
  const { flow } = await world.launch()
  await flow.checkpoint({ 'processed-data/public': { to: 'kms', bytes: text('32 bytes that the host has seen.') } })
  const [direct = ''] = await world.store.pairs('direct')
  const envelope = await world.store.envelope(direct)
  await world.store.restore(new Map())
  await world.store.replacePair('flow-1/root-0000000001', envelope)
  const opened = await world.launch({ kms: old.service })
  t.deepEqual(opened.recovery, { kind: 'fresh', adopted: false, epoch: 1 })
})

test('a copy of the newest file, or garbage, under the next epoch’s name is not taken for a checkpoint', async (t) => {
  const world = await worldAtEpoch4()
  const head = (await world.store.get(world.head)) ?? text('')
  await world.store.put('flow-1/epoch-0000000005-0000000001-000009.age', head)
  await world.store.put('flow-1/epoch-0000000006-0000000001-000009.age', text('garbage'))
  await world.store.put('flow-1/notes.txt', text('not ours'))
  const opened = await world.launch()
  t.deepEqual(opened.recovery, { kind: 'recovered', adopted: false, epoch: 4 })
  t.deepEqual(await readAll(opened), STATE)
  await opened.flow.checkpoint({ 'password/a': text('5') })
  t.is(await readText(await world.launch(), 'password/a'), '5')
  t.truthy(await world.store.get('flow-1/notes.txt'))
})

/**
 * One flow under two ledgers: from epoch 2 each has an instance of incarnation 2 that goes on, so that their files have the
 * same names.
 */
const forkedWorld = async (epochsThere: readonly number[], epochsHere: readonly number[]) => {
  const world = await startWorld()
  await (await world.launch()).flow.checkpoint({ 'password/a': text('2') })
  const other = await restartedWith(world, await copyOfLedger(world))
  const common = await world.store.objects()
  const goOn = async (kms: typeof other, where: string, epochs: readonly number[]): Promise<Map<string, Bytes>> => {
    await world.store.restore(common)
    const { flow } = await world.launch({ kms: kms.service })
    for (const epoch of epochs) await flow.checkpoint({ 'password/a': text(`${epoch}, ${where}`) })
    return world.store.objects()
  }
  const there = await goOn(other, 'there', epochsThere)
  const here = await goOn(world.kms, 'here', epochsHere)
  return { world, other, there, here }
}

test('the same epochs of a fork, in the place of one’s own and under their names, are ERR_FORK', async (t) => {
  const { world, other, there, here } = await forkedWorld([3, 4], [3, 4])
  t.deepEqual([...there.keys()], [...here.keys()])
  await world.store.restore(there)
  await t.throwsAsync(world.launch(), { code: 'ERR_FORK', message: /another epoch 4/ })
  t.is(await readText(await world.launch({ kms: other.service }), 'password/a'), '4, there')
  await world.store.restore(here)
  t.is(await readText(await world.launch(), 'password/a'), '4, here')
})

test('an epoch of a fork that would come next, but has another parent, shows that the ledger acknowledged two', async (t) => {
  const { world, other, there, here } = await forkedWorld([3], [3, 4])
  const fourth = [...here].filter(([name]) => name.includes('epoch-0000000004'))
  t.is(fourth.length, 1)
  await world.store.restore(new Map([...there, ...fourth]))
  await t.throwsAsync(world.launch({ kms: other.service }), {
    code: 'ERR_LEDGER_ROLLED_BACK',
    message: /acknowledged epoch 3, incarnation 2 and has another epoch 3/,
  })
  await world.store.restore(there)
  t.is(await readText(await world.launch({ kms: other.service }), 'password/a'), '3, there')
})

test('no other image, task or KMS gets anything', async (t) => {
  const world = await worldAtEpoch4()
  await t.throwsAsync(world.launch({ image: OTHER_IMAGE }), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(world.launch({ image: text('x'.repeat(32)) }), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(world.launch({ task: 'task-2' }), { code: 'ERR_POLICY_DENIED' })
  const impostor = await startInProcess({ platform: world.kms.platform })
  await t.throwsAsync(world.launch({ kms: impostor.service }), { code: 'ERR_KMS_UNTRUSTED' })
  t.deepEqual(await readAll(await world.launch()), STATE)
})
