import { writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { STEPS } from './client.js'
import { Latencies } from './latencies.js'
import { soak, type Part, type Phase } from './soak.js'

const HELP = `npm run soak [-- options]

32 clients attest sessions to a KMS process, recover and unwrap; beside them, but for a while in the middle, hostile
clients: slow, half-open, oversized, replayed. No call may fail, and the process may not grow.

  --seconds N   how long it works (45)
  --sessions N  instead, so many sessions
  --unwraps N   headers to unwrap, of all sessions together; 100 in each unless told
  --json FILE   also write the figures
  --help

Exit code 1 where a call failed, a hostile client got what it should not, or memory grew.
`
/** More than the collector leaves lying from one look to the next. */
const GROWTH_MIB_MAX = 48
const UNWRAPS_PER_SESSION = 100

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '45' },
    sessions: { type: 'string' },
    unwraps: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean' },
  },
})
if (values.help === true) {
  console.log(HELP)
  process.exit(0)
}

const wholeNumber = (name: 'seconds' | 'sessions' | 'unwraps', min: number): number | undefined => {
  const value = values[name]
  if (value === undefined) return undefined
  const number = Number(value)
  if (!Number.isSafeInteger(number) || number < min) throw new RangeError(`--${name}: at least ${String(min)}`)
  return number
}

const sessions = wholeNumber('sessions', 100)
const unwraps = wholeNumber('unwraps', 10)
const seconds = wholeNumber('seconds', 10) ?? 0
if (unwraps !== undefined && sessions === undefined) throw new RangeError('--unwraps: with --sessions only')
const unwrapsPerSession = unwraps === undefined ? UNWRAPS_PER_SESSION : Math.ceil(unwraps / (sessions ?? 1))

/** By then there are as many sessions as the KMS keeps for each flow, and its heap has its size. */
const WARM_SESSION_COUNT = 300
/**
 * The first part and the last are of one kind, and nearly of one size: what a process takes once, and keeps, it has taken by the end of the
 * first, and what it takes again and again it takes in the other two.
 */
const PARTS: readonly { name: string; ofTime: number; ofSessions: number; isHostile: boolean }[] = [
  { name: 'warm-up', ofTime: 1 / 3, ofSessions: 0.3, isHostile: true },
  { name: 'alone', ofTime: 1 / 3, ofSessions: 0.35, isHostile: false },
  { name: 'beside hostile clients', ofTime: 1 / 3, ofSessions: 0.35, isHostile: true },
]
const parts = PARTS.map(({ name, ofTime, ofSessions, isHostile }): Part => {
  if (sessions !== undefined) return { name, until: { sessions: Math.ceil(sessions * ofSessions) }, isHostile }
  const until = { seconds: seconds * ofTime, ...(name === 'warm-up' ? { sessions: WARM_SESSION_COUNT } : {}) }
  return { name, until, isHostile }
})

// By way of `exit`, at which the KMS’s process ends, too.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))

const startMs = performance.now()
const { phases, errorCount, errors } = await soak(parts, { unwrapsPerSession, say: (text) => console.error(text) })
const sum = (of: (phase: Phase) => number): number => phases.reduce((total, phase) => total + of(phase), 0)
const ms = (value: number): number => Number(value.toFixed(2))

const all = new Latencies()
for (const { steps } of phases) all.addAll(steps.unwrap)
const [warm, , last] = phases
const figures = {
  sessions: sum((phase) => phase.sessions),
  unwraps: sum((phase) => phase.unwraps),
  errors: errorCount,
  p50Ms: ms(all.quantileMs(0.5)),
  p99Ms: ms(all.quantileMs(0.99)),
  rssGrowthMiB: ms((last?.rssMiB ?? 0) - (warm?.rssMiB ?? 0)),
  seconds: ms((performance.now() - startMs) / 1000),
  machine: { processor: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.versions.node },
  phases: phases.map(({ steps, ...phase }) => ({
    ...phase,
    steps: Object.fromEntries(
      STEPS.map((step) => {
        const { count, maxMs } = steps[step]
        const [p50Ms, p99Ms] = [ms(steps[step].quantileMs(0.5)), ms(steps[step].quantileMs(0.99))]
        return [step, { count, p50Ms, p99Ms, maxMs: ms(maxMs) }]
      }),
    ),
  })),
  firstErrors: errors,
}

const row = (...[first, ...cells]: string[]): string =>
  `${(first ?? '').padEnd(12)}${cells.map((cell) => cell.padStart(12)).join('')}`
for (const { name, steps, rssMiB, logMiB, seconds: took, sessions: count } of phases) {
  console.log(
    `\n${name}: ${took.toFixed(0)} s, ${String(count)} sessions; idle ${rssMiB.toFixed(1)} MiB, log ${logMiB.toFixed(1)} MiB`,
  )
  console.log(row('', 'calls', 'p50 ms', 'p99 ms', 'max ms'))
  for (const step of STEPS) {
    const { count: calls, maxMs } = steps[step]
    const figuresOf = [steps[step].quantileMs(0.5), steps[step].quantileMs(0.99), maxMs].map((value) =>
      value.toFixed(1),
    )
    console.log(row(step, String(calls), ...figuresOf))
  }
}
const hostile = Object.entries(last?.hostile ?? {}).map(([kind, count]) => `${kind} ${String(count)}`)
console.log(`\nhostile clients, attempts: ${hostile.join(', ')}`)
console.log('\nunwrap calls, of 1 to 256 headers:')
for (const line of all.picture()) console.log(line)
for (const error of errors) console.log(`ERROR: ${error}`)
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(figures, null, 2)}\n`)
console.log(
  `\n${String(figures.sessions)} sessions, ${String(figures.unwraps)} unwraps, ${String(errorCount)} errors in ${figures.seconds.toFixed(0)} s; ` +
    `p50 ${String(figures.p50Ms)} ms, p99 ${String(figures.p99Ms)} ms; the KMS grew by ${String(figures.rssGrowthMiB)} MiB`,
)
const isWell = errorCount === 0 && figures.sessions > 0 && figures.rssGrowthMiB <= GROWTH_MIB_MAX
process.exitCode = isWell ? 0 : 1
