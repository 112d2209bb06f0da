import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { SimulatedClock } from '../../faults/index.js'
import { KeyriseError } from '../../protocol/errors.js'
import { STREAM_CREDIT_MAX, STREAM_WINDOW_COUNT, STREAM_WINDOW_SIZE_BYTES } from '../../protocol/limits.js'
import { StreamReceiver } from '../../protocol/stream-receiver.js'
import { isSource, StreamSender, type Source, type SourceEnd } from '../../protocol/stream-sender.js'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A receiver whose sender is the test: what it granted, and how it was cancelled. */
const receiver = (read: (value: unknown) => unknown = (value) => value) => {
  const clock = new SimulatedClock()
  const seen = { granted: [] as number[], cancelled: [] as unknown[] }
  const stream = new StreamReceiver({
    grant: (count) => seen.granted.push(count),
    cancel: (error) => seen.cancelled.push(error instanceof KeyriseError ? error.code : error),
    read,
    clock,
    deadlineMs: 1000,
  })
  return { stream, clock, seen }
}

/** A sender whose receiver is the test: what it sent, and how its source ended. */
const sender = (source: Source, sizeBytes = 1) => {
  const sent: unknown[] = []
  const stream = new StreamSender((value) => {
    if (value === 'refused') throw new KeyriseError('ERR_VALUE_UNSUPPORTED')
    sent.push(value)
    return sizeBytes
  })
  const seen: { end?: SourceEnd } = {}
  const ended = stream.run(source).then((end) => (seen.end = end))
  return { stream, sent, ended, seen }
}

/** Counts from 0, and notes that its `finally` ran. */
const counting = (to = Infinity) => {
  const state = { pulled: 0, finished: false }
  const source = (async function* () {
    try {
      for (let n = 0; n < to; n++) {
        state.pulled++
        yield await Promise.resolve(n)
      }
    } finally {
      state.finished = true
    }
  })()
  return { source, state }
}

/** Both ends, joined: what is posted arrives a turn later. */
const joined = (source: Source, sizeBytes = 1) => {
  const clock = new SimulatedClock()
  const state = { onTheWay: 0, onTheWayMax: 0, sizeBytesMax: 0, credits: 0 }
  const receiving = new StreamReceiver({
    grant: (count) => {
      state.credits++
      setImmediate(() => sending.credit(count))
    },
    cancel: () => setImmediate(() => sending.stop()),
    read: (value) => {
      state.onTheWay--
      return value
    },
    clock,
    deadlineMs: 1000,
  })
  const sending = new StreamSender((value) => {
    state.onTheWayMax = Math.max(state.onTheWayMax, ++state.onTheWay)
    setImmediate(() => receiving.item(value, sizeBytes))
    return Promise.resolve(sizeBytes)
  })
  const ended = sending.run(source).then((end) => {
    setImmediate(() => receiving.end(end.kind === 'failed' ? { error: end.error } : {}))
    return end
  })
  return { receiving, sending, ended, state }
}

const all = async (stream: AsyncIterable<unknown>): Promise<unknown[]> => {
  const items: unknown[] = []
  for await (const item of stream) items.push(item)
  return items
}

test('a stream arrives whole, in order, and no more than a window is ever on its way', async (t) => {
  for (const count of [0, 1, STREAM_WINDOW_COUNT - 1, STREAM_WINDOW_COUNT, STREAM_WINDOW_COUNT + 1, 1000]) {
    const { source, state } = counting(count)
    const pair = joined(source)
    t.deepEqual(
      await all(pair.receiving),
      Array.from({ length: count }, (_, n) => n),
    )
    t.deepEqual(await pair.ended, { kind: 'complete' })
    t.true(pair.state.onTheWayMax <= STREAM_WINDOW_COUNT && state.finished)
  }
})

test('items as large as the window travel one or two at a time, and still all arrive', async (t) => {
  const pair = joined(counting(20).source, STREAM_WINDOW_SIZE_BYTES)
  t.is((await all(pair.receiving)).length, 20)
  t.is(pair.state.onTheWayMax, 1)
  const halves = joined(counting(20).source, STREAM_WINDOW_SIZE_BYTES / 2)
  t.is((await all(halves.receiving)).length, 20)
  t.is(halves.state.onTheWayMax, 2)
})

test('small items cost one credit message for half a window', async (t) => {
  const pair = joined(counting(10 * STREAM_WINDOW_COUNT).source)
  await all(pair.receiving)
  t.true(pair.state.credits <= 21, String(pair.state.credits))
})

test('arrays and plain iterables stream as generators do; text is no stream', async (t) => {
  t.deepEqual(await all(joined(['a', 'b']).receiving), ['a', 'b'])
  t.deepEqual(await all(joined(new Set([1, 2])).receiving), [1, 2])
  for (const value of ['text', 1, null, undefined, {}, () => []]) t.false(isSource(value))
})

test('nothing is pulled before the consumer asks, and nothing beyond the window while it is busy', async (t) => {
  const { source, state } = counting()
  const { receiving } = joined(source)
  await turn()
  t.is(state.pulled, 0)
  await receiving.next()
  for (let turns = 0; turns < 500; turns++) await turn()
  t.is(state.pulled, STREAM_WINDOW_COUNT)
  await receiving.return()
})

