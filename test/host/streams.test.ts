import test from 'ava'
import { CALLS_IN_FLIGHT_MAX, ITEM_DEADLINE_MS, STREAM_CREDIT_MAX, STREAM_WINDOW_COUNT } from '../../protocol/limits.js'
import { turns } from './in-thread.js'
import { all, launchStreaming } from './streaming.js'

test('an ECALL that yields is an async iterable: whole, in order, and nothing is called before it is read', async (t) => {
  const { ecalls, passed, seen } = await launchStreaming()
  const stream = ecalls.count(300)
  await turns()
  t.deepEqual(passed, ['out:READY'])
  t.deepEqual(
    await all(stream),
    Array.from({ length: 300 }, (_, n) => n),
  )
  t.deepEqual(await all(ecalls.list()), ['a', 'b'])
  t.deepEqual(await all(ecalls.count(0)), [])
  t.is(seen.filter((line) => line === 'count ended, aborted false').length, 2)
})

test('what a host streams in arrives whole and in order', async (t) => {
  const { ecalls } = await launchStreaming()
  t.is(await ecalls.sum(undefined, { items: Array.from({ length: 500 }, (_, n) => n) }), 124_750)
  t.is(await ecalls.sum(undefined, { items: [] }), 0)
  const generated = (async function* () {
    for (let n = 1; n <= 3; n++) yield await Promise.resolve(n)
  })()
  t.is(await ecalls.sum(undefined, { items: generated }), 6)
})

test('a call may stream both ways at once', async (t) => {
  const { ecalls } = await launchStreaming()
  const items = Array.from({ length: 300 }, (_, n) => n)
  t.deepEqual(
    await all(ecalls.double(undefined, { items })),
    items.map((n) => 2 * n),
  )
})

test('an OCALL may yield, and a handler that breaks ends the host’s source', async (t) => {
  const ended: string[] = []
  const { ecalls } = await launchStreaming({
    rows: async function* (count) {
      try {
        for (let n = 0; n < count; n++) yield await Promise.resolve(n)
      } finally {
        ended.push('source')
      }
    },
  })
  t.is(await ecalls.ask(100), 45)
  t.is(await ecalls.ask(3), 6)
  await turns()
  t.deepEqual(ended, ['source', 'source'])
})

test('an OCALL that yields fails where its answers are not what the schema says, or its source fails', async (t) => {
  const wrong: Record<string, unknown> = {
    'of another type': ['text'],
    'too large for the declared limit': [[1, 2, 3]],
    'no stream': 7,
    'a source that fails': (function* () {
      yield 1
      throw new Error('of the host')
    })(),
  }
  for (const [what, answer] of Object.entries(wrong)) {
    const { ecalls } = await launchStreaming({ rows: () => answer })
    const code = what.startsWith('no') || what.startsWith('a') ? 'ERR_OCALL_FAILED' : 'ERR_REPLY_INVALID'
    await t.throwsAsync(ecalls.ask(1), { code }, what)
  }
})

test('an OCALL’s item that does not come fails at the declared deadline, and its source is given up', async (t) => {
  let signal: AbortSignal | undefined
  const { ecalls, clock } = await launchStreaming({
    limits: { callDeadlineMs: 10_000 },
    rows: ((_count: number, context: { signal: AbortSignal }) => {
      ;({ signal } = context)
      return { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) }
    }) as (count: number) => unknown,
  })
  const failed = t.throwsAsync(ecalls.ask(1), { code: 'ERR_DEADLINE' })
  await turns()
  await clock.advance(1000)
  await failed
  t.true(signal?.aborted)
})

test('a consumer that breaks ends the enclave’s generator, whose finally runs, and no answer comes', async (t) => {
  const { ecalls, seen, answers } = await launchStreaming()
  for await (const n of ecalls.count(1_000_000)) if (n === 3) break
  await turns()
  t.is(seen.at(-1), 'count ended, aborted true')
  t.true(seen.length <= STREAM_WINDOW_COUNT + 2)
  t.is(answers.filter((message) => (message as { type: string }).type === 'RAW').length, 0)
  t.is(await ecalls.echo(1), 1)
})

