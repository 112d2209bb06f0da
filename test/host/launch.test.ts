import test from 'ava'
import { SimulatedClock } from '../../faults/index.js'
import { KeyriseError, launch, MemoryStore } from '../../host/index.js'
import { LIMITS, settle, start } from './scripted-launch.js'
import { echoKms, scriptedImage, ScriptedPlatform } from './scripted-platform.js'

test('calls are answered, each with its own answer', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  t.is(handle.state, 'ready')
  const held: (() => void)[] = []
  platform.enclave.onCall = ({ id, claimedArgument }) => held.push(() => platform.enclave.reply(id, claimedArgument))
  const answers = [echo({ a: [1, 'x', null] }), echo(new Uint8Array([1, 2])), echo()]
  await settle()
  held.reverse().forEach((answer) => answer())
  t.deepEqual(await Promise.all(answers), [{ a: [1, 'x', null] }, new Uint8Array([1, 2]), undefined])
  await handle.close()
})

test('only declared ECALLs have a stub, and the table has no others by inheritance', async (t) => {
  const { handle } = await start(new ScriptedPlatform())
  t.deepEqual(Reflect.ownKeys(handle.ecalls), ['echo'])
  t.is(Object.getPrototypeOf(handle.ecalls), null)
  await handle.close()
})

test('a refusal arrives as its code, with the declared reason', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  platform.enclave.onCall = ({ id }) =>
    platform.enclave.refuse(id, new KeyriseError('ERR_APPLICATION', { reason: 'too-late' }))
  const refusal = await t.throwsAsync(echo(), { instanceOf: KeyriseError, code: 'ERR_APPLICATION' })
  t.is(refusal.reason, 'too-late')
  platform.enclave.onCall = ({ id }) => platform.enclave.refuse(id, new TypeError('inner'))
  await t.throwsAsync(echo(), { code: 'ERR_ENCLAVE_FAILED' })
  await handle.close()
})

test('what cannot cross is refused before it is sent', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  await t.throwsAsync(echo(new Uint8Array(new SharedArrayBuffer(8))), { code: 'ERR_SHARED_MEMORY' })
  await t.throwsAsync(
    echo(() => 1),
    { code: 'ERR_VALUE_UNSUPPORTED' },
  )
  t.is(platform.enclave.calls.length, 0)
  t.is(await echo(1), 1)
  await handle.close()
})

test('case 26: forged, doubled and late replies change nothing', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  const { enclave } = platform
  enclave.onCall = () => undefined
  const answer = echo(1)
  await settle()
  const id = enclave.calls[0]?.id as string
  for (const forged of [
    null,
    7,
    'RAW',
    {},
    { id },
    { id, type: 'SET' },
    { id: 7, type: 'RAW', value: 1 },
    { id: '999', type: 'RAW', value: 1 },
    { type: 'FAILED', code: 'ERR_FORK' },
  ]) {
    enclave.inside.ecalls.post(forged)
  }
  enclave.reply(id, 'first')
  enclave.reply(id, 'second')
  t.is(await answer, 'first')
  const overdue = echo(2)
  await settle()
  const rejected = t.throwsAsync(overdue, { code: 'ERR_DEADLINE' })
  await clock.advance(LIMITS.callDeadlineMs)
  await rejected
  enclave.reply(enclave.calls[1]?.id as string, 'late')
  await settle()
  t.is(handle.state, 'ready')
  await handle.close()
})

test('every call has its own deadline, and a clock that jumps neither loses nor keeps one for ever', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  platform.enclave.onCall = () => undefined
  const outcomes: string[] = []
  const watch = (name: string, call: Promise<unknown>): void => {
    call.catch((error: unknown) => outcomes.push(`${name} ${(error as KeyriseError).code}`))
  }
  watch('first', echo(1))
  await clock.advance(600)
  watch('second', echo(2))
  await clock.advance(399)
  t.deepEqual(outcomes, [])
  await clock.advance(1)
  t.deepEqual(outcomes, ['first ERR_DEADLINE'])
  await clock.advance(600)
  t.deepEqual(outcomes, ['first ERR_DEADLINE', 'second ERR_DEADLINE'])
  watch('third', echo(3))
  clock.jump(-1e9)
  await clock.advance(LIMITS.callDeadlineMs)
  t.is(outcomes.length, 3)
  t.deepEqual(clock.pendingMs, [])
  await handle.close()
})

