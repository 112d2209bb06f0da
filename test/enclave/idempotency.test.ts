import test, { type ExecutionContext } from 'ava'
import {
  decodeRecords,
  encodeRecords,
  withRecord,
  type CallRecord,
  type CallRecords,
} from '../../enclave/call-records.js'
import type { OpenedFlow } from '../../enclave/flow.js'
import type { Flow } from '../../protocol/contract.js'
import { KeyriseError } from '../../protocol/errors.js'
import { CALL_RECORD_COUNT_MAX, RECORDED_CHECKPOINT_COUNT_MAX } from '../../protocol/limits.js'
import type { EntryName } from '../../protocol/names.js'
import {
  atEveryMoment,
  atPairsOfMoments,
  dies,
  readAll,
  readText,
  startWorld,
  text,
  type Interrupt,
} from './flow-world.js'

const never = new AbortController().signal

interface Call {
  readonly key?: string
  readonly ecall?: string
  readonly argument?: unknown
  readonly signal?: AbortSignal
}

/** Makes a keyed call as the gate does. */
const call = ({ calls }: OpenedFlow, serve: (flow: Flow) => unknown, o: Call = {}): Promise<unknown> =>
  calls.run({
    key: o.key ?? 'key-1',
    ecall: o.ecall ?? 'deposit',
    argument: 'argument' in o ? o.argument : 10,
    signal: o.signal ?? never,
    serve: async (flow) => serve(flow),
  })

const numberIn = async (flow: Flow, name: EntryName): Promise<number> => {
  const bytes = await flow.read(name)
  return bytes === undefined ? 0 : Number(new TextDecoder().decode(bytes))
}

/** Reads what it changes, twice over, and answers with what it made of it: what a rerun after a crash gets wrong most easily. */
const deposit = async (flow: Flow): Promise<{ epochs: number[]; balance: number; count: number }> => {
  const balance = (await numberIn(flow, 'final-result/balance')) + 10
  const first = await flow.checkpoint({ 'final-result/balance': text(String(balance)) })
  const count = (await numberIn(flow, 'final-result/count')) + (await numberIn(flow, 'final-result/balance'))
  const second = await flow.checkpoint({ 'final-result/count': text(String(count)), 'session/last': text('x') })
  const third = await flow.delete(['session/last'])
  return { epochs: [first, second, third], balance, count }
}
const EFFECT = { 'final-result/balance': '15', 'final-result/count': '15' }

const worldWithBalance = async () => {
  const world = await startWorld()
  await (await world.launch()).flow.checkpoint({ 'final-result/balance': text('5') })
  return world
}

test('a call has its effect once, and every repetition gets the same reply, in later incarnations too', async (t) => {
  const world = await worldWithBalance()
  const opened = await world.launch()
  const reply = await call(opened, deposit)
  t.deepEqual(reply, { epochs: [3, 4, 5], balance: 15, count: 15 })
  t.is(opened.flow.epoch, 6, 'the outcome is one checkpoint more')
  const unreachable = () => t.fail('the handler ran again')
  t.deepEqual(await call(opened, unreachable), reply)
  const later = await world.launch()
  t.deepEqual(await call(later, unreachable), reply)
  t.deepEqual([await readAll(later), later.flow.epoch], [EFFECT, 6])
})

/** Calls until it is answered, each time in a new instance after a crash. */
const persist = async (
  interrupts: readonly Interrupt[],
): Promise<{ reply: unknown; state: Record<string, string | undefined>; runs: number }> => {
  const world = await worldWithBalance()
  let runs = 0
  const serve = (flow: Flow): unknown => {
    runs++
    return deposit(flow)
  }
  for (const interrupt of interrupts)
    await dies(async () => {
      await call(await world.launch({ interrupt }), serve)
    })
  const last = await world.launch()
  const reply = await call(last, serve)
  return { reply, state: await readAll(last), runs }
}

const sameAsUninterrupted = (t: ExecutionContext, { reply, state }: Awaited<ReturnType<typeof persist>>): void => {
  const { balance, count, epochs } = reply as Awaited<ReturnType<typeof deposit>>
  t.deepEqual({ balance, count }, { balance: 15, count: 15 })
  t.deepEqual(
    epochs.map((epoch) => epoch - (epochs[0] ?? 0)),
    [0, 1, 2],
  )
  t.deepEqual(state, EFFECT)
}

