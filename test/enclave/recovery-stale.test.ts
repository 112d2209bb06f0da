import test from 'ava'
import { MemoryFileSystem } from '../../faults/index.js'
import type { startInProcess } from '../kms/in-process.js'
import { parseFlowId } from '../../protocol/names.js'
import type { Bytes } from '../../protocol/bytes.js'
import { atPairsOfMoments, dies, FLOW, readAll, startWorld, text, type World } from './flow-world.js'
import { copyOfLedger, restartedWith } from './ledger-world.js'

/** Disaster recovery: an operator accepts what the store shows (docs/adr/0003-commit-order.md). */

type Kms = Awaited<ReturnType<typeof startInProcess>>
const flow = parseFlowId(FLOW)

const stateOf = async ({ ledger }: Kms) => {
  const state = await ledger.read(flow)
  if (state === undefined) throw new Error('the ledger does not know the flow')
  return state
}

/** What `keyrise kms accept-stale` does. */
const accept = async (kms: Kms): Promise<void> => {
  const state = await stateOf(kms)
  await kms.ledger.compareAndSwap(flow, state, { ...state, staleAccepted: true })
}

/** A flow at epoch 4 whose instances are gone, with its store's contents at each epoch. */
const worldAtEpoch4 = async () => {
  const world = await startWorld()
  const { flow } = await world.launch()
  const copies = [new Map<string, Bytes>(), await world.store.objects()]
  for (let epoch = 2; epoch <= 4; epoch++) {
    await flow.checkpoint({ 'password/a': text(`epoch ${epoch}`), [`session/${epoch}`]: text(`since ${epoch}`) })
    copies.push(await world.store.objects())
  }
  return { ...world, at: (epoch: number) => copies[epoch] ?? new Map<string, Bytes>() }
}
const entriesAt = (epoch: number): Record<string, string> => ({
  'password/a': `epoch ${epoch}`,
  ...Object.fromEntries([2, 3, 4].filter((at) => at <= epoch).map((at) => [`session/${at}`, `since ${at}`])),
})

test('a rolled-back store is taken once accepted, under an epoch that was never acknowledged; a second time it is refused again', async (t) => {
  const world = await worldAtEpoch4()
  await world.store.restore(world.at(2))
  await t.throwsAsync(world.launch(), { code: 'ERR_ROLLBACK' })
  await accept(world.kms)
  const opened = await world.launch()
  t.deepEqual(opened.recovery, { kind: 'stale', adopted: false, epoch: 5 })
  t.deepEqual(await readAll(opened), entriesAt(2))
  t.false((await stateOf(world.kms)).staleAccepted)
  t.is(await opened.flow.checkpoint({ 'password/a': text('6') }), 6)
  const now = await world.store.objects()
  // What was given up comes back beside it, and is nobody's.
  for (const [name, bytes] of world.at(4)) if (!now.has(name)) await world.store.put(name, bytes)
  const next = await world.launch()
  t.deepEqual(next.recovery, { kind: 'recovered', adopted: false, epoch: 6 })
  t.deepEqual(await readAll(next), { ...entriesAt(2), 'password/a': '6' })
  await world.store.restore(world.at(4))
  await t.throwsAsync(world.launch(), { code: 'ERR_ROLLBACK', message: /newest epoch is 4, the ledger’s 6/ })
})

test('a newest epoch that is damaged is given up for the one before, and all epochs for the root alone', async (t) => {
  for (const [kept, entries] of [
    [3, entriesAt(3)],
    [1, {}],
  ] as const) {
    const world = await worldAtEpoch4()
    await world.store.restore(world.at(kept))
    for (const [name, bytes] of world.at(4))
      if (!world.at(kept).has(name)) await world.store.put(name, bytes.subarray(9))
    await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
    await accept(world.kms)
    const opened = await world.launch()
    t.deepEqual(opened.recovery, { kind: 'stale', adopted: false, epoch: 5 })
    t.deepEqual(await readAll(opened), entries)
    t.deepEqual((await world.launch()).recovery, { kind: 'recovered', adopted: false, epoch: 5 })
  }
})