test('a consumer that breaks stops the producer, whose finally runs', async (t) => {
  const { source, state } = counting()
  const { receiving, ended } = joined(source)
  for await (const item of receiving) if (item === 3) break
  t.deepEqual(await ended, { kind: 'stopped' })
  t.true(state.finished)
  t.deepEqual(await receiving.next(), { done: true, value: undefined })
})

test('a producer that throws gives its error after the items before it', async (t) => {
  const failing = (async function* () {
    yield 1
    yield await Promise.resolve(2)
    throw new KeyriseError('ERR_STORE_FULL')
  })()
  const { receiving, ended } = joined(failing)
  t.deepEqual(await receiving.next(), { done: false, value: 1 })
  t.deepEqual(await receiving.next(), { done: false, value: 2 })
  await t.throwsAsync(receiving.next(), { code: 'ERR_STORE_FULL' })
  t.is((await ended).kind, 'failed')
  t.deepEqual(await receiving.next(), { done: true, value: undefined })
})

test('an item that cannot cross ends the producer, whose finally runs', async (t) => {
  const state = { finished: false }
  const source = (function* () {
    try {
      yield 1
      yield 'refused'
      yield 2
    } finally {
      state.finished = true
    }
  })()
  const { stream, sent, ended } = sender(source)
  stream.credit(10)
  t.like(await ended, { kind: 'failed', error: { code: 'ERR_VALUE_UNSUPPORTED' } })
  t.deepEqual(sent, [1])
  t.true(state.finished)
})

test('a sender stopped while its source waits tells the source at once, and is over when the source is', async (t) => {
  const state = { returned: 0 }
  let release: (result: IteratorResult<unknown>) => void = () => undefined
  const source = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<IteratorResult<unknown>>((resolve) => (release = resolve)),
      return: () => {
        state.returned++
        return Promise.resolve({ done: true as const, value: undefined })
      },
    }),
  }
  const { stream, sent, ended, seen } = sender(source)
  stream.credit(1)
  await turn()
  stream.stop()
  stream.stop()
  await turn()
  t.is(state.returned, 1)
  t.is(seen.end, undefined)
  release({ done: false, value: 'too late' })
  t.deepEqual(await ended, { kind: 'stopped' })
  t.deepEqual(sent, [])
})

test('a sender stopped before it has credit never opens its source', async (t) => {
  const source = {
    [Symbol.iterator]: (): never => {
      throw new Error('opened')
    },
  }
  const { stream, ended } = sender(source)
  stream.stop()
  t.deepEqual(await ended, { kind: 'stopped' })
})

test('what a source throws while it is being stopped is nobody’s', async (t) => {
  const source = (async function* () {
    try {
      for (;;) yield await Promise.resolve(1)
    } finally {
      throw new Error('in finally')
    }
  })()
  const { stream, ended } = sender(source)
  stream.credit(2)
  await turn()
  stream.stop()
  t.deepEqual(await ended, { kind: 'stopped' })
})

test('credit that is none is refused, and changes nothing', async (t) => {
  const { stream, sent } = sender(counting().source)
  for (const count of [0, -1, 1.5, NaN, Infinity, '1', null, undefined, [1], 2 ** 53, STREAM_CREDIT_MAX + 1])
    t.throws(() => stream.credit(count), { code: 'ERR_MESSAGE_INVALID' })
  await turn()
  t.deepEqual(sent, [])
  stream.credit(STREAM_CREDIT_MAX - 1)
  t.throws(() => stream.credit(2), { code: 'ERR_MESSAGE_INVALID' })
  stream.stop()
})

test('a sender never sends beyond its credit', async (t) => {
  const { stream, sent } = sender(counting().source)
  for (let total = 1; total <= 9; total += 2) {
    stream.credit(total === 1 ? 1 : 2)
    for (let turns = 0; turns < 20; turns++) await turn()
    t.is(sent.length, total)
  }
  stream.stop()
})

test('an item that nobody asked for ends the stream, and cancels it', async (t) => {
  const before = receiver()
  before.stream.item('early', 1)
  t.deepEqual(before.seen.cancelled, ['ERR_MESSAGE_INVALID'])
  await t.throwsAsync(before.stream.next(), { code: 'ERR_MESSAGE_INVALID' })
  t.deepEqual(await before.stream.next(), { done: true, value: undefined })

  const beyond = receiver()
  const first = beyond.stream.next()
  for (let n = 0; n <= STREAM_WINDOW_COUNT; n++) beyond.stream.item(n, 1)
  t.deepEqual(await first, { done: false, value: 0 })
  t.deepEqual(beyond.seen.granted, [STREAM_WINDOW_COUNT])
  t.deepEqual(beyond.seen.cancelled, ['ERR_MESSAGE_INVALID'])
  await t.throwsAsync(beyond.stream.next(), { code: 'ERR_MESSAGE_INVALID' })
})