test('a handler that takes no more items ends the host’s source, and still answers', async (t) => {
  const ended: string[] = []
  const { ecalls, release } = await launchStreaming()
  const source = (async function* () {
    try {
      for (let n = 7; ; n++) yield await Promise.resolve(n)
    } finally {
      ended.push('source')
    }
  })()
  release()
  t.is(await ecalls.first(undefined, { items: source }), 7)
  await turns()
  t.deepEqual(ended, ['source'])
})

test('a handler that fails gives its code after the items before it', async (t) => {
  const { ecalls } = await launchStreaming()
  const expected = { refuse: 'ERR_APPLICATION', bug: 'ERR_ENCLAVE_FAILED', type: 'ERR_REPLY_INVALID' }
  for (const [how, code] of Object.entries(expected)) {
    const stream = ecalls.failing(how)
    t.deepEqual(await stream.next(), { done: false, value: 1 })
    const error = await t.throwsAsync(stream.next(), { code })
    t.false(error.message.includes('secret'))
    t.deepEqual(await stream.next(), { done: true, value: undefined })
  }
  await t.throwsAsync(all(ecalls.none()), { code: 'ERR_ENCLAVE_FAILED' })
})

test('a host’s source that fails rejects the call with its own error, and the enclave’s handler hears of it', async (t) => {
  const { ecalls, passed } = await launchStreaming()
  const mine = new RangeError('of the host')
  const source = (function* () {
    yield 1
    throw mine
  })()
  t.is(await t.throwsAsync(ecalls.sum(undefined, { items: source })), mine)
  t.is(passed.at(-1), 'in:CANCEL')
  await turns()
  t.is(await ecalls.echo(1), 1)
})

test('an item that cannot cross rejects the call', async (t) => {
  const { ecalls } = await launchStreaming()
  const items = [1, (() => 1) as unknown as number]
  await t.throwsAsync(ecalls.sum(undefined, { items }), { code: 'ERR_VALUE_UNSUPPORTED' })
  await t.throwsAsync(ecalls.sum(undefined, { items: ['text' as unknown as number] }), { code: 'ERR_ARGUMENT_INVALID' })
})

test('when the enclave dies, every stream ends with ERR_ENCLAVE_LOST, after what had come', async (t) => {
  const { ecalls, kill, release } = await launchStreaming()
  const out = ecalls.count(1_000_000)
  t.deepEqual(await out.next(), { done: false, value: 0 })
  let isReturned = false
  const source = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<IteratorResult<number>>(() => undefined),
      return: () => {
        isReturned = true
        return Promise.resolve({ done: true as const, value: undefined })
      },
    }),
  }
  const into = t.throwsAsync(ecalls.sum(undefined, { items: source }), { code: 'ERR_ENCLAVE_LOST' })
  const both = t.throwsAsync(ecalls.double(undefined, { items: source }).next(), { code: 'ERR_ENCLAVE_LOST' })
  const waiting = t.throwsAsync(all(out), { code: 'ERR_ENCLAVE_LOST' })
  await turns()
  kill()
  await Promise.all([into, both, waiting])
  t.true(isReturned)
  release()
  t.is(await ecalls.echo(2), 2)
})

test('a stream’s deadline is for each item, while the host waits for one', async (t) => {
  const { ecalls, clock, passed } = await launchStreaming()
  const stream = ecalls.count(1_000_000)
  await stream.next()
  await clock.advance(60_000)
  t.deepEqual(await stream.next(), { done: false, value: 1 }, 'a slow consumer is its own affair')
  await stream.return?.()
  let next: (item: IteratorResult<number>) => void = () => undefined
  const slow = {
    [Symbol.asyncIterator]: () => ({ next: () => new Promise<IteratorResult<number>>((r) => (next = r)) }),
  }
  const sum = ecalls.sum(undefined, { items: slow })
  await turns()
  await clock.advance(60_000)
  next({ done: true, value: undefined })
  t.is(await sum, 0, 'and so is a slow source')
  const hanging = ecalls.first(undefined, { items: [1], deadlineMs: 500 })
  const failed = t.throwsAsync(hanging, { code: 'ERR_DEADLINE' })
  await turns()
  await clock.advance(499)
  t.not(passed.at(-1), 'in:CANCEL')
  await clock.advance(1)
  await failed
  t.is(passed.at(-1), 'in:CANCEL')
})