test('killed at any moment and repeated, a call has its effect once, and the reply of a run that nothing interrupted', async (t) => {
  const moments = await atEveryMoment(async (interrupt) => {
    sameAsUninterrupted(t, await persist([interrupt()]))
  })
  t.true(moments.length > 30, String(moments.length))
})

/** One checkpoint: fewer moments, so that two deaths can be combined. */
const increment = async (flow: Flow): Promise<string> => {
  const balance = (await numberIn(flow, 'final-result/balance')) + 10
  await flow.checkpoint({ 'final-result/balance': text(String(balance)) })
  return String(balance)
}

test('killed at any moment, and at any moment of the rerun, it still has its effect once', async (t) => {
  const moments = await atPairsOfMoments(async (first, second) => {
    const world = await startWorld()
    for (const interrupt of [first(), second()])
      await dies(async () => {
        await call(await world.launch({ interrupt }), increment)
      })
    const last = await world.launch()
    t.is(await call(last, increment), '10')
    t.deepEqual(await readAll(last), { 'final-result/balance': '10' })
  })
  t.true(moments.length > 8, String(moments.length))
})

test('a rerun gets the epochs of the checkpoints that were stored, and stores only the rest', async (t) => {
  const world = await startWorld()
  const opened = await world.launch()
  const crashing = async (flow: Flow): Promise<never> => {
    await flow.checkpoint({ 'password/a': text('a') })
    throw new Error('crash')
  }
  await t.throwsAsync(call(opened, crashing), { message: 'crash' })
  await opened.flow.checkpoint({ 'password/other': text('in between') })
  const later = await world.launch()
  const epochs = await call(later, async (flow) => [
    await flow.checkpoint({ 'password/a': text('of the rerun, not stored') }),
    await flow.checkpoint({ 'password/b': text('b') }),
  ])
  t.deepEqual(epochs, [2, 4])
  t.is(await readText(later, 'password/a'), 'a')
  t.is(await readText(later, 'password/b'), 'b')
})

test('what a call read before it changed it is kept until the call ends, and no longer', async (t) => {
  const world = await worldWithBalance()
  const opened = await world.launch()
  const crashing = async (flow: Flow): Promise<never> => {
    await flow.read('final-result/balance')
    await flow.read('final-result/new')
    await flow.checkpoint({ 'final-result/balance': text('6'), 'final-result/new': text('n') })
    await flow.delete(['final-result/new'])
    throw new Error('crash')
  }
  await t.throwsAsync(call(opened, crashing))
  t.is(await readText(opened, 'final-result/balance'), '6', 'others see what is committed')
  const seen = await call(await world.launch(), async (flow) => {
    const before = [await numberIn(flow, 'final-result/balance'), (await flow.read('final-result/new')) === undefined]
    await flow.checkpoint({ 'final-result/balance': text('6'), 'final-result/new': text('n') })
    const between = [await numberIn(flow, 'final-result/balance')]
    await flow.delete(['final-result/new'])
    return [...before, ...between, (await flow.read('final-result/new')) === undefined]
  })
  t.deepEqual(seen, [5, true, 6, true])
})

test('two calls with one key at once are one', async (t) => {
  const opened = await (await startWorld()).launch()
  let runs = 0
  const serve = async (flow: Flow): Promise<number> => {
    runs++
    await flow.checkpoint({ 'password/a': text('a') })
    return runs
  }
  const replies = await Promise.all([call(opened, serve), call(opened, serve), call(opened, serve)])
  t.deepEqual(replies, [1, 1, 1])
  t.is(runs, 1)
})

test('calls with other keys run beside each other', async (t) => {
  const opened = await (await startWorld()).launch()
  const keys = Array.from({ length: 20 }, (_, n) => `key-${n}`)
  const store = (key: string) => (flow: Flow) => flow.checkpoint({ [`password/${key}`]: text(key) })
  const epochs = await Promise.all(keys.map((key) => call(opened, store(key), { key })))
  t.is(new Set(epochs).size, 20)
  t.deepEqual(await Promise.all(keys.map((key) => call(opened, () => t.fail(), { key }))), epochs)
})

