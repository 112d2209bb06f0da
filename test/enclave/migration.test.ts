import test from 'ava'
import type { Migrate } from '../../protocol/contract.js'
import type { OpenedFlow } from '../../enclave/flow.js'
import type { EntryName } from '../../protocol/names.js'
import { ANNA, approve } from '../kms/approvers.js'
import { IMAGE, OTHER_IMAGE } from '../kms/in-process.js'
import { atEveryMoment, dies, readAll, startWorld, text, type LaunchOptions, type World } from './flow-world.js'

const approvers = [{ name: ANNA.name, key: ANNA.key }]

/** A world in which a grant lets OTHER_IMAGE take flows over from IMAGE. */
const startGranted = async (): Promise<World> => {
  const world = await startWorld({ approvers })
  const { keyring, ledger } = world.kms
  const notAfterMs = Date.UTC(2100, 0, 1)
  const grant = { kind: 'migration', kms: keyring.identity, flows: ['*'], from: IMAGE, notAfterMs } as const
  await ledger.addApproved(approve({ ...grant, to: { measurement: OTHER_IMAGE } }, ANNA))
  return world
}

const ENTRIES = { 'password/a': 'a', 'session/b': 'b', 'final-result/c': 'c' }

/** What the older image left: entries of two epochs, sealed either way. */
const begin = async ({ launch }: World): Promise<OpenedFlow> => {
  const older = await launch()
  await older.flow.checkpoint({ 'password/a': text('a'), 'session/b': { to: 'kms', bytes: text('b') } })
  await older.flow.checkpoint({ 'final-result/c': text('c') })
  return older
}

const newer = ({ launch }: World, options: LaunchOptions = {}): Promise<OpenedFlow> =>
  launch({ image: OTHER_IMAGE, svn: 2, ...options })

test('a newer image takes a flow over: all is stated anew under its own identity, and nothing of the older one is left', async (t) => {
  const world = await startGranted()
  const older = await begin(world)
  const signature = older.flow.sign(text('m'))
  const sealed = older.flow.seal('export', text('outside the store'))
  const before = await world.store.list('')
  const opened = await newer(world)
  t.like(opened.recovery, { kind: 'migrated', adopted: false, epoch: 4 })
  t.deepEqual(await readAll(opened), ENTRIES)
  t.deepEqual(opened.flow.sign(text('m')), signature)
  t.deepEqual(opened.flow.open('export', sealed), text('outside the store'))
  for await (const { status } of opened.flow.verify()) t.is(status, 'intact')
  await opened.flow.checkpoint({ 'password/a': text('later') })
  const again = await newer(world)
  t.like(again.recovery, { kind: 'recovered', epoch: 5 })
  t.deepEqual(await readAll(again), { ...ENTRIES, 'password/a': 'later' })
  t.deepEqual(again.flow.open('export', sealed), text('outside the store'))
  for await (const _ of again.flow.reseal()) continue
  const after = await world.store.list('')
  t.deepEqual(
    before.filter((name) => after.includes(name)),
    [],
  )
})

test('what stands under the names of an incarnation that was just issued is a fork, by name, and left as it is', async (t) => {
  for (const name of [
    'root-0000000002.payload',
    'direct-0000000004-0000000002-000001.payload',
    'epoch-0000000004-0000000002-000002.age',
  ]) {
    const world = await startGranted()
    await begin(world)
    const planted = `flow-1/${name}`
    await world.store.put(planted, text('of an instance that the ledger has forgotten'))
    await t.throwsAsync(newer(world), { code: 'ERR_FORK', message: /of an incarnation that was new/ }, name)
    t.deepEqual(await world.store.get(planted), text('of an instance that the ledger has forgotten'))
    // The next incarnation has names of its own.
    t.deepEqual(await readAll(await newer(world)), ENTRIES)
  }
})