test('an enclave does not wait for ever for an item', async (t) => {
  const { ecalls, clock } = await launchStreaming()
  const never = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => undefined) }) }
  const failed = t.throwsAsync(ecalls.sum(undefined, { items: never }), { code: 'ERR_DEADLINE' })
  await turns()
  await clock.advance(ITEM_DEADLINE_MS)
  await failed
})

test('an abort rejects at once with the signal’s reason, and the handler’s signal is aborted', async (t) => {
  const { ecalls, seen, passed, release, answers } = await launchStreaming()
  const controller = new AbortController()
  const hanging = ecalls.hang(undefined, { signal: controller.signal })
  await turns()
  controller.abort(new RangeError('mine'))
  await t.throwsAsync(hanging, { instanceOf: RangeError })
  t.is(passed.at(-1), 'in:CANCEL')
  await turns()
  t.deepEqual(seen, ['aborted'])
  const count = answers.length
  release()
  await turns()
  t.is(answers.length, count, 'nothing is answered afterwards')
  await t.throwsAsync(ecalls.hang(undefined, { signal: AbortSignal.abort('early') }), { any: true })
  t.is(answers.length, count)
})

test('a call that is given up keeps its place until its handler has ended', async (t) => {
  const { ecalls, release } = await launchStreaming()
  for (let n = 0; n < 2; n++) {
    const controller = new AbortController()
    const hanging = ecalls.hang(undefined, { signal: controller.signal })
    await turns()
    controller.abort()
    await t.throwsAsync(hanging, { any: true })
  }
  await t.throwsAsync(ecalls.hang(), { code: 'ERR_CALLS_LIMIT' })
  release()
  await turns()
  t.is(await ecalls.hang(), 'released, aborted false')
})

test('of an ECALL as many calls are in flight as it declares: one more is refused, while another ECALL serves', async (t) => {
  const { ecalls, release } = await launchStreaming()
  const held = [ecalls.hang(), ecalls.hang()]
  const refused = ecalls.hang().catch((error: unknown) => error)
  t.is(await ecalls.echo('other'), 'other')
  await turns()
  release()
  t.like(await refused, { code: 'ERR_CALLS_LIMIT' })
  t.deepEqual(await Promise.all(held), ['released, aborted false', 'released, aborted false'])
  t.is(await ecalls.hang(), 'released, aborted false')
})

test('an abort ends a stream, and a call that waits for its turn is not made', async (t) => {
  const { ecalls, seen } = await launchStreaming()
  const controller = new AbortController()
  const stream = ecalls.count(1_000_000, { signal: controller.signal })
  await stream.next()
  controller.abort('enough')
  t.is(await stream.next().catch((error: unknown) => error), 'enough')
  await turns()
  t.is(seen.at(-1), 'count ended, aborted true')
})

test('a deadline of the call’s own is heeded, and gives the call up', async (t) => {
  const { ecalls, clock, seen } = await launchStreaming()
  const failed = t.throwsAsync(ecalls.hang(undefined, { deadlineMs: 10 }), { code: 'ERR_DEADLINE' })
  await turns()
  await clock.advance(10)
  await failed
  await turns()
  t.deepEqual(seen, ['aborted'])
})