test('a key that stands for another input or another ECALL is refused, before and after the reply', async (t) => {
  const opened = await (await startWorld()).launch()
  let release!: (value: string) => void
  const first = call(opened, () => new Promise<string>((resolve) => (release = resolve)), {
    argument: { a: 1, b: [2] },
  })
  const conflicts: Call[] = [
    { argument: { a: 1, b: [3] } },
    { argument: undefined },
    { argument: null },
    { ecall: 'other' },
  ]
  const code = 'ERR_IDEMPOTENCY_CONFLICT'
  const refuses = async (): Promise<void> => {
    for (const other of conflicts)
      await t.throwsAsync(
        call(opened, () => t.fail(), { argument: { a: 1, b: [2] }, ...other }),
        { code },
      )
  }
  while ((release as unknown) === undefined) await new Promise((resolve) => setImmediate(resolve))
  await refuses()
  release('done')
  t.is(await first, 'done')
  await refuses()
  t.is(await call(opened, () => t.fail(), { argument: { b: [2], a: 1 } }), 'done', 'fields have no order')
})

test('a refusal of the author’s own is an outcome, and is recorded', async (t) => {
  const world = await startWorld()
  const refuse = (): never => {
    throw new KeyriseError('ERR_APPLICATION', { reason: 'no-funds' })
  }
  await t.throwsAsync(call(await world.launch(), refuse), { code: 'ERR_APPLICATION' })
  const again = await t.throwsAsync(
    call(await world.launch(), () => t.fail()),
    { code: 'ERR_APPLICATION' },
  )
  t.like(again, { reason: 'no-funds' })
})

test('any other failure is no outcome: the call may be run again', async (t) => {
  const opened = await (await startWorld()).launch()
  for (const error of [new TypeError('bug'), new KeyriseError('ERR_OCALL_FAILED'), new KeyriseError('ERR_STORE_FULL')])
    await t.throwsAsync(
      call(opened, () => {
        throw error
      }),
      { is: error },
    )
  t.is(await call(opened, () => 'in the end'), 'in the end')
})

test('a repetition outlives the call that it waits for, when that is given up', async (t) => {
  const opened = await (await startWorld()).launch()
  const controller = new AbortController()
  let started!: () => void
  const running = new Promise<void>((resolve) => (started = resolve))
  const first = call(
    opened,
    () =>
      new Promise((_, reject) => {
        started()
        controller.signal.addEventListener('abort', () => {
          reject(new KeyriseError('ERR_CANCELLED'))
        })
      }),
    { signal: controller.signal },
  )
  await running
  const second = call(opened, () => 'of its own')
  controller.abort()
  await t.throwsAsync(first, { code: 'ERR_CANCELLED' })
  t.is(await second, 'of its own')
})

test('a call that is given up and ends all the same is recorded', async (t) => {
  const opened = await (await startWorld()).launch()
  const controller = new AbortController()
  const first = call(opened, () => (controller.abort(), 'done'), { signal: controller.signal })
  t.is(await first, 'done')
  t.is(await call(opened, () => t.fail()), 'done')
})

test('replies of every kind come back as they were', async (t) => {
  const world = await startWorld()
  const opened = await world.launch()
  const deep = Array.from({ length: 31 }).reduce<unknown>((inner) => [inner], 'deep')
  const values = [
    undefined,
    null,
    -0,
    2 ** 60,
    1.5e300,
    'ж\u0000',
    new Uint8Array([1, 2]),
    { a: { constructor: [] } },
    deep,
  ]
  for (const [index, value] of values.entries())
    t.deepEqual(await call(opened, () => value, { key: `k${index}` }), value)
  const later = await world.launch()
  for (const [index, value] of values.entries()) {
    const again = await call(later, () => t.fail(), { key: `k${index}` })
    t.deepEqual(again, value)
  }
})

test('a reply too large to be recorded is refused, each time, and the effect is there once', async (t) => {
  const opened = await (await startWorld()).launch()
  const large = async (flow: Flow): Promise<Uint8Array> => {
    await flow.checkpoint({ 'password/a': text(String((await numberIn(flow, 'password/a')) + 1)) })
    return new Uint8Array(1024 * 1024)
  }
  for (let round = 0; round < 3; round++) await t.throwsAsync(call(opened, large), { code: 'ERR_SIZE_LIMIT' })
  t.is(await readText(opened, 'password/a'), '1')
  t.is(opened.flow.epoch, 2)
})

