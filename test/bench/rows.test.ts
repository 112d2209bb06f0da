import { existsSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { QUICK } from '../../bench/measurement.js'
import { ROW_IDS, type Curve, type Result } from '../../bench/report.js'
import { GROUPS, run } from '../../bench/run.js'
import { lackOf } from '../../bench/timing.js'

/** Each row and curve runs, on tiny sizes: its figures mean nothing, but its code, its peers and its checks of outputs do. */

for (const names of GROUPS) {
  // One at a time: they want all of the machine.
  test.serial(`measured on tiny sizes: ${names.join(', ')}`, async (t) => {
    t.timeout(240_000)
    const report = await run({ names, scale: QUICK, isQuick: true, say: () => undefined })
    t.deepEqual(report.failed, [])
    const skipped = report.skipped.map(({ name }) => name)
    if (skipped.length > 0)
      t.true(['age', 'openssl'].some((command) => lackOf(command) !== undefined) || !existsSync('/proc'))
    const measured = [...report.results.map(({ id }) => id), ...Object.keys(report.curves)]
    t.deepEqual(measured.sort(), names.filter((name) => !skipped.includes(name)).sort())
    for (const result of report.results) assertRow(t, result)
    for (const curve of Object.values(report.curves)) assertCurve(t, curve)
  })
}

test.serial('what is not asked for is not measured', async (t) => {
  const { results, curves } = await run({
    names: ['hardening.start'],
    scale: QUICK,
    isQuick: true,
    say: () => undefined,
  })
  t.deepEqual([results, Object.keys(curves)], [[], ['hardening.start']])
})

const assertRow = (t: ExecutionContext, result: Result): void => {
  t.true((ROW_IDS as readonly string[]).includes(result.id))
  t.deepEqual(Object.keys(result).sort(), FIELDS)
  t.true([result.ours, result.peer, result.ratio, ...result.spread].every(Number.isFinite))
  t.is(result.runs, ONE_RUN.includes(result.id) ? 1 : QUICK.runs)
  t.true(result.spread[0] <= result.ratio && result.ratio <= result.spread[1])
}

const assertCurve = (t: ExecutionContext, { series, x, y, what }: Curve): void => {
  t.true(series.length > 0 && [x, y, what].every((text) => text.length > 0))
  for (const { points } of series) t.true(points.length > 0 && points.every(([, value]) => value > 0))
}

/** What is counted, or a peak over all that streams. */
const ONE_RUN = ['P9', 'P10']
const FIELDS = ['id', 'ours', 'peer', 'peerName', 'ratio', 'runs', 'spread', 'target', 'unit', 'what']
