import { existsSync } from 'node:fs'
import test from 'ava'
import { QUICK } from '../../bench/measurement.js'
import { ROW_IDS } from '../../bench/report.js'
import { NAMES, run } from '../../bench/run.js'
import { lackOf } from '../../bench/timing.js'

/** Each row and curve runs, on tiny sizes: its figures mean nothing, but its code, its peers and its checks of outputs do. */

for (const name of NAMES) {
  // One at a time: they want all of the machine.
  test.serial(`measured on tiny sizes: ${name}`, async (t) => {
    t.timeout(120_000)
    const report = await run({ names: [name], scale: QUICK, isQuick: true, say: () => undefined })
    t.deepEqual(report.failed, [])
    if (report.skipped.length > 0) {
      t.true(['age', 'openssl'].some((command) => lackOf(command) !== undefined) || !existsSync('/proc'))
      return
    }
    const [result] = report.results
    t.deepEqual([...report.results.map(({ id }) => id), ...Object.keys(report.curves)], [name])
    if (result === undefined) {
      const { series, x, y, what } = report.curves[name] ?? t.fail()
      t.true(series.length > 0 && [x, y, what].every((text) => text.length > 0))
      for (const { points } of series) t.true(points.length > 0 && points.every(([, value]) => value > 0))
      return
    }
    t.true((ROW_IDS as string[]).includes(name))
    t.deepEqual(Object.keys(result).sort(), FIELDS)
    t.true([result.ours, result.peer, result.ratio, ...result.spread].every(Number.isFinite))
    t.is(result.runs, ONE_RUN.includes(name) ? 1 : QUICK.runs)
    t.true(result.spread[0] <= result.ratio && result.ratio <= result.spread[1])
  })
}

/** What is counted, or a peak over all that streams. */
const ONE_RUN = ['P9', 'P10']
const FIELDS = ['id', 'ours', 'peer', 'peerName', 'ratio', 'runs', 'spread', 'target', 'unit', 'what']
