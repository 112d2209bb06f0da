import test from 'ava'
import type { OpenedFlow } from '../../enclave/flow.js'
import type { ResealedEntry } from '../../protocol/contract.js'
import type { EntryName } from '../../protocol/names.js'
import { atEveryMoment, dies, readAll, startWorld, text, type World } from './flow-world.js'

const STATE = {
  'password/a': 'a',
  'session/b': 'b',
  'processed-data/direct-1': 'direct 1',
  'processed-data/direct-2': 'direct 2',
}

/** A flow whose four entries lie in three epochs, two of them as objects of their own. */
const worldWithEntries = async (): Promise<World & { flow: OpenedFlow['flow'] }> => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint({ 'password/a': text('a') })
  await flow.checkpoint({ 'session/b': text('b'), 'processed-data/direct-1': { to: 'kms', bytes: text('direct 1') } })
  await flow.checkpoint({ 'processed-data/direct-2': { to: 'kms', bytes: text('direct 2') } })
  return { ...world, flow }
}

type Options = Parameters<OpenedFlow['flow']['reseal']>[0]
const reseal = async (flow: OpenedFlow['flow'], options?: Options): Promise<ResealedEntry[]> => {
  const all: ResealedEntry[] = []
  for await (const entry of flow.reseal(options)) all.push(entry)
  return all
}
const summary = (entries: readonly ResealedEntry[]): string[] =>
  entries.map((entry) => `${entry.name} ${'error' in entry ? entry.error.code : String(entry.epoch)}`).sort()

test('every entry is stored again under new keys, is what it was, and the old files are gone', async (t) => {
  const world = await worldWithEntries()
  const before = await world.store.objects()
  t.deepEqual(
    summary(await reseal(world.flow)),
    Object.keys(STATE)
      .sort()
      .map((name) => `${name} 5`),
  )
  t.is(world.flow.epoch, 5)
  const after = await world.store.objects()
  const kept = [...after.keys()].filter((name) => before.has(name))
  t.true(
    kept.every((name) => name.includes('/root-')),
    'the business root key alone stays',
  )
  const old = new Set([...before.values()].map((bytes) => bytes.join()))
  t.true([...after].every(([name, bytes]) => name.includes('/root-') || !old.has(bytes.join())))
  t.is((await world.store.pairs('direct')).length, 2)
  t.is((await world.store.names('epoch')).length, 1)
  t.deepEqual(await readAll(await world.launch()), STATE)
})

test('a second call with the same epoch finds nothing to do; one of its own begins anew', async (t) => {
  const { flow } = await worldWithEntries()
  const since = flow.epoch + 1
  t.is((await reseal(flow, { since })).length, 4)
  t.deepEqual(await reseal(flow, { since }), [])
  t.is(flow.epoch, 5)
  t.is((await reseal(flow)).length, 4)
  await t.throwsAsync(reseal(flow, { since: flow.epoch + 2 }), { instanceOf: RangeError })
  const empty = (await (await startWorld()).launch()).flow
  t.deepEqual(await reseal(empty), [])
  t.is(empty.epoch, 1)
})

test('killed at any moment, the flow holds what it held, and a second call finishes', async (t) => {
  const moments = await atEveryMoment(async (interrupt) => {
    const world = await worldWithEntries()
    const since = world.flow.epoch + 1
    await dies(async () => reseal((await world.launch({ interrupt: interrupt() })).flow, { since }))
    const recovered = await world.launch()
    t.deepEqual(await readAll(recovered), STATE)
    await reseal(recovered.flow, { since })
    t.true(recovered.flow.list().every(({ epoch }) => epoch >= since))
    t.deepEqual(await readAll(await world.launch()), STATE)
    t.is((await world.store.pairs('direct')).length, 2)
  }, true)
  t.true(moments.length > 15)
})

test('an entry that is lost or damaged is named and left, and the others are resealed', async (t) => {
  const world = await worldWithEntries()
  const [first = '', second = ''] = await world.store.pairs('direct')
  for (const half of await world.store.names(first)) await world.store.delete(half)
  const envelope = await world.store.envelope(second)
  await world.store.replacePair(
    second,
    envelope.map((byte, index) => (index === envelope.length - 1 ? byte ^ 1 : byte)),
  )
  const { flow } = await world.launch()
  t.deepEqual(summary(await reseal(flow)), [
    'password/a 5',
    'processed-data/direct-1 ERR_STATE_LOST',
    'processed-data/direct-2 ERR_DIGEST_MISMATCH',
    'session/b 5',
  ])
  await world.store.replacePair(second, envelope)
  t.deepEqual(summary(await reseal(flow, { since: 5 })), [
    'processed-data/direct-1 ERR_STATE_LOST',
    'processed-data/direct-2 6',
  ])
})

test('a KMS that goes away ends it with its code, and says nothing of an entry', async (t) => {
  const world = await worldWithEntries()
  const outage = { on: false }
  const { flow } = await world.launch({
    interrupt: ({ operation }) => {
      if (outage.on && operation === 'kms-exchange') throw new Error('gone')
    },
  })
  outage.on = true
  await t.throwsAsync(reseal(flow), { code: 'ERR_KMS_UNREACHABLE' })
  outage.on = false
  t.is((await reseal(flow, { since: 5 })).length, 4)
  t.deepEqual(await readAll(await world.launch()), STATE)
})

/** Over what one batch takes. */
const MANY = Array.from({ length: 300 }, (_value, index): EntryName => `password/${String(index).padStart(3, '0')}`)

test('many entries take several checkpoints; a signal or a break stops between two', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint(Object.fromEntries(MANY.map((name) => [name, text(name)])))
  const stop = new AbortController()
  await t.throwsAsync(
    async () => {
      for await (const _entry of flow.reseal({ signal: stop.signal })) stop.abort(new Error('enough'))
    },
    { message: 'enough' },
  )
  t.is(flow.epoch, 3)
  for await (const _entry of flow.reseal({ since: 4 })) break
  t.is(flow.epoch, 4)
  t.is((await reseal(flow, { since: 4 })).length, 44)
  t.is(flow.epoch, 5)
  const state = await readAll(await world.launch())
  t.true(MANY.every((name) => state[name] === name))
})

test('what an author checkpoints, deletes and reads meanwhile is neither overtaken nor brought back', async (t) => {
  const world = await startWorld()
  const { flow } = await world.launch()
  await flow.checkpoint(Object.fromEntries(MANY.map((name) => [name, text('old')])))
  const [changed = MANY[0] as EntryName, deleted = MANY[0] as EntryName] = MANY.slice(-2)
  const writing: Promise<unknown>[] = []
  const seen = new Set<string>()
  for await (const { name } of flow.reseal()) {
    if (seen.size === 0) {
      writing.push(flow.checkpoint({ [changed]: text('new') }), flow.delete([deleted]))
      writing.push(flow.read(changed).then((value) => t.truthy(value)))
    }
    seen.add(name)
  }
  await Promise.all(writing)
  const state = await readAll(await world.launch())
  t.is(state[changed], 'new')
  t.false(deleted in state)
  t.is(Object.keys(state).length, MANY.length - 1)
})