test('a sender that ignores the bytes of the window is refused before many wait here', async (t) => {
  const { stream, seen } = receiver()
  const first = stream.next()
  let count = 0
  for (; seen.cancelled.length === 0 && count < STREAM_WINDOW_COUNT; count++)
    stream.item('large', STREAM_WINDOW_SIZE_BYTES)
  // The first was handed over, four wait, and the next is one too many.
  t.is(count, 6)
  await first
  await t.throwsAsync(stream.next(), { code: 'ERR_MESSAGE_INVALID' })
})

test('what comes after the end changes nothing', async (t) => {
  const { stream, seen } = receiver()
  const first = stream.next()
  stream.item('a', 1)
  stream.item('b', 1)
  stream.end()
  stream.end({ error: new KeyriseError('ERR_STORE_FULL') })
  stream.item('c', 1)
  stream.refuse(new KeyriseError('ERR_SIZE_LIMIT'))
  t.deepEqual(await first, { done: false, value: 'a' })
  t.deepEqual(await all(stream), ['b'])
  t.deepEqual(seen.cancelled, [])
})

test('several that wait at once get the items in order, then the error once', async (t) => {
  const { stream } = receiver()
  const waiting = [stream.next(), stream.next(), stream.next(), stream.next()]
  stream.item('a', 1)
  stream.item('b', 1)
  stream.end({ error: new KeyriseError('ERR_STORE_FULL') })
  const settled = await Promise.allSettled(waiting)
  t.deepEqual(
    settled.map((result) => (result.status === 'rejected' ? (result.reason as KeyriseError).code : result.value.value)),
    ['a', 'b', 'ERR_STORE_FULL', undefined],
  )
})

test('an item that the schema refuses ends the stream and cancels it with its code', async (t) => {
  const { stream, seen } = receiver((value) => {
    if (value === 'bad') throw new KeyriseError('ERR_ARGUMENT_INVALID')
    return Promise.resolve(value)
  })
  const first = stream.next()
  for (const value of ['good', 'bad', 'good']) stream.item(value, 1)
  t.deepEqual(await first, { done: false, value: 'good' })
  await t.throwsAsync(stream.next(), { code: 'ERR_ARGUMENT_INVALID' })
  t.deepEqual(seen.cancelled, ['ERR_ARGUMENT_INVALID'])
  t.deepEqual(await stream.next(), { done: true, value: undefined })
})

test('the deadline is for one item while the consumer waits for it', async (t) => {
  const { stream, seen, clock } = receiver()
  const first = stream.next()
  await clock.advance(999)
  stream.item('a', 1)
  t.deepEqual(await first, { done: false, value: 'a' })
  t.deepEqual(clock.pendingMs, [], 'a consumer that is busy has no deadline')
  await clock.advance(5000)
  const second = stream.next()
  await clock.advance(999)
  t.deepEqual(seen.cancelled, [])
  const failed = t.throwsAsync(second, { code: 'ERR_DEADLINE' })
  await clock.advance(1)
  await failed
  t.deepEqual(seen.cancelled, ['ERR_DEADLINE'])
})

test('a consumer that breaks drops what waits, cancels once, and leaves no timer', async (t) => {
  const { stream, seen, clock } = receiver()
  const waiting = [stream.next(), stream.next()]
  stream.item('a', 1)
  await stream.return()
  await stream.return()
  t.deepEqual(await Promise.all(waiting), [
    { done: false, value: 'a' },
    { done: true, value: undefined },
  ])
  t.deepEqual(seen.cancelled, [undefined])
  t.deepEqual(clock.pendingMs, [])
})

test('whatever a hostile sender does, no more than a window waits and every next settles', async (t) => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('item' as const), sizeBytes: fc.nat(2 * STREAM_WINDOW_SIZE_BYTES) }),
    fc.record({
      do: fc.constantFrom('next' as const, 'next' as const, 'return' as const, 'end' as const, 'fail' as const),
    }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 300 }), async (steps) => {
      await attack(t, steps)
    }),
    { numRuns: 300 },
  )
})

type Step = { do: 'item'; sizeBytes: number } | { do: 'next' | 'return' | 'end' | 'fail' }

/** A model of what may be handed over: items within what was granted, in order, up to the end. */
const attack = async (t: ExecutionContext, steps: readonly Step[]): Promise<void> => {
  const { stream, seen } = receiver()
  const asked: Promise<IteratorResult<unknown>>[] = []
  let sent = 0
  for (const { do: what, ...rest } of steps) {
    if (what === 'item') stream.item(sent++, 'sizeBytes' in rest ? rest.sizeBytes : 0)
    else if (what === 'next') asked.push(stream.next())
    else if (what === 'return') void stream.return()
    else stream.end(what === 'fail' ? { error: new KeyriseError('ERR_STORE_FULL') } : {})
  }
  stream.end()
  const settled = await Promise.allSettled(asked)
  const values = settled.flatMap((result) =>
    result.status === 'fulfilled' && result.value.done !== true ? [result.value.value] : [],
  )
  t.deepEqual(
    values,
    values.map((_, index) => index),
  )
  t.true(values.length <= seen.granted.reduce((sum, count) => sum + count, 0))
  t.true(seen.cancelled.length <= 1)
}
