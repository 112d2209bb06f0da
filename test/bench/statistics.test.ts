import test from 'ava'
import { gradeOf, excess } from '../../bench/report.js'
import { compare, median, summarise } from '../../bench/statistics.js'

test('the median: of an odd count the middle, of an even one the mean of the two, whatever the order', (t) => {
  t.is(median([9, 1, 5]), 5)
  t.is(median([10, 9, 100, 2]), 9.5)
  t.is(median([7]), 7)
  t.throws(() => median([]), { instanceOf: RangeError })
})

test('a run that was slow for both counts as any other: the ratio is of runs, not of medians', (t) => {
  const pairs = [
    { ours: 100, peer: 10 },
    { ours: 20, peer: 2 },
    { ours: 30, peer: 1 },
  ]
  t.deepEqual(summarise(pairs), { ours: 30, peer: 2, ratio: 10, runs: 3, spread: [10, 30] })
  t.is(excess(pairs).ratio, 29)
})

test('both sides are measured in every run, and take turns to begin', async (t) => {
  const calls: string[] = []
  const side = (name: string, value: number) => (): Promise<number> => {
    calls.push(name)
    return Promise.resolve(value + calls.length)
  }
  const pairs = await compare({ ours: side('ours', 0), peer: side('peer', 100) }, 3, (run) => calls.push(String(run)))
  t.is(calls.join(' '), '1 ours peer 2 peer ours 3 ours peer')
  t.deepEqual(pairs, [
    { ours: 2, peer: 103 },
    { ours: 6, peer: 105 },
    { ours: 8, peer: 109 },
  ])
})

test('what takes little time is measured in several turns a run, who begins changing, and the run is their medians', async (t) => {
  const calls: string[] = []
  const side = (name: string, values: number[]) => (): Promise<number> => {
    calls.push(name)
    return Promise.resolve(values.shift() ?? 0)
  }
  const sides = { ours: side('ours', [1, 90, 3, 4, 5, 6]), peer: side('peer', [10, 20, 0, 40, 50, 60]) }
  const pairs = await compare(sides, 2, (run) => calls.push(String(run)), 3)
  t.is(calls.join(' '), '1 ours peer peer ours ours peer 2 peer ours ours peer peer ours')
  t.deepEqual(pairs, [
    { ours: 3, peer: 10 },
    { ours: 5, peer: 50 },
  ])
})

test('a row is graded by its bound and its aim, from above or from below', (t) => {
  const target = { atLeast: 2, aim: 3 }
  t.deepEqual(
    [1.9, 2, 2.9, 3].map((ratio) => gradeOf({ ratio, target })),
    ['missed', 'met', 'met', 'aim'],
  )
  const cap = { atMost: 3, aim: 2 }
  t.deepEqual(
    [3.1, 3, 2.1, 2].map((ratio) => gradeOf({ ratio, target: cap })),
    ['missed', 'met', 'met', 'aim'],
  )
})
