import test from 'ava'
import type { ErrorCode, KeyriseError } from '../../host/index.js'
import { LIMITS, settle, start } from './scripted-launch.js'
import { ScriptedPlatform } from './scripted-platform.js'

test('case 29: when the enclave dies, every call in flight rejects', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, events } = await start(platform)
  platform.enclave.onCall = () => undefined
  const calls = Array.from({ length: 100 }, (_value, index) => echo(index))
  await settle()
  platform.enclave.die('out of memory')
  for (const call of calls) await t.throwsAsync(call, { code: 'ERR_ENCLAVE_LOST' })
  const lost = events.find(({ type }) => type === 'lost')
  t.like(lost, { reason: 'out of memory', callsPending: 100 })
  await handle.close()
})

test('an answer that the enclave gave before it died still counts', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  platform.enclave.onCall = ({ id }) => {
    platform.enclave.reply(id, 'done')
    platform.enclave.die()
  }
  t.is(await echo(), 'done')
  await handle.close()
})

test('it is launched again, and calls made meanwhile wait for the new instance', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  platform.begin = () => undefined
  platform.enclave.die()
  await settle()
  t.is(handle.state, 'launching')
  t.is(platform.launched.length, 2)
  const waiting = echo('hello')
  await settle()
  t.is(platform.enclave.calls.length, 0)
  platform.enclave.ready()
  t.is(await waiting, 'hello')
  t.is(handle.state, 'ready')
  await handle.close()
})

test('an abort while a call waits for a relaunch rejects at once with the signal’s reason, and the call is never made', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  platform.begin = () => undefined
  platform.enclave.die()
  await settle()
  const pendingCount = clock.pendingMs.length
  const controller = new AbortController()
  const outcomes: unknown[] = []
  void echo('given up', { signal: controller.signal }).catch((reason: unknown) => outcomes.push(reason))
  const kept = echo('kept')
  await settle()
  t.deepEqual(outcomes, [])
  controller.abort('mine')
  void echo('too late', { signal: controller.signal }).catch((reason: unknown) => outcomes.push(reason))
  await settle()
  t.is(handle.state, 'launching')
  t.deepEqual(outcomes, ['mine', 'mine'])
  t.is(clock.pendingMs.length, pendingCount + 1, 'only the call that still waits has a deadline')
  platform.enclave.ready()
  t.is(await kept, 'kept')
  await settle()
  t.deepEqual(
    platform.enclave.calls.map(({ claimedArgument }) => claimedArgument),
    ['kept'],
  )
  await handle.close()
})

test('a call that is repeated at once after a death goes to the next instance', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo } = await start(platform)
  platform.enclave.onCall = () => undefined
  const lost = echo('first')
  await settle()
  platform.enclave.die()
  await platform.enclave.exited
  const later = echo('second')
  const repeated = lost.catch(() => echo('first again'))
  t.deepEqual(await Promise.all([later, repeated]), ['second', 'first again'])
  await handle.close()
})

test('one that keeps dying unanswered is launched ever more rarely, one that answered at once', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  const waits: (number | undefined)[] = []
  for (let death = 0; death < 7; death++) {
    platform.enclave.die()
    await settle()
    waits.push(clock.pendingMs[0])
    await clock.advance(clock.pendingMs[0] ?? 0)
    await settle()
  }
  t.deepEqual(waits, [undefined, 100, 200, 400, 800, 1_000, 1_000])
  t.is(platform.launched.length, 8)
  await echo()
  platform.enclave.die()
  await settle()
  t.is(platform.launched.length, 9)
  await handle.close()
})