test('options that the declaration does not allow are refused before anything is posted', async (t) => {
  const { ecalls, passed } = await launchStreaming()
  const untyped = ecalls as unknown as Record<string, (...given: unknown[]) => AsyncIterable<unknown>>
  t.throws(() => untyped['sum']?.(undefined), { instanceOf: TypeError })
  t.throws(() => untyped['sum']?.(undefined, { items: 'text' }), { instanceOf: TypeError })
  t.throws(() => untyped['count']?.(1, { items: [1] }), { instanceOf: TypeError })
  t.throws(() => untyped['count']?.(1, { idempotencyKey: 'k' }), { instanceOf: TypeError })
  for (const idempotencyKey of ['', 'x'.repeat(129), 'ж', 'a\n'])
    await t.throwsAsync(ecalls.echo(1, { idempotencyKey }), { code: 'ERR_MESSAGE_INVALID' })
  t.deepEqual(passed, ['out:READY'])
})

test('a hostile host’s stream messages are refused or ignored, and the enclave serves on', async (t) => {
  const { ecalls, post, answers, seen } = await launchStreaming()
  const apply = (id: string, name: string, value?: unknown, more: object = {}) =>
    post({
      id,
      type: 'APPLY',
      path: [name],
      argumentList: value === undefined ? [] : [{ type: 'RAW', value }],
      ...more,
    })
  const codeOf = async (id: string): Promise<unknown> => {
    await turns()
    const answer = answers.find((message) => (message as { id?: unknown }).id === id && typeIn(message) !== 'CREDIT')
    return typeIn(answer) === 'HANDLER'
      ? (answer as { value: { value: { code: string } } }).value.value.code
      : typeIn(answer)
  }
  const typeIn = (message: unknown): unknown => (message as { type?: unknown } | undefined)?.type

  for (const type of ['ITEM', 'END', 'CREDIT', 'CANCEL']) {
    post({ id: 'nobody', type, value: 1, count: 1 })
    post({ id: '__proto__', type, value: 1, count: 1 })
    post({ type, value: 1, count: 1 })
  }
  for (const [index, count] of [0, -1, 1.5, '1', null, undefined, 2 ** 53, STREAM_CREDIT_MAX + 1].entries()) {
    apply(`credit-${index}`, 'count', 5)
    post({ id: `credit-${index}`, type: 'CREDIT', count })
    t.is(await codeOf(`credit-${index}`), 'ERR_MESSAGE_INVALID', String(count))
  }
  apply('early', 'idle')
  post({ id: 'early', type: 'ITEM', value: 1 })
  t.is(await codeOf('early'), 'CANCEL')
  apply('many', 'first')
  await turns()
  for (let n = 0; n <= STREAM_WINDOW_COUNT; n++) post({ id: 'many', type: 'ITEM', value: 1 })
  t.is(await codeOf('many'), 'CANCEL')
  apply('shared', 'sum')
  await turns()
  post({ id: 'shared', type: 'ITEM', value: new Uint8Array(new SharedArrayBuffer(4)) })
  t.is(await codeOf('shared'), 'CANCEL')
  apply('ends', 'sum')
  await turns()
  for (const type of ['END', 'END', 'ITEM', 'CREDIT']) post({ id: 'ends', type, value: 1, count: 1 })
  t.is(await codeOf('ends'), 'RAW')
  apply('twice', 'first')
  apply('twice', 'first')
  t.is(await codeOf('twice'), 'ERR_MESSAGE_INVALID')
  apply('keyed', 'count', 1, { key: 'k' })
  t.is(await codeOf('keyed'), 'ERR_MESSAGE_INVALID')
  for (const [index, key] of ['', 7, 'ж', 'x'.repeat(129), { toString: 'k' }].entries()) {
    apply(`key-${index}`, 'echo', 1, { key })
    t.is(await codeOf(`key-${index}`), 'ERR_MESSAGE_INVALID')
  }
  for (let n = 0; n < 2 * CALLS_IN_FLIGHT_MAX; n++) post({ id: `flood-${n}`, type: 'CANCEL' })
  await turns()
  t.is(await ecalls.echo('alive'), 'alive')
  t.false(seen.includes('aborted'))
})
