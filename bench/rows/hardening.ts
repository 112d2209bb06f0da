import type { WorkerOptions } from 'node:worker_threads'
import type { Measurement, Scale } from '../measurement.js'
import { NumericWorker, numericScript } from '../peers/numeric-worker.js'
import type { Series } from '../report.js'
import { median } from '../statistics.js'
import { NUMERIC_NAMES, type NumericWork } from './numeric.js'
import { countFor, millisecondsOf } from './tax.js'

/** A worker on its way to an enclave: each step has all that the step before has, unless it says otherwise. */
interface Step {
  readonly name: string
  readonly options: WorkerOptions
  /** A module in bench/hardening/, which runs before all else. */
  readonly first?: string
}

/** As platform/worker.ts has them, which shows them to nobody. */
const EMPTY = { env: {}, argv: [], execArgv: ['--no-warnings'], stdin: false, stdout: true, stderr: true }
const PERMISSION_FLAG = Number(process.versions.node.split('.')[0]) >= 22 ? '--permission' : '--experimental-permission'
const CLOSED = { ...EMPTY, execArgv: [PERMISSION_FLAG, '--no-addons', '--no-warnings'] }

const STEPS: readonly Step[] = [
  { name: 'plain worker', options: {} },
  { name: 'no env, argv, streams', options: EMPTY },
  { name: 'permission flags', options: CLOSED },
  { name: 'intrinsics locked', options: CLOSED, first: 'lock-intrinsics' },
  { name: 'crypto locked too', options: CLOSED, first: 'lock-crypto' },
  { name: 'instead: SES lockdown', options: CLOSED, first: 'lock-ses' },
]

/** `lockdown` makes the same work take tens of times as long: its share of it is measured. */
const WORK_SHARE_MS = 20

/** What each step of hardening costs: the start of a worker, and its numeric work, beside a plain worker’s. */
export const hardening: Measurement = {
  names: ['hardening.start', 'hardening.tax'],
  async measure(scale, { say, wants }) {
    const scripts: string[] = []
    for (const { first } of STEPS)
      scripts.push(
        await numericScript(...(first === undefined ? [] : [new URL(`../hardening/${first}.js`, import.meta.url)])),
      )
    const start = wants('hardening.start') ? { 'hardening.start': await startCurve(scripts, scale, say) } : {}
    const tax = wants('hardening.tax') ? { 'hardening.tax': await taxCurve(scripts, scale, say) } : {}
    return { curves: { ...start, ...tax } }
  },
}

const startStep = (index: number, scripts: readonly string[]): Promise<NumericWorker> =>
  NumericWorker.start(scripts[index] ?? '', STEPS[index]?.options)

const startCurve = async (scripts: readonly string[], { runs }: Scale, say: (line: string) => void) => {
  const took: number[][] = STEPS.map(() => [])
  for (let run = 0; run < runs; run++) {
    say(`hardening.start: run ${run + 1} of ${runs}`)
    for (const [index, figures] of took.entries()) {
      const startMs = performance.now()
      await using _ = await startStep(index, scripts)
      figures.push(performance.now() - startMs)
    }
  }
  const points = STEPS.map(({ name }, index) => [name, median(took[index] ?? [])] as const)
  return { what: 'start of a worker', x: 'step', y: 'ms', series: [{ name: 'to its first message', points }] }
}

const taxCurve = async (scripts: readonly string[], { runs, sliceMs }: Scale, say: (line: string) => void) => {
  await using plain = await startStep(0, scripts)
  const series: Series[] = []
  for (const name of NUMERIC_NAMES) {
    const count = await countFor((...asked) => plain.work(...asked), name, Math.min(sliceMs, WORK_SHARE_MS))
    const points: [string, number][] = []
    for (const [index, step] of STEPS.entries()) {
      say(`hardening.tax: ${name}, ${step.name}`)
      await using worker = await startStep(index, scripts)
      points.push([step.name, await ratio(name, count, worker, plain, runs)])
    }
    series.push({ name: `P12.${name}`, points })
  }
  return { what: 'numeric code, time over a plain worker’s', x: 'step', y: 'ratio', series }
}

/** Of times, in turns, on workers that are warm. */
const ratio = async (name: NumericWork, count: number, one: NumericWorker, plain: NumericWorker, runs: number) => {
  const ratios: number[] = []
  for (let run = 0; run < WARM_UP_COUNT; run++) await one.work(name, count)
  for (let run = 0; run < runs; run++) {
    const took = await millisecondsOf((...asked) => one.work(...asked), name, count)
    ratios.push(took / (await millisecondsOf((...asked) => plain.work(...asked), name, count)))
  }
  return median(ratios)
}

const WARM_UP_COUNT = 5