test('a launch that fails for a passing reason is repeated', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock, events } = await start(platform)
  await echo()
  const failures: ErrorCode[] = ['ERR_KMS_UNREACHABLE', 'ERR_STORE_IO', 'ERR_LEDGER_CONFLICT']
  platform.begin = (enclave, index) => {
    const code = failures[index - 1]
    if (code === undefined) enclave.ready()
    else enclave.fail(code)
  }
  platform.enclave.die()
  await settle()
  const waiting = echo('hello')
  for (let turn = 0; turn < 3; turn++) {
    await settle()
    await clock.advance(LIMITS.backoffMaxMs)
  }
  t.is(await waiting, 'hello')
  t.is(platform.launched.length, 5)
  t.deepEqual(
    events.flatMap((event) => (event.type === 'launch-failed' ? [event.error.code] : [])),
    failures,
  )
  t.true(platform.launched.slice(1, 4).every(({ terminateCount }) => terminateCount > 0))
  await handle.close()
})

for (const code of [
  'ERR_ROLLBACK',
  'ERR_FORK',
  'ERR_STATE_LOST',
  'ERR_LEDGER_ROLLED_BACK',
  'ERR_FLOW_DESTROYED',
] as const) {
  test(`${code} is not launched against: it stops, and every call says it`, async (t) => {
    const platform = new ScriptedPlatform()
    const { handle, echo, clock, events } = await start(platform)
    await echo()
    platform.begin = (enclave) => enclave.fail(code)
    platform.enclave.die()
    await settle()
    t.is(handle.state, 'closed')
    await t.throwsAsync(echo(), { code })
    await clock.advance(1e6)
    t.is(platform.launched.length, 2)
    t.like(events.at(-1), { type: 'closed' })
    t.is((events.at(-1) as { error?: KeyriseError }).error?.code, code)
    t.deepEqual(clock.pendingMs, [])
    await handle.close()
  })
}

test('calls that wait when it stops reject with why', async (t) => {
  const platform = new ScriptedPlatform()
  const { echo } = await start(platform)
  platform.begin = () => undefined
  platform.enclave.die()
  await settle()
  const waiting = echo()
  platform.enclave.fail('ERR_ROLLBACK')
  await t.throwsAsync(waiting, { code: 'ERR_ROLLBACK' })
})

test('a call does not wait for ever for a relaunch, and says what keeps it', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  await echo()
  platform.begin = (enclave) => enclave.fail('ERR_KMS_UNREACHABLE')
  platform.enclave.die()
  await settle()
  const rejected = t.throwsAsync(echo(), { code: 'ERR_KMS_UNREACHABLE' })
  await clock.advance(LIMITS.relaunchDeadlineMs)
  await rejected
  await handle.close()
})

test('a relaunch that hangs is ended at its deadline, and tried again', async (t) => {
  const platform = new ScriptedPlatform()
  const { handle, echo, clock } = await start(platform)
  await echo()
  platform.begin = () => undefined
  platform.enclave.die()
  await settle()
  const hanging = platform.enclave
  platform.begin = (enclave) => enclave.ready()
  const waiting = echo('hello')
  await clock.advance(LIMITS.launchDeadlineMs + LIMITS.backoffMinMs)
  t.is(await waiting, 'hello')
  t.is(hanging.terminateCount, 1)
  await handle.close()
})

for (const code of ['ERR_POLICY_DENIED', 'ERR_KMS_UNTRUSTED', 'ERR_EVIDENCE_REFUSED'] as const) {
  test(`${code}, which whoever relays could say, is believed when three relaunches in a row end with it`, async (t) => {
    const platform = new ScriptedPlatform()
    const { handle, echo, clock } = await start(platform)
    await echo()
    const codes: ErrorCode[] = [code, code, 'ERR_KMS_UNREACHABLE', code, code, code]
    platform.begin = (enclave, index) => enclave.fail(codes[index - 1] ?? 'ERR_FORK')
    platform.enclave.die()
    await settle()
    t.is(handle.state, 'launching')
    for (const _ of codes) {
      await clock.advance(LIMITS.backoffMaxMs)
      await settle()
    }
    t.is(handle.state, 'closed')
    await t.throwsAsync(echo(), { code })
    t.is(platform.launched.length, 1 + codes.length)
    await handle.close()
  })
}
