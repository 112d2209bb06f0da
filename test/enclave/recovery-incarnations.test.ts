import test from 'ava'
import { KeyriseError } from '../../protocol/errors.js'
import type { KmsChannel, Store } from '../../protocol/ports.js'
import { dies, readAll, readText, startWorld, text, type Interrupt } from './flow-world.js'

/** Several instances of one flow, lost answers, and what each side may then believe. */

/** Fails operations while switched on; the effect has happened (`after`) or not (`before`). */
const outage = (operation: string, at: 'before' | 'after', code: ConstructorParameters<typeof KeyriseError>[0]) => {
  const state = { on: false }
  const interrupt: Interrupt = (moment) => {
    if (state.on && moment.operation === operation && moment.at === at) throw new KeyriseError(code)
  }
  return { state, interrupt }
}

test('case 11: of two clones the older is fenced at its next commit, and serves nothing from then on', async (t) => {
  const world = await startWorld()
  const older = await world.launch()
  await older.flow.checkpoint({ 'password/a': text('1') })
  const newer = await world.launch()
  await t.throwsAsync(older.flow.checkpoint({ 'password/a': text('of the clone') }), { code: 'ERR_FENCED' })
  await t.throwsAsync(older.flow.read('password/a'), { code: 'ERR_FENCED' })
  await t.throwsAsync(older.flow.checkpoint({ 'password/b': text('b') }), { code: 'ERR_FENCED' })
  t.throws(() => older.flow.sign(text('m')), { code: 'ERR_FENCED' })
  t.throws(() => older.flow.seal('step', text('m')), { code: 'ERR_FENCED' })
  t.is(await newer.flow.checkpoint({ 'password/a': text('2') }), 3)
  t.is(await readText(await world.launch(), 'password/a'), '2')
})

test('what a fenced clone wrote is not adopted later, and is swept', async (t) => {
  const world = await startWorld()
  const older = await world.launch()
  await older.flow.checkpoint({ 'password/a': text('1') })
  const newer = await world.launch()
  await t.throwsAsync(older.flow.checkpoint({ 'password/a': text('of the clone') }), { code: 'ERR_FENCED' })
  t.is((await world.store.names('epoch-0000000003')).length, 1)
  newer.wipe()
  const third = await world.launch()
  t.false(third.recovery.adopted)
  t.is(await readText(third, 'password/a'), '1')
  await third.flow.checkpoint({ 'password/a': text('3') })
  t.deepEqual(await world.store.names('epoch-0000000003-0000000001'), [])
})

test('a checkpoint whose write lands after its successor has looked is no fork, and does not count', async (t) => {
  const world = await startWorld()
  const first = await world.launch()
  await first.flow.checkpoint({ 'password/a': text('1') })
  // A dying instance's write that the host finishes late.
  const late: { name: string; bytes: Uint8Array }[] = []
  const slow = await world.launch({
    store: {
      put: (name, bytes) => {
        late.push({ name, bytes })
        return Promise.reject(new KeyriseError('ERR_STORE_IO'))
      },
      get: (name) => world.store.get(name),
      read: (name, offset, sizeBytes) => world.store.read(name, offset, sizeBytes),
      list: (prefix) => world.store.list(prefix),
      delete: (name) => world.store.delete(name),
    },
  })
  await t.throwsAsync(slow.flow.checkpoint({ 'password/a': text('late') }), { code: 'ERR_STORE_IO' })
  const third = await world.launch()
  for (const { name, bytes } of late) await world.store.put(name, bytes)
  third.wipe()
  const fourth = await world.launch()
  t.false(fourth.recovery.adopted)
  t.is(await readText(fourth, 'password/a'), '1')
})

test('a root whose write lands after its birth was given up is nobody’s root', async (t) => {
  const world = await startWorld()
  const diesWriting = (): { late: Map<string, Uint8Array>; store: Store } => {
    const late = new Map<string, Uint8Array>()
    const put = (name: string, bytes: Uint8Array): Promise<void> => {
      late.set(name, bytes)
      return name.endsWith('.payload') ? Promise.resolve() : Promise.reject(new Error('dead'))
    }
    const store: Store = {
      put,
      get: (name) => world.store.get(name),
      read: (name, offset, sizeBytes) => world.store.read(name, offset, sizeBytes),
      list: (prefix) => world.store.list(prefix),
      delete: (name) => world.store.delete(name),
    }
    return { late, store }
  }
  const [first, second] = [diesWriting(), diesWriting()]
  t.true(await dies(() => world.launch({ store: first.store })))
  t.true(await dies(() => world.launch({ store: second.store })))
  for (const [name, bytes] of first.late) await world.store.put(name, bytes)
  const third = await world.launch()
  t.deepEqual(third.recovery, { kind: 'fresh', adopted: false, epoch: 1 })
  t.deepEqual(await world.store.pairs('root-'), ['flow-1/root-0000000001', 'flow-1/root-0000000003'])
  // Nor does it stand in for the real one.
  const files = await world.store.objects()
  await world.store.delete('flow-1/root-0000000003.payload')
  await t.throwsAsync(world.launch(), { code: 'ERR_STATE_LOST' })
  await world.store.restore(files)
  const fourth = await world.launch()
  await fourth.flow.checkpoint({ 'password/a': text('a') })
  t.deepEqual(await world.store.pairs('root-'), ['flow-1/root-0000000003'])
})

