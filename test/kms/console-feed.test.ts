import test from 'ava'
import { SimulatedClock } from '../../faults/simulated-clock.js'
import { ConsoleFeed, type ConsoleView } from '../../kms/console-feed.js'

const VIEW: ConsoleView = {
  startedMs: 0,
  custody: 'unlocked',
  identity: '00',
  keys: [],
  flows: [],
  enclaves: [],
  recoveries: [],
  receipts: [],
  health: [],
}

/** A feed whose view says how often it was read. */
const world = () => {
  const clock = new SimulatedClock(1000)
  let readCount = 0
  const feed = new ConsoleFeed(() => ({ ...VIEW, startedMs: ++readCount }), clock)
  return { clock, feed, readCount: () => readCount }
}

/** True where `promise` has settled by now. */
const isSettled = async (promise: Promise<unknown>): Promise<boolean> => {
  const open = Symbol('open')
  await Promise.resolve()
  return (await Promise.race([promise, Promise.resolve(open)])) !== open
}

test('a page that has nothing is answered at once, one that has the newest waits for a change', async (t) => {
  const { clock, feed } = world()
  const first = await feed.after(0)
  t.is(first.nowMs, 1000)
  const next = feed.after(first.version)
  t.false(await isSettled(next))
  feed.changed()
  await clock.advance(250)
  t.true((await next).version > first.version)
  t.deepEqual(clock.pendingMs, [])
})

test('many changes are one answer', async (t) => {
  const { clock, feed, readCount } = world()
  const { version } = await feed.after(0)
  const next = feed.after(version)
  for (let count = 0; count < 100; count++) feed.changed()
  await clock.advance(250)
  t.is((await next).version, version + 100)
  t.is(readCount(), 2)
})

test('without news a page is told so after a while, and when the feed ends', async (t) => {
  const { clock, feed } = world()
  const { version } = await feed.after(0)
  const quiet = feed.after(version)
  await clock.advance(20_000)
  t.is((await quiet).version, version)
  const ended = feed.after(version)
  feed[Symbol.dispose]()
  t.is((await ended).version, version)
  t.deepEqual(clock.pendingMs, [])
})

test('of too many pages the last are answered at once', async (t) => {
  const { feed } = world()
  const { version } = await feed.after(0)
  const waiting = Array.from({ length: 64 }, () => feed.after(version))
  t.is((await feed.after(version)).version, version)
  t.false(await isSettled(Promise.race(waiting)))
  feed[Symbol.dispose]()
  await Promise.all(waiting)
})