test('the newest outcomes are kept, by count, and those of calls in flight', (t) => {
  const record: CallRecord = { digest: new Uint8Array(32), epochs: [], images: [], outcome: new Uint8Array(1) }
  const add = (records: CallRecords, n: number) =>
    withRecord(records, `key-${n}`, record, (key) => key === 'key-0').records
  let records: CallRecords = new Map()
  for (let n = 0; n < CALL_RECORD_COUNT_MAX; n++) records = add(records, n)
  t.is(records.size, CALL_RECORD_COUNT_MAX)
  records = add(add(records, 2), CALL_RECORD_COUNT_MAX)
  t.is(records.size, CALL_RECORD_COUNT_MAX)
  t.deepEqual(
    ['key-0', 'key-1', 'key-2'].map((key) => records.has(key)),
    [true, false, true],
  )
  t.deepEqual(decodeRecords(encodeRecords(records)), records)
  t.deepEqual([...decodeRecords(encodeRecords(records)).keys()], [...records.keys()])
})

test('the newest outcomes are kept, by bytes, and dropped records take their images along', async (t) => {
  const world = await startWorld()
  const opened = await world.launch()
  const crash = async (flow: Flow): Promise<never> => {
    await flow.checkpoint({ 'password/a': text('1') })
    await flow.read('password/a')
    await flow.checkpoint({ 'password/a': text('2') })
    throw new Error('crash')
  }
  await t.throwsAsync(call(opened, crash, { key: 'crashed' }))
  for (let n = 0; n < 8; n++)
    await call(opened, () => new Uint8Array(1024 * 1024 - 64).fill(n), { key: `key-${n}`, argument: null })
  t.deepEqual(
    await call(opened, () => t.fail(), { key: 'key-7', argument: null }),
    new Uint8Array(1024 * 1024 - 64).fill(7),
  )
  t.is(await call(opened, () => 'forgotten', { key: 'key-0', argument: null }), 'forgotten')
  const rerun = await call(opened, (flow) => numberIn(flow, 'password/a'), { key: 'crashed' })
  t.is(rerun, 2, 'its record is gone, so the call is a new one')
})

test('records are in no list, and no author can name them', async (t) => {
  const opened = await (await startWorld()).launch()
  await call(opened, deposit)
  t.deepEqual(
    opened.flow.list().map(({ name }) => name),
    ['final-result/balance', 'final-result/count'],
  )
  for (const name of ['keyrise/calls', 'keyrise/x'] as unknown as EntryName[]) {
    await t.throwsAsync(opened.flow.read(name), { code: 'ERR_NAME_INVALID' })
    await t.throwsAsync(opened.flow.checkpoint({ [name]: text('x') }), { code: 'ERR_NAME_INVALID' })
    await t.throwsAsync(opened.flow.delete([name]), { code: 'ERR_NAME_INVALID' })
  }
  const resealed: string[] = []
  for await (const { name } of opened.flow.reseal()) resealed.push(name)
  t.deepEqual(resealed.sort(), ['final-result/balance', 'final-result/count'])
  t.deepEqual(await call(opened, () => t.fail()), { epochs: [2, 3, 4], balance: 10, count: 10 })
})

test('more checkpoints than a call may record are refused', async (t) => {
  const opened = await (await startWorld()).launch()
  const many = async (flow: Flow): Promise<void> => {
    for (let n = 0; n <= RECORDED_CHECKPOINT_COUNT_MAX; n++) await flow.checkpoint({ 'password/a': text('a') })
  }
  await t.throwsAsync(call(opened, many), { code: 'ERR_SIZE_LIMIT' })
})

test('a call that destroys its flow is answered, and its repetition finds no flow', async (t) => {
  const opened = await (await startWorld()).launch()
  t.is(
    await call(opened, async (flow) => {
      await flow.destroy()
      return 'gone'
    }),
    'gone',
  )
  await t.throwsAsync(
    call(opened, () => t.fail()),
    { code: 'ERR_FLOW_DESTROYED' },
  )
})
