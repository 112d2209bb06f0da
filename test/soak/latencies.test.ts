import test from 'ava'
import { Latencies } from './latencies.js'

test('quantiles of latencies are right to a twenty-fifth, and the longest is exact', (t) => {
  const latencies = new Latencies()
  t.is(latencies.quantileMs(0.99), 0)
  for (let ms = 1; ms <= 1000; ms++) latencies.add(ms)
  for (const fraction of [0.5, 0.9, 0.99]) {
    const expected = 1000 * fraction
    t.true(Math.abs(latencies.quantileMs(fraction) - expected) <= expected / 25, String(fraction))
  }
  t.is(latencies.quantileMs(1), 1000)
})

test('of two counts that are put together the quantiles are those of all', (t) => {
  const [fast, slow] = [new Latencies(), new Latencies()]
  for (let count = 0; count < 98; count++) fast.add(1)
  for (let count = 0; count < 2; count++) slow.add(500)
  fast.addAll(slow)
  t.is(fast.count, 100)
  t.true(fast.quantileMs(0.98) < 2)
  t.true(fast.quantileMs(0.99) > 480)
})

test('the picture has a line for each doubling, and says where p99 lies', (t) => {
  const latencies = new Latencies()
  for (let count = 0; count < 97; count++) latencies.add(3)
  for (let count = 0; count < 3; count++) latencies.add(100)
  const [common, rare] = latencies.picture()
  t.regex(common ?? '', /≤ 4 ms .*█{40}.* 97 {2}p50$/)
  t.regex(rare ?? '', /≤ 128 ms .*█.* 3 {2}p99$/)
})
