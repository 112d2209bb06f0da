import test from 'ava'
import { OutgoingCalls } from '../../enclave/ocalls.js'
import { hostKms, hostSegments, hostStore } from '../../enclave/host-services.js'
import { portPair, SimulatedClock } from '../../faults/index.js'
import { parseCall } from '../../protocol/calls.js'
import { ISOLATIONS } from '../../protocol/configuration.js'
import { DELIVERED_SEGMENT_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import type { ClaimedCall, Port } from '../../protocol/ports.js'
import { buildTarget, Host, launchTarget, withPlatform } from './target.js'

/** Calls with the other end of their port: a host that answers what it likes, when it likes. */
const setUp = () => {
  const [inside, outside] = portPair()
  const clock = new SimulatedClock()
  const calls: ClaimedCall[] = []
  let wake = () => {}
  outside.onMessage((message) => {
    calls.push(parseCall(message))
    wake()
  })
  const next = async (): Promise<ClaimedCall> => {
    while (calls.length === 0) await new Promise<void>((resolve) => (wake = resolve))
    return calls.shift() as ClaimedCall
  }
  return { outgoing: new OutgoingCalls(inside, clock), outside, clock, next }
}

const OPTIONS = {
  deadlineMs: 1000,
  limits: { sizeBytesMax: 1000 },
  codes: ['ERR_OCALL_UNKNOWN'],
  otherwise: 'ERR_OCALL_FAILED',
} as const
const turn = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
const raw = (port: Port, id: unknown, value: unknown) => port.post({ id, type: 'RAW', value })

test('a reply counts once, for a call in flight', async (t) => {
  const { outgoing, outside, next } = setUp()
  const first = outgoing.call('ask', 1, OPTIONS)
  const { id } = await next()
  for (const other of ['99', '', 7, null, `${id}0`, '__proto__', 'constructor', [id]]) raw(outside, other, 'for nobody')
  raw(outside, id, 'first')
  raw(outside, id, 'again')
  t.is(await first, 'first')
  const second = outgoing.call('ask', 2, OPTIONS)
  raw(outside, id, 'stale')
  raw(outside, (await next()).id, 'second')
  t.is(await second, 'second')
})

test('calls that were answered no longer count as in flight', async (t) => {
  const { outgoing, outside, next } = setUp()
  for (let count = 0; count < 1100; count++) {
    const call = outgoing.call('ask', count, OPTIONS)
    raw(outside, (await next()).id, count)
    t.is(await call, count)
  }
})

test('replies out of order reach their own calls', async (t) => {
  const { outgoing, outside, next } = setUp()
  const both = [outgoing.call('ask', 'a', OPTIONS), outgoing.call('ask', 'b', OPTIONS)]
  const [a, b] = [await next(), await next()]
  raw(outside, b.id, b.claimedArgument)
  raw(outside, a.id, a.claimedArgument)
  t.deepEqual(await Promise.all(both), ['a', 'b'])
})

test('a call that is not answered fails at its deadline, and a late answer changes nothing', async (t) => {
  const { outgoing, outside, clock, next } = setUp()
  const call = outgoing.call('ask', 1, OPTIONS)
  const { id } = await next()
  const failed = t.throwsAsync(call, { code: 'ERR_DEADLINE' })
  await clock.advance(999)
  t.deepEqual(clock.pendingMs, [1])
  await clock.advance(1)
  await failed
  raw(outside, id, 'late')
  await turn()
  t.deepEqual(clock.pendingMs, [])
})

for (const [what, value] of Object.entries({
  'of another type': new Date(0),
  'that is too large': new Uint8Array(1001),
  'in shared memory': new Uint8Array(new SharedArrayBuffer(4)),
})) {
  test(`a reply ${what} is refused`, async (t) => {
    const { outgoing, outside, next } = setUp()
    const call = outgoing.call('ask', 1, OPTIONS)
    raw(outside, (await next()).id, value)
    await t.throwsAsync(call, { code: 'ERR_REPLY_INVALID' })
  })
}

test('of a host’s errors only those expected of it are believed', async (t) => {
  const { outgoing, outside, next } = setUp()
  const answer = async (code: unknown, expected: string) => {
    const call = outgoing.call('ask', 1, OPTIONS)
    const { id } = await next()
    outside.post({
      id,
      type: 'HANDLER',
      name: 'throw',
      value: { isError: true, value: { code, message: 'ignore me', reason: 'x' } },
    })
    await t.throwsAsync(call, { code: expected })
  }
  await answer('ERR_OCALL_UNKNOWN', 'ERR_OCALL_UNKNOWN')
  for (const code of ['ERR_ROLLBACK', 'ERR_FENCED', 'ERR_NOTHING', 'toString', 7, undefined])
    await answer(code, 'ERR_OCALL_FAILED')
})

test('messages that are no reply are ignored', async (t) => {
  const { outgoing, outside, next } = setUp()
  const call = outgoing.call('ask', 1, OPTIONS)
  const { id } = await next()
  for (const message of [
    null,
    1,
    'x',
    [],
    { id },
    { id, type: 'APPLY' },
    { id, type: 'HANDLER', name: 'proxy', value: 1 },
    { id, type: 'HANDLER', name: 'throw', value: { isError: false, value: 1 } },
  ])
    outside.post(message)
  raw(outside, id, 'answer')
  t.is(await call, 'answer')
})

test('the store’s answers are checked for shape', async (t) => {
  const { outgoing, outside, next } = setUp()
  const store = hostStore(outgoing)
  const answered = async (call: Promise<unknown>, value: unknown) => {
    raw(outside, (await next()).id, value)
    return call
  }
  t.is(await answered(store.get('f/a'), null), undefined)
  t.deepEqual(await answered(store.get('f/a'), new Uint8Array([1])), new Uint8Array([1]))
  for (const value of ['text', 1, [], undefined, {}])
    await t.throwsAsync(answered(store.get('f/a'), value), { code: 'ERR_STORE_IO' })
  t.deepEqual(await answered(store.read('f/a', 0, 2), new Uint8Array([1, 2])), new Uint8Array([1, 2]))
  for (const value of ['text', undefined, new Uint8Array(3)])
    await t.throwsAsync(answered(store.read('f/a', 0, 2), value), { code: 'ERR_STORE_IO' })
  t.deepEqual(await answered(store.list('f/'), ['f/b', 'f/a', 'f/a', 'g/c']), ['f/a', 'f/b'])
  for (const value of ['f/a', null, { length: 1 }, ['f/../../x'], ['f/a', 1]])
    await t.throwsAsync(answered(store.list('f/'), value), { code: 'ERR_STORE_IO' })
})

test('the KMS’s answers are bytes, or it is unreachable', async (t) => {
  const { outgoing, outside, clock, next } = setUp()
  const kms = hostKms(outgoing)
  const silent = t.throwsAsync(kms.exchange(new Uint8Array(1)), { code: 'ERR_KMS_UNREACHABLE' })
  await next()
  await clock.advance(60_000)
  await silent
  for (const value of ['text', null, [1]]) {
    const call = kms.exchange(new Uint8Array(1))
    raw(outside, (await next()).id, value)
    await t.throwsAsync(call, { code: 'ERR_KMS_UNREACHABLE' })
  }
})

test('a segment’s answer is bytes of bounded size in memory of its own, or a code that a KMS or a store says', async (t) => {
  const { outgoing, outside, clock, next } = setUp()
  const segments = hostSegments(outgoing)
  const request = { name: 'f/a.payload', offset: 16, sizeBytes: 40, stream: new Uint8Array(16), index: 0 }
  const answered = async (value: unknown) => {
    const call = segments.exchange(request)
    const { id, claimedArgument } = await next()
    t.deepEqual(claimedArgument, request)
    raw(outside, id, value)
    return call
  }
  t.deepEqual(
    await answered(new Uint8Array(DELIVERED_SEGMENT_SIZE_BYTES_MAX)).then((bytes) => bytes?.length),
    DELIVERED_SEGMENT_SIZE_BYTES_MAX,
  )
  t.is(await answered(null), undefined)
  for (const value of [
    'text',
    1,
    [],
    undefined,
    {},
    new Uint8Array(DELIVERED_SEGMENT_SIZE_BYTES_MAX + 1),
    new Uint8Array(new SharedArrayBuffer(40)),
  ])
    await t.throwsAsync(answered(value), { code: 'ERR_KMS_FAILED' })
  const refused = async (code: unknown, expected: string) => {
    const call = segments.exchange(request)
    outside.post({
      id: (await next()).id,
      type: 'HANDLER',
      name: 'throw',
      value: { isError: true, value: { code, message: 'ignore me' } },
    })
    await t.throwsAsync(call, { code: expected })
  }
  for (const code of ['ERR_ENVELOPE_INVALID', 'ERR_SESSION_INVALID', 'ERR_CALLS_LIMIT', 'ERR_STORE_IO'])
    await refused(code, code)
  for (const code of ['ERR_FENCED', 'ERR_FLOW_DESTROYED', 'ERR_OCALL_UNKNOWN', 'x', 7])
    await refused(code, 'ERR_KMS_FAILED')
  const silent = t.throwsAsync(segments.exchange(request), { code: 'ERR_KMS_FAILED' })
  await next()
  await clock.advance(60_000)
  await silent
})

for (const isolation of ISOLATIONS) {
  test(`in a running enclave, an answer that the schema refuses fails the call and nothing else (${isolation})`, async (t) => {
    const image = await buildTarget()
    await withPlatform(async (platform) => {
      const host = new Host(launchTarget(platform, image, { isolation }))
      await host.ready()
      const refusal = { isError: true, value: { code: 'ERR_ROLLBACK', message: 'secret text' } }
      const shared: [unknown, unknown] = [
        { type: 'RAW', value: new Uint8Array(new SharedArrayBuffer(1)) },
        'ERR_REPLY_INVALID',
      ]
      const answers: [unknown, unknown][] = [
        [{ type: 'RAW', value: 'fine' }, 'fine'],
        [{ type: 'RAW', value: 'longer than ten' }, 'ERR_REPLY_INVALID'],
        [{ type: 'RAW', value: 1 }, 'ERR_REPLY_INVALID'],
        // A socket carries none.
        ...(isolation === 'worker' ? [shared] : []),
        [{ type: 'HANDLER', name: 'throw', value: refusal }, 'ERR_OCALL_FAILED'],
      ]
      for (const [answer, expected] of answers) {
        const call = host.call('consult', { question: 'why' })
        await host.answer('ask', (id) => [
          { id, ...(answer as object) },
          { id, type: 'RAW', value: 'again' },
        ])
        t.is(await call, expected)
      }
      t.is(await host.call('total'), 0)
      await host.instance.terminate()
    })
  })
}