test('the older image gets nothing once a newer one has the flow, and what lives of it commits nothing', async (t) => {
  const world = await startGranted()
  const older = await begin(world)
  await newer(world)
  await t.throwsAsync(older.flow.checkpoint({ 'password/a': text('late') }), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(world.launch(), { code: 'ERR_POLICY_DENIED' })
})

test('the hook learns whom it takes over from, reads every entry, and says all that is kept', async (t) => {
  const world = await startGranted()
  await begin(world)
  const migrate: Migrate = async ({ from, list, read }) => {
    t.deepEqual(from, { svn: 1, measurement: IMAGE })
    t.deepEqual(
      list().map(({ name, epoch }) => [name, epoch]),
      [
        ['final-result/c', 3],
        ['password/a', 2],
        ['session/b', 2],
      ],
    )
    await t.throwsAsync(read('password/none'), { code: 'ERR_ENTRY_MISSING' })
    const bytes = await read('session/b')
    return {
      'password/a': 'keep',
      'session/b': 'keep',
      'session/renamed': { to: 'kms', bytes },
      'processed-data/c': await read('final-result/c'),
    }
  }
  const opened = await newer(world, { migrate })
  const kept = { 'password/a': 'a', 'session/b': 'b', 'session/renamed': 'b', 'processed-data/c': 'c' }
  t.deepEqual(await readAll(opened), kept)
  t.deepEqual(await readAll(await newer(world)), kept)
})

test('a hook that fails or returns what is no entry changes nothing: the older image goes on', async (t) => {
  const world = await startGranted()
  await begin(world)
  const failing: readonly (readonly [migrate: () => unknown, code: string])[] = [
    [() => ({ 'password/none': 'keep' }), 'ERR_ENTRY_MISSING'],
    [() => ({ unknown: text('x') }), 'ERR_NAME_INVALID'],
    [() => ({ 'password/a': 'kept' }), 'ERR_VALUE_UNSUPPORTED'],
    [() => ({ 'password/a': undefined }), 'ERR_VALUE_UNSUPPORTED'],
    [() => ({ 'password/a': { to: 'kms' } }), 'ERR_VALUE_UNSUPPORTED'],
  ]
  for (const [migrate, code] of failing)
    await t.throwsAsync(newer(world, { migrate: migrate as Migrate }), { code }, code)
  await t.throwsAsync(newer(world, { migrate: () => Promise.reject(new TypeError('of the author')) }), {
    instanceOf: TypeError,
  })
  t.deepEqual(await readAll(await world.launch()), ENTRIES)
  t.deepEqual(await readAll(await newer(world)), ENTRIES)
})

test('calls with an idempotency key keep their outcomes over a migration', async (t) => {
  const world = await startGranted()
  const older = await begin(world)
  const call = (opened: OpenedFlow, reply: string) =>
    opened.calls.run({
      key: 'once',
      ecall: 'pay',
      argument: 1,
      signal: new AbortController().signal,
      serve: () => Promise.resolve(reply),
    })
  t.is(await call(older, 'first'), 'first')
  t.is(await call(await newer(world, { migrate: () => ({}) }), 'second'), 'first')
})

test('a flow that a crash left before its first commit, or with a checkpoint that nobody acknowledged, is taken over so', async (t) => {
  const moments = await atEveryMoment(async (interrupt) => {
    const each = await startGranted()
    await dies(async () => {
      const older = await each.launch({ interrupt: interrupt() })
      await older.flow.checkpoint({ 'password/a': text('a'), 'session/b': { to: 'kms', bytes: text('b') } })
    })
    const opened = await newer(each)
    const found = await readAll(opened)
    t.true('password/a' in found ? found['session/b'] === 'b' : Object.keys(found).length === 0)
    await opened.flow.checkpoint({ 'password/z': text('z') })
    t.deepEqual(await readAll(await newer(each)), { ...found, 'password/z': 'z' })
  }, true)
  t.true(moments.length > 10)
})

test('a crash anywhere in a migration: it runs again or is done, whichever image is launched next, and nothing is lost', async (t) => {
  let runs = 0
  const migrate: Migrate = async ({ list, read }) => {
    runs++
    const kept: Partial<Record<EntryName, Uint8Array | 'keep'>> = {}
    for (const { name } of list()) kept[name] = name.startsWith('session/') ? 'keep' : await read(name)
    return kept
  }
  const outcomes = new Set<string>()
  let moment = 0
  await atEveryMoment(async (interrupt) => {
    const world = await startGranted()
    await begin(world)
    runs = 0
    const died = await dies(() => newer(world, { migrate, interrupt: interrupt() }))
    // The older image comes first at every third moment.
    const older = moment++ % 3 === 0 ? await world.launch().catch(() => undefined) : undefined
    if (older !== undefined) {
      t.deepEqual(await readAll(older), ENTRIES)
      await older.flow.checkpoint({ 'password/a': text('a') })
    }
    const opened = await newer(world, { migrate })
    outcomes.add(`${opened.recovery.kind}, ${died ? 'died' : 'lived'}${older === undefined ? '' : ', older'}`)
    t.deepEqual(await readAll(opened), ENTRIES)
    t.true(opened.recovery.kind === 'migrated' ? runs >= 1 : runs === 1)
    await t.throwsAsync(world.launch(), { code: 'ERR_POLICY_DENIED' })
    await opened.flow.checkpoint({ 'password/a': text('a') })
    t.deepEqual(await readAll(await newer(world, { migrate })), ENTRIES)
  })
  t.deepEqual([...outcomes].sort(), ['migrated, died', 'migrated, died, older', 'recovered, died', 'recovered, lived'])
})
