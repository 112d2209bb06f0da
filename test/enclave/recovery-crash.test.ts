import test from 'ava'
import type { OpenedFlow } from '../../enclave/flow.js'
import { isKeyriseError } from '../../protocol/errors.js'
import {
  atEveryMoment,
  atPairsOfMoments,
  dies,
  readAll,
  readText,
  startWorld,
  text,
  type Interrupt,
  type World,
} from './flow-world.js'

/**
 * Every moment at which an instance can die: before and after each of its operations, in order
 * (docs/adr/0003-commit-order.md). Where two deaths are combined, only the moments before: dying after one operation
 * leaves the same world as dying before the next.
 */

test('a first launch killed at any moment, and the next one too, ends in one working flow', async (t) => {
  const moments = await atPairsOfMoments(async (first, second) => {
    const world = await startWorld()
    const signatures = new Set<string>()
    const serves = async (launched: Promise<OpenedFlow>): Promise<OpenedFlow> => {
      const opened = await launched
      signatures.add(opened.flow.sign(text('who')).toString())
      return opened
    }
    await dies(() => serves(world.launch({ interrupt: first() })))
    await dies(() => serves(world.launch({ interrupt: second() })))
    const third = await serves(world.launch())
    await third.flow.checkpoint({ 'password/a': text('a') })
    const fourth = await serves(world.launch())
    t.is(signatures.size, 1, 'a flow that served has one root for ever')
    t.is(await readText(fourth, 'password/a'), 'a')
    await fourth.flow.checkpoint({ 'password/a': text('b') })
    t.is((await world.store.names('root')).length, 2, 'roots of abandoned births are swept')
  })
  t.deepEqual(moments, [
    ...['challenge', 'handshake', 'open'].map(() => 'before kms-exchange'),
    'before store-list',
    'before kms-exchange',
    'before store-put',
    'before store-put',
    'before kms-exchange',
  ])
})

const OLD = {
  'password/a': 'old',
  'password/kept': 'kept',
  'session/direct': 'old direct',
  'session/kept': 'kept direct',
}
const NEW = { ...OLD, 'password/a': 'new', 'password/added': 'added', 'session/direct': 'new direct' }

/** A flow with some history, whose instances are gone. */
const worldWithHistory = async (): Promise<World> => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/kept': text('kept'), 'session/kept': { to: 'kms', bytes: text('kept direct') } })
  await flow.checkpoint({ 'password/a': text('older'), 'session/direct': { to: 'kms', bytes: text('older') } })
  await flow.checkpoint({ 'password/a': text('old'), 'session/direct': { to: 'kms', bytes: text('old direct') } })
  return world
}
const change = ({ flow }: OpenedFlow): Promise<number> =>
  flow.checkpoint({
    'password/a': text('new'),
    'password/added': text('added'),
    'session/direct': { to: 'kms', bytes: text('new direct') },
  })

test('a checkpoint killed at any moment is there as a whole or not at all, and is there once acknowledged', async (t) => {
  const outcomes = new Set<string>()
  const moments = await atEveryMoment(async (interrupt) => {
    const world = await worldWithHistory()
    let acknowledged = false
    await dies(async () => {
      await change(await world.launch({ interrupt: interrupt() }))
      acknowledged = true
    })
    const recovered = await world.launch()
    const state = await readAll(recovered)
    const isNew = 'password/added' in state
    t.deepEqual(state, isNew ? NEW : OLD)
    t.is(recovered.flow.epoch, isNew ? 5 : 4)
    outcomes.add(`acknowledged ${acknowledged}, new ${isNew}, adopted ${recovered.recovery.adopted}`)
    // What the crash left is no obstacle, and does not stay.
    await change(recovered)
    await recovered.flow.checkpoint({ 'password/a': text('last') })
    t.true((await world.store.names('epoch-')).length <= 4)
    t.deepEqual(await readAll(await world.launch()), { ...NEW, 'password/a': 'last' })
  })
  t.deepEqual([...outcomes].sort(), [
    'acknowledged false, new false, adopted false',
    'acknowledged false, new true, adopted false',
    'acknowledged false, new true, adopted true',
    'acknowledged true, new true, adopted false',
  ])
  t.true(moments.length > 20)
})

/** Dies, once on, at the `count`-th moment of a kind. */
const dyingAt = (moment: string, count: number) => {
  const victim = { on: false }
  let dead = false
  const interrupt: Interrupt = ({ at, operation }) => {
    dead ||= victim.on && `${at} ${operation}` === moment && --count === 0
    if (dead) throw new Error('dead')
  }
  return { victim, interrupt }
}

test('case 13: a recovery killed at any moment, of a checkpoint that died unacknowledged, loses and doubles nothing', async (t) => {
  // The epoch file is durable and the ledger does not know; and it knows, and the answer is lost.
  for (const [moment, count] of [
    ['after store-put', 3],
    ['after kms-exchange', 1],
  ] as const) {
    await atEveryMoment(async (second) => {
      const world = await worldWithHistory()
      const first = dyingAt(moment, count)
      const opened = await world.launch({ interrupt: first.interrupt })
      first.victim.on = true
      t.true(await dies(() => change(opened)))
      await dies(() => world.launch({ interrupt: second() }))
      const recovered = await world.launch()
      t.deepEqual(await readAll(recovered), NEW)
      t.is(recovered.flow.epoch, 5)
      await recovered.flow.checkpoint({ 'password/a': text('next') })
      t.deepEqual(await readAll(await world.launch()), { ...NEW, 'password/a': 'next' })
    })
  }
})

test('any one operation of a checkpoint that fails leaves an instance that goes on', async (t) => {
  for (const operation of ['store-put', 'store-delete', 'kms-exchange']) {
    for (const at of ['before', 'after']) {
      for (const count of [1, 2]) {
        const world = await worldWithHistory()
        const failing = { on: false, count }
        const interrupt: Interrupt = (moment) => {
          if (failing.on && moment.operation === operation && moment.at === at && --failing.count === 0)
            throw new Error('EIO')
        }
        const opened = await world.launch({ interrupt })
        failing.on = true
        const failed = await dies(() => change(opened))
        failing.on = false
        t.is(
          failed,
          operation === 'store-put',
          'only the store’s failure is one: the rest is repeated, or no part of the outcome',
        )
        const now = await readAll(opened)
        t.deepEqual(now, failed ? OLD : NEW)
        await opened.flow.checkpoint({ 'final-result/model': text('m') })
        t.deepEqual(await readAll(await world.launch()), { ...now, 'final-result/model': 'm' })
      }
    }
  }
})

test('a recovery that dies on the way to the KMS says ERR_KMS_UNREACHABLE, and nothing of the flow was changed or served', async (t) => {
  const moments = await atEveryMoment(async (interrupt) => {
    const world = await worldWithHistory()
    let moment = ''
    const noting =
      (interrupted: Interrupt): Interrupt =>
      (at) => {
        moment = at.operation
        return interrupted(at)
      }
    try {
      await world.launch({ interrupt: noting(interrupt()) })
    } catch (error) {
      if (moment === 'kms-exchange') t.true(isKeyriseError(error, 'ERR_KMS_UNREACHABLE'))
    }
    t.deepEqual(await readAll(await world.launch()), OLD)
  })
  t.true(moments.length > 10)
})
