import test from 'ava'
import { anyChanges, everyFlipAndCut, judge, type Mutant } from '../crypto/mutants.js'

/** At least 100,000 damaged and hostile envelopes: each refused, none slow, none greedy. */

const MUTANT_COUNT_MIN = 100_000
const MEMORY_BYTES_MAX = 512 * 1024 * 1024

function* all(): Generator<Mutant, void, undefined> {
  yield* everyFlipAndCut()
  yield* anyChanges('long', 50_000)
}

test('100,000 mutants of every kind of envelope are refused, whole and in pieces', (t) => {
  t.timeout(30 * 60_000)
  const before = process.memoryUsage().rss
  const found: string[] = []
  let count = 0
  let growth = 0
  for (const mutant of all()) {
    count++
    const complaint = judge(mutant)
    if (complaint !== undefined) found.push(complaint)
    if (count % 1000 === 0) growth = Math.max(growth, process.memoryUsage().rss - before)
  }
  t.deepEqual(found, [])
  t.true(count >= MUTANT_COUNT_MIN, String(count))
  t.true(growth < MEMORY_BYTES_MAX, `${String(growth)} bytes`)
  t.log(`${String(count)} mutants, ${String(Math.round(growth / 1024 ** 2))} MiB at most over the start`)
})