test('a first launch that fails says why at once, and leaves nothing running', async (t) => {
  for (const code of ['ERR_KMS_UNREACHABLE', 'ERR_POLICY_DENIED', 'ERR_STATE_LOST'] as const) {
    const platform = new ScriptedPlatform((enclave) => enclave.fail(code))
    await t.throwsAsync(start(platform), { code })
    t.is(platform.launched.length, 1)
    t.true(platform.enclave.terminateCount > 0)
  }
  const dead = new ScriptedPlatform((enclave) => enclave.die('failed'))
  await t.throwsAsync(start(dead), { code: 'ERR_ENCLAVE_LOST', message: /failed/ })
  const clock = new SimulatedClock()
  const hanging = new ScriptedPlatform(() => undefined)
  const rejected = t.throwsAsync(start(hanging, clock), { code: 'ERR_DEADLINE' })
  await clock.advance(LIMITS.launchDeadlineMs)
  await rejected
  t.true(hanging.enclave.terminateCount > 0)
  const broken = new ScriptedPlatform(() => {
    throw new Error('no threads left')
  })
  const error = await t.throwsAsync(start(broken), { code: 'ERR_LAUNCH_FAILED' })
  t.true(error.cause instanceof Error)
})

test('an answer before READY is none', async (t) => {
  const platform = new ScriptedPlatform((enclave) => {
    enclave.reply('0', 'forged')
    enclave.inside.ecalls.post('garbage')
    enclave.ready()
  })
  const { handle, echo } = await start(platform)
  t.is(await echo('real'), 'real')
  await handle.close()
})

test('closing ends the enclave, rejects what is in flight, and can be repeated', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock, events } = await start(platform)
  platform.enclave.onCall = () => undefined
  const call = t.throwsAsync(echo(), { code: 'ERR_ENCLAVE_CLOSED' })
  await Promise.all([handle.close(), handle.close()])
  await call
  await handle[Symbol.asyncDispose]()
  await t.throwsAsync(echo(), { code: 'ERR_ENCLAVE_CLOSED' })
  await settle()
  t.is(handle.state, 'closed')
  t.is(platform.launched.length, 1)
  t.true(platform.enclave.terminateCount > 0)
  t.deepEqual(
    events.map(({ type }) => type),
    ['launching', 'ready', 'closed'],
  )
  t.deepEqual(clock.pendingMs, [])
})

test('closing in the middle of a relaunch, or between two, ends it for good', async (t) => {
  for (const between of [false, true]) {
    const platform = new ScriptedPlatform()
    const { handle, echo, clock } = await start(platform)
    platform.begin = (enclave) => (between ? enclave.fail('ERR_KMS_UNREACHABLE') : undefined)
    platform.enclave.die()
    await settle()
    await clock.advance(between ? 0 : LIMITS.backoffMinMs)
    const waiting = t.throwsAsync(echo(), { code: 'ERR_ENCLAVE_CLOSED' })
    await handle.close()
    await waiting
    await settle()
    t.deepEqual(clock.pendingMs, [])
    const count = platform.launched.length
    await clock.advance(1e6)
    await settle()
    t.is(platform.launched.length, count)
    t.is(handle.state, 'closed')
  }
})

test('events say what happened and how long it took', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock, events } = await start(platform)
  await echo()
  platform.begin = () => undefined
  platform.enclave.die('killed')
  await settle()
  await clock.advance(25)
  platform.enclave.ready()
  await settle()
  await handle.close()
  t.deepEqual(events, [
    { atMs: 1_000_000, type: 'launching', attempt: 0 },
    { atMs: 1_000_000, type: 'ready', tookMs: 0 },
    { atMs: 1_000_000, type: 'lost', reason: 'killed', callsPending: 0 },
    { atMs: 1_000_000, type: 'launching', attempt: 1 },
    { atMs: 1_000_025, type: 'ready', tookMs: 25 },
    { atMs: 1_000_025, type: 'closed' },
  ])
})

test('a flow or a task that is no name is refused before anything is launched', async (t) => {
  const platform = new ScriptedPlatform()
  const options = { image: scriptedImage(), platform, store: new MemoryStore(), kms: echoKms }
  await t.throwsAsync(launch({ ...options, flow: '../x' }), { code: 'ERR_NAME_INVALID' })
  await t.throwsAsync(launch({ ...options, flow: 'x', task: '' }), { code: 'ERR_NAME_INVALID' })
  t.is(platform.launched.length, 0)
})
