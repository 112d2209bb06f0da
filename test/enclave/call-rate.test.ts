import test from 'ava'
import { CallRate } from '../../enclave/call-rate.js'
import { SimulatedClock } from '../../faults/index.js'

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