test('without a root key there is nothing to accept; with the right store the acceptance ends unused', async (t) => {
  const world = await worldAtEpoch4()
  await accept(world.kms)
  for (const half of await world.store.names('root')) await world.store.delete(half)
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  await world.store.restore(new Map())
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  t.true((await stateOf(world.kms)).staleAccepted)
  await world.store.restore(world.at(4))
  t.deepEqual((await world.launch()).recovery, { kind: 'recovered', adopted: false, epoch: 4 })
  await world.store.restore(world.at(3))
  await t.throwsAsync(world.launch(), { code: 'ERR_ROLLBACK' })
})

test('a rolled-back ledger takes what the store shows once accepted, and fences what it has forgotten', async (t) => {
  const world = await startWorld()
  let kms = world.kms
  const launch = () => world.launch({ kms: { exchange: (frame) => kms.service.exchange(frame) } })
  const first = await launch()
  await first.flow.checkpoint({ 'password/a': text('2') })
  const old = await restartedWith(world, await copyOfLedger(world))
  const clone = await launch()
  const moved = await launch()
  for (const value of ['3', '4']) await moved.flow.checkpoint({ 'password/a': text(value) })
  // Of this one's claim nothing in the store tells.
  const later = await launch()
  const before = await stateOf(kms)
  kms = old
  await t.throwsAsync(launch(), { code: 'ERR_LEDGER_ROLLED_BACK' })
  await accept(old)
  const opened = await launch()
  t.deepEqual(opened.recovery, { kind: 'stale', adopted: true, epoch: 4 })
  t.deepEqual(await readAll(opened), { 'password/a': '4' })
  const { incarnation, staleAccepted } = await stateOf(old)
  t.false(staleAccepted)
  t.true(incarnation > before.incarnation)
  for (const left of [first, clone, moved, later])
    await t.throwsAsync(left.flow.checkpoint({ 'password/a': text('x') }), { code: 'ERR_FENCED' })
  t.is(await opened.flow.checkpoint({ 'password/a': text('5') }), 5)
  t.deepEqual(await readAll(await launch()), { 'password/a': '5' })
})

test('a lost ledger gets to know the flow by a refused launch, and takes it back once accepted', async (t) => {
  for (const epoch of [1, 4]) {
    const world = await worldAtEpoch4()
    await world.store.restore(world.at(epoch))
    const forgetful = await restartedWith(world, new MemoryFileSystem())
    await t.throwsAsync(world.launch({ kms: forgetful.service }), {
      code: epoch === 1 ? 'ERR_FORK' : 'ERR_LEDGER_ROLLED_BACK',
    })
    await accept(forgetful)
    const opened = await world.launch({ kms: forgetful.service })
    t.deepEqual(opened.recovery, { kind: 'stale', adopted: true, epoch })
    t.deepEqual(await readAll(opened), epoch === 1 ? {} : entriesAt(epoch))
    t.is(await opened.flow.checkpoint({ 'password/a': text('next') }), epoch + 1)
    t.is((await world.launch({ kms: forgetful.service })).recovery.epoch, epoch + 1)
  }
})

/** Serves the flow whatever dies, with the entries of epoch 2, under an epoch above all that were acknowledged. */
const servesEpoch2 = async (world: World, kms: Kms): Promise<boolean> => {
  const { flow, recovery } = await world.launch({ kms: kms.service })
  const entries = Object.fromEntries(flow.list().map(({ name }) => [name, true]))
  return recovery.epoch >= 5 && !('session/3' in entries) && 'session/2' in entries
}

test('an accepted recovery killed at any moment, twice in a row, ends in the accepted state all the same', async (t) => {
  const moments = await atPairsOfMoments(async (first, second) => {
    const world = await worldAtEpoch4()
    await world.store.restore(world.at(2))
    await accept(world.kms)
    await dies(() => world.launch({ interrupt: first() }))
    await dies(() => world.launch({ interrupt: second() }))
    t.true(await servesEpoch2(world, world.kms))
    t.true(await servesEpoch2(world, world.kms))
    t.false((await stateOf(world.kms)).staleAccepted)
  })
  t.true(moments.length > 8)
})