test('case 12: of two launches at once one recovers, the other gets a conflict or is fenced', async (t) => {
  for (const born of [false, true]) {
    const world = await startWorld()
    if (born) await (await world.launch()).flow.checkpoint({ 'password/a': text('a') })
    const launched = await Promise.allSettled([world.launch(), world.launch(), world.launch()])
    // One may have claimed the flow before another asked for it: the newest claim holds it.
    const committed = await Promise.allSettled(
      launched.map(async (result) => {
        if (result.status === 'rejected') throw result.reason
        return result.value.flow.checkpoint({ 'password/b': text('b') })
      }),
    )
    t.is(committed.filter((result) => result.status === 'fulfilled').length, 1)
    for (const result of committed) {
      if (result.status === 'rejected')
        t.true(['ERR_LEDGER_CONFLICT', 'ERR_FENCED'].includes((result.reason as KeyriseError).code))
    }
    t.is(await readText(await world.launch(), 'password/b'), 'b')
  }
})

for (const at of ['before', 'after'] as const) {
  test(`KMS lost ${at} it saw the commit: the outcome is unknown, and the next call settles it with the same commit`, async (t) => {
    const world = await startWorld()
    const { state, interrupt } = outage('kms-exchange', at, 'ERR_KMS_UNREACHABLE')
    const { flow } = await world.launch({ interrupt })
    await flow.checkpoint({ 'password/a': text('1') })
    state.on = true
    await t.throwsAsync(flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_KMS_UNREACHABLE' })
    await t.throwsAsync(flow.checkpoint({ 'password/a': text('3') }), { code: 'ERR_KMS_UNREACHABLE' })
    // No old value is shown that the ledger may have replaced.
    await t.throwsAsync(flow.read('password/a'), { code: 'ERR_KMS_UNREACHABLE' })
    t.is((await world.store.names('epoch-0000000003')).length, 1, 'never another head + 1 in doubt')
    state.on = false
    t.deepEqual(await flow.read('password/a'), text('2'))
    t.is(flow.epoch, 3)
    t.is(await flow.checkpoint({ 'password/a': text('3') }), 4)
    t.is(await readText(await world.launch(), 'password/a'), '3')
  })

  test(`KMS lost ${at} it saw the commit, then the instance dies: the next one adopts or finds it`, async (t) => {
    const world = await startWorld()
    const { state, interrupt } = outage('kms-exchange', at, 'ERR_KMS_UNREACHABLE')
    const { flow } = await world.launch({ interrupt })
    await flow.checkpoint({ 'password/a': text('1') })
    state.on = true
    await t.throwsAsync(flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_KMS_UNREACHABLE' })
    const next = await world.launch()
    t.is(next.recovery.adopted, at === 'before')
    t.is(await readText(next, 'password/a'), '2')
    t.is(next.flow.epoch, 3)
    // The one in doubt comes back: a newer instance holds the flow.
    state.on = false
    await t.throwsAsync(flow.read('password/a'), { code: 'ERR_FENCED' })
  })
}

test('case 26: a commit that the host holds back and delivers later changes nothing', async (t) => {
  const world = await startWorld()
  let hold = false
  const held: Uint8Array[] = []
  const kms: KmsChannel = {
    exchange: (frame) => {
      if (!hold) return world.kms.service.exchange(frame)
      held.push(frame)
      return Promise.reject(new KeyriseError('ERR_KMS_UNREACHABLE'))
    },
  }
  const first = await world.launch({ kms })
  await first.flow.checkpoint({ 'password/a': text('1') })
  hold = true
  await t.throwsAsync(first.flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_KMS_UNREACHABLE' })
  const second = await world.launch()
  await second.flow.checkpoint({ 'password/a': text('3') })
  for (const frame of [...held, ...held]) await world.kms.service.exchange(frame)
  t.is(await second.flow.checkpoint({ 'password/b': text('b') }), 5)
  t.deepEqual(await readAll(await world.launch()), { 'password/a': '3', 'password/b': 'b' })
})

test('the answer to a claim is lost: recovery starts again from the ledger, and holds the flow', async (t) => {
  const world = await startWorld()
  await (await world.launch()).flow.checkpoint({ 'password/a': text('1') })
  // challenge, handshake, open, unwrap, claim
  let exchanges = 0
  const opened = await world.launch({
    interrupt: ({ at, operation }) => {
      if (operation === 'kms-exchange' && at === 'after' && ++exchanges === 5)
        throw new KeyriseError('ERR_KMS_UNREACHABLE')
    },
  })
  t.is(await readText(opened, 'password/a'), '1')
  t.is(await opened.flow.checkpoint({ 'password/a': text('2') }), 3)
  t.is(world.kms.events.filter(({ event }) => event === 'claim').length, 3)
})

test('a live instance that moves the ledger under a launch is not mistaken for a fork or a loss', async (t) => {
  const world = await startWorld()
  const live = await world.launch()
  await live.flow.checkpoint({ 'password/a': text('1') })
  let moved = false
  const launching = world.launch({
    interrupt: async ({ at, operation }) => {
      if (moved || operation !== 'store-list' || at !== 'before') return
      moved = true
      // Two epochs further, and the file that the launch was told to find is collected.
      for (const value of ['2', '3', '4']) await live.flow.checkpoint({ 'password/a': text(value) })
    },
  })
  t.is(await readText(await launching, 'password/a'), '4')
  await t.throwsAsync(live.flow.checkpoint({ 'password/a': text('5') }), { code: 'ERR_FENCED' })
})

test('cases 23, 24: a store that is full or fails leaves the state intact, and the flow goes on when it recovers', async (t) => {
  for (const code of ['ERR_STORE_FULL', 'ERR_STORE_UNWRITABLE', 'ERR_STORE_IO'] as const) {
    for (const at of ['before', 'after'] as const) {
      const world = await startWorld()
      const { state, interrupt } = outage('store-put', at, code)
      const { flow } = await world.launch({ interrupt })
      await flow.checkpoint({ 'password/a': text('1'), 'session/d': { to: 'kms', bytes: text('1') } })
      state.on = true
      await t.throwsAsync(flow.checkpoint({ 'password/a': text('2'), 'session/d': { to: 'kms', bytes: text('2') } }), {
        code,
      })
      await t.throwsAsync(flow.checkpoint({ 'password/a': text('3') }), { code })
      t.deepEqual(await flow.read('password/a'), text('1'))
      t.is(flow.epoch, 2)
      state.on = false
      t.is(await flow.checkpoint({ 'password/b': text('b'), 'session/e': { to: 'kms', bytes: text('e') } }), 3)
      const again = await world.launch()
      t.deepEqual(await readAll(again), { 'password/a': '1', 'password/b': 'b', 'session/d': '1', 'session/e': 'e' })
      // What the failures left goes with the first checkpoints after a recovery.
      for (const epoch of [4, 5]) t.is(await again.flow.checkpoint({ 'password/c': text('c') }), epoch)
      const left = await world.store.names('0000000003-0000000002-')
      t.is(left.length, 3, left.join(' '))
    }
  }
})

test('a checkpoint that the store failed is not adopted after all, once its failure was told', async (t) => {
  const world = await startWorld()
  const { state, interrupt } = outage('store-put', 'after', 'ERR_STORE_IO')
  const { flow } = await world.launch({ interrupt })
  await flow.checkpoint({ 'password/a': text('1') })
  state.on = true
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_STORE_IO' })
  t.is((await world.store.names('epoch-0000000003')).length, 1)
  const next = await world.launch()
  t.false(next.recovery.adopted)
  t.is(await readText(next, 'password/a'), '1')
})

test('a host that does not say how far a commit came is asked for nothing twice: what the ledger has counts', async (t) => {
  for (const done of ['nothing', 'put', 'all'] as const) {
    const world = await startWorld()
    const state = { on: false }
    const { flow } = await world.launch({
      commits: (right) => ({
        commit: async (name, bytes, frame) => {
          if (!state.on) return right.commit(name, bytes, frame)
          state.on = false
          if (done === 'put') await world.store.put(name, bytes)
          if (done === 'all') await right.commit(name, bytes, frame)
          throw new Error('no answer')
        },
      }),
    })
    await flow.checkpoint({ 'password/a': text('1') })
    state.on = true
    const checkpoint = flow.checkpoint({ 'password/a': text('2') })
    if (done === 'all') t.is(await checkpoint, 3)
    else await t.throwsAsync(checkpoint, { code: 'ERR_STORE_IO' })
    const value = done === 'all' ? '2' : '1'
    t.deepEqual(await flow.read('password/a'), text(value), done)
    t.is(await readText(await world.launch(), 'password/a'), value, done)
  }
})

test('a KMS that cannot be asked before the epoch file is stored gets it stored when it is asked', async (t) => {
  const world = await startWorld()
  const { state, interrupt } = outage('kms-exchange', 'before', 'ERR_KMS_UNREACHABLE')
  const { flow } = await world.launch({ interrupt })
  await flow.checkpoint({ 'password/a': text('1') })
  state.on = true
  // Ends the session; the checkpoint after it has none to send a frame in.
  await t.throwsAsync(flow.publish({ a: text('a') }), { code: 'ERR_KMS_UNREACHABLE' })
  await t.throwsAsync(flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_KMS_UNREACHABLE' })
  t.deepEqual(await world.store.names('epoch-0000000003'), [])
  state.on = false
  t.deepEqual(await flow.read('password/a'), text('2'))
  t.is(await readText(await world.launch(), 'password/a'), '2')
})

test('with the KMS away too, the instance serves nothing before it knows, and yields to a newer one', async (t) => {
  for (const replaced of [false, true]) {
    const world = await startWorld()
    const state = { on: false }
    const interrupt: Interrupt = ({ at, operation }) => {
      if (state.on && at === (operation === 'store-put' ? 'after' : 'before'))
        throw new KeyriseError('ERR_KMS_UNREACHABLE')
    }
    const { flow } = await world.launch({ interrupt })
    await flow.checkpoint({ 'password/a': text('1') })
    state.on = true
    await t.throwsAsync(flow.checkpoint({ 'password/a': text('2') }))
    await t.throwsAsync(flow.read('password/a'), { code: 'ERR_KMS_UNREACHABLE' })
    const newer = replaced ? await world.launch() : undefined
    state.on = false
    if (newer === undefined) {
      t.deepEqual(await flow.read('password/a'), text('1'))
      t.is(await flow.checkpoint({ 'password/a': text('3') }), 3)
    } else {
      await t.throwsAsync(flow.read('password/a'), { code: 'ERR_FENCED' })
      t.is(await newer.flow.checkpoint({ 'password/a': text('3') }), 4)
    }
    t.is(await readText(await world.launch(), 'password/a'), '3')
  }
})

test('a first launch on a store that cannot be written says so, and works once it can', async (t) => {
  const world = await startWorld()
  const { state, interrupt } = outage('store-put', 'before', 'ERR_STORE_UNWRITABLE')
  state.on = true
  await t.throwsAsync(world.launch({ interrupt }), { code: 'ERR_STORE_UNWRITABLE' })
  await t.throwsAsync(world.launch({ interrupt }), { code: 'ERR_STORE_UNWRITABLE' })
  state.on = false
  t.is((await world.launch({ interrupt })).recovery.kind, 'fresh')
})

test('case 25: a KMS that is down stays an error of its own, and a launch after it works', async (t) => {
  const world = await startWorld()
  await (await world.launch()).flow.checkpoint({ 'password/a': text('1') })
  const { state, interrupt } = outage('kms-exchange', 'before', 'ERR_KMS_UNREACHABLE')
  state.on = true
  await t.throwsAsync(world.launch({ interrupt }), { code: 'ERR_KMS_UNREACHABLE' })
  state.on = false
  t.is(await readText(await world.launch({ interrupt }), 'password/a'), '1')
})

test('a KMS that restarts in the middle of a flow’s life is met again, in a new session', async (t) => {
  const world = await startWorld()
  let frames = 0
  let restarted = false
  const kms: KmsChannel = {
    exchange: (frame) => {
      // A restarted KMS knows no session of the old one.
      if (frames++ === 8 && !restarted) {
        restarted = true
        return Promise.reject(new KeyriseError('ERR_KMS_UNREACHABLE'))
      }
      return world.kms.service.exchange(frame)
    },
  }
  const { flow } = await world.launch({ kms })
  for (const value of ['1', '2', '3', '4', '5']) await flow.checkpoint({ 'password/a': text(value) })
  t.true(restarted)
  t.is(await readText(await world.launch(), 'password/a'), '5')
})

test('destroying twice, the first answer lost, is destroying once', async (t) => {
  const world = await startWorld()
  let destroying = false
  const { flow } = await world.launch({
    interrupt: ({ at, operation }) => {
      if (destroying && at === 'after' && operation === 'kms-exchange') {
        destroying = false
        throw new KeyriseError('ERR_KMS_UNREACHABLE')
      }
    },
  })
  await flow.checkpoint({ 'password/a': text('1') })
  destroying = true
  await flow.destroy()
  t.deepEqual(await world.store.list(''), [])
  t.true(await dies(() => world.launch()))
})
