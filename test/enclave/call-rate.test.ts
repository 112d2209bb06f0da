import test from 'ava'
import * as v from 'valibot'
import { CallRate } from '../../enclave/call-rate.js'
import { defineEnclave, ecall, ocall } from '../../enclave/index.js'
import { SimulatedClock } from '../../faults/index.js'
import { launchInThread } from '../host/in-thread.js'

test('so many calls at once, then so many a second', async (t) => {
  const clock = new SimulatedClock(5000)
  const rate = new CallRate(10, clock)
  const takes = (count: number): void => {
    for (let n = 0; n < count; n++) rate.take()
    t.throws(() => rate.take(), { code: 'ERR_RATE_LIMIT' })
  }
  takes(10)
  await clock.advance(99)
  t.throws(() => rate.take(), { code: 'ERR_RATE_LIMIT' })
  await clock.advance(1)
  takes(1)
  await clock.advance(550)
  takes(5)
})

test('a clock that jumps fills the bucket once at most, and takes nothing away', async (t) => {
  const clock = new SimulatedClock(5000)
  const rate = new CallRate(2, clock)
  clock.jump(1_000_000_000)
  rate.take()
  rate.take()
  t.throws(() => rate.take(), { code: 'ERR_RATE_LIMIT' })
  clock.jump(-1_000_000_000)
  t.throws(() => rate.take(), { code: 'ERR_RATE_LIMIT' })
  await clock.advance(500)
  rate.take()
  t.throws(() => rate.take(), { code: 'ERR_RATE_LIMIT' })
})

/** Makes so many OCALLs, one after the other: how many were made, and the code of what ended it. */
const ask = async (count: number, call: () => Promise<unknown>): Promise<string> => {
  for (let made = 0; made < count; made++)
    try {
      await call()
    } catch (error) {
      return `${String(made)}, then ${(error as { code: string }).code}`
    }
  return String(count)
}

test('a handler that makes more OCALLs a second than declared gets ERR_RATE_LIMIT, and the host is not called', async (t) => {
  const limits = { perSecondMax: 3 }
  const rate = ocall({ input: v.number(), output: v.number(), limits })
  const rows = ocall({ input: v.number(), yields: v.number(), limits })
  const free = ocall({ input: v.number(), output: v.number() })
  const shape = { input: v.number(), output: v.string() }
  const definition = defineEnclave({
    name: 'asking',
    svn: 1,
    ocalls: { rate, rows, free },
    ecalls: {
      asks: ecall({ ...shape, ocalls: { rate } }, ({ ocalls }, count) => ask(count, () => ocalls.rate(1))),
      asksToo: ecall({ ...shape, ocalls: { rate } }, ({ ocalls }, count) => ask(count, () => ocalls.rate(1))),
      reads: ecall({ ...shape, ocalls: { rows } }, ({ ocalls }, count) =>
        ask(count, async () => {
          for await (const row of ocalls.rows(1)) if (row !== 1) throw new Error('another row')
        }),
      ),
      asksFreely: ecall({ ...shape, ocalls: { free } }, ({ ocalls }, count) => ask(count, () => ocalls.free(1))),
    },
  })
  const called = { rate: 0, rows: 0, free: 0 }
  const { handle, clock } = await launchInThread(definition, {
    ocalls: {
      rate: (n: number) => (called.rate++, n),
      rows: (n: number) => (called.rows++, [n]),
      free: (n: number) => (called.free++, n),
    },
  })
  const { ecalls } = handle
  t.is(await ecalls.asks(5), '3, then ERR_RATE_LIMIT')
  t.is(await ecalls.asksToo(1), '0, then ERR_RATE_LIMIT', 'the limit is over all ECALLs')
  t.is(await ecalls.reads(5), '3, then ERR_RATE_LIMIT')
  t.is(await ecalls.asksFreely(5), '5')
  t.deepEqual(called, { rate: 3, rows: 3, free: 5 })
  await clock.advance(1000)
  t.is(await ecalls.asksToo(2), '2')
  t.is(await ecalls.asks(2), '1, then ERR_RATE_LIMIT')
  t.deepEqual(called, { rate: 6, rows: 3, free: 5 })
})
