import test from 'ava'
import { QUICK, type Measurement } from '../../bench/measurement.js'
import { result } from '../../bench/report.js'
import { run } from '../../bench/run.js'

const SUMMARY = { ours: 2, peer: 1, ratio: 2, runs: 2, spread: [1, 3] } as const
const OPTIONS = { scale: QUICK, isQuick: true, say: () => undefined }

const measuring = (...names: ('P4' | 'P5' | 'P6')[]): Measurement => ({
  names,
  measure: (_, { wants }) =>
    Promise.resolve({ results: names.filter(wants).map((name) => result(name, 'nobody', SUMMARY)) }),
})

test('only what is asked for is measured, and comes in the order of the targets', async (t) => {
  const measurements = [measuring('P6'), measuring('P4', 'P5')]
  const report = await run({ ...OPTIONS, measurements, names: ['P6', 'P5'] })
  t.deepEqual(
    report.results.map(({ id }) => id),
    ['P5', 'P6'],
  )
  t.deepEqual([report.skipped, report.failed], [[], []])
})

test('what fails is named with its reason, and the rest goes on', async (t) => {
  const broken: Measurement = { names: ['P5', 'unwrap'], measure: () => Promise.reject(new Error('no thread')) }
  const report = await run({ ...OPTIONS, measurements: [broken, measuring('P6')], names: ['P5', 'P6'] })
  t.deepEqual(report.failed, [{ name: 'P5', why: 'no thread' }])
  t.deepEqual(
    report.results.map(({ id }) => id),
    ['P6'],
  )
})

test('what this machine lacks something for is skipped by name; what stands beside it is measured', async (t) => {
  const lacking = { ...measuring('P4', 'P5'), lacks: (name: string) => (name === 'P4' ? 'no age' : undefined) }
  const report = await run({ ...OPTIONS, measurements: [lacking], names: ['P4', 'P5'] })
  t.deepEqual(report.skipped, [{ name: 'P4', why: 'no age' }])
  t.deepEqual(
    report.results.map(({ id }) => id),
    ['P5'],
  )
  const nothing = { ...lacking, measure: () => Promise.reject(new Error('measured all the same')) }
  t.deepEqual((await run({ ...OPTIONS, measurements: [nothing], names: ['P4'] })).failed, [])
})
