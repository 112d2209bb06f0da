import { RELEASED, type LeakScanResult } from './leak-scan.js'
import type { JobEvent, JobResult } from './job.js'
import type { KillMoment } from './schedule.js'
import type { Yardsticks } from './yardsticks.js'

/** The figures of a whole command: the run with kills, the one without, and the search for leaks in both. */

export interface Outcome {
  readonly seed: number
  readonly killed: JobResult
  readonly uninterrupted: JobResult
  readonly scans: readonly LeakScanResult[]
  readonly yardsticks: Yardsticks
  readonly testPatients: number
}

/** What `--json` writes. */
export interface Figures {
  readonly rounds: number
  readonly accuracy: number
  readonly accuracyCentralised: number
  readonly accuracyBestSingleParty: number
  readonly modelDigest: string
  readonly modelDigestUninterrupted: string
  readonly enclaveKills: number
  readonly kmsKills: number
  readonly recoveries: number
  readonly recoveryMsMedian: number
  readonly secretsStored: number
  readonly secretsLost: number
  readonly leaksFound: number
  readonly bytesScanned: number
  readonly seed: number
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >>> 1
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

/** How long each enclave that was killed took to serve again. */
const recoveriesMs = (events: readonly JobEvent[]): number[] =>
  events.flatMap((event) =>
    event.type === 'serving' && event.recoveredInMs !== undefined ? [event.recoveredInMs] : [],
  )

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

export const figuresOf = ({ seed, killed, uninterrupted, scans, yardsticks }: Outcome): Figures => ({
  rounds: killed.rounds.length - 1,
  accuracy: killed.accuracy,
  accuracyCentralised: yardsticks.centralised,
  accuracyBestSingleParty: Math.max(...yardsticks.alone.map(({ accuracy }) => accuracy)),
  modelDigest: killed.modelDigest,
  modelDigestUninterrupted: uninterrupted.modelDigest,
  enclaveKills: killed.enclaveKills,
  kmsKills: killed.events.filter(({ type }) => type === 'kms-killed').length,
  recoveries: recoveriesMs(killed.events).length,
  recoveryMsMedian: Math.round(median(recoveriesMs(killed.events))),
  secretsStored: scans[0]?.secretsStored ?? 0,
  secretsLost: sum(scans.map(({ secretsLost }) => secretsLost.length)),
  leaksFound: sum(scans.map(({ leaks }) => leaks.length)),
  bytesScanned: sum(scans.map(({ bytesScanned }) => bytesScanned)),
  seed,
})

/** What the job promises. */
export const isGood = (figures: Figures): boolean =>
  figures.modelDigest === figures.modelDigestUninterrupted && figures.secretsLost === 0 && figures.leaksFound === 0

export type Mood = 'good' | 'bad' | 'strong' | 'dim'
export type Paint = (mood: Mood, text: string) => string

const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
const VALUE_WIDTH = 18
const row = (name: string, value: string, remark = ''): string =>
  `  ${name.padEnd(24)}${value.padEnd(VALUE_WIDTH)}${remark}`.trimEnd()

/** From a half to 1, so that a difference shows. */
const bar = (accuracy: number): string => '█'.repeat(Math.max(1, Math.round((accuracy - 0.5) * 60)))

/** The table at the end. */
export const reportOf = (outcome: Outcome, paint: Paint): string[] => {
  const { killed, uninterrupted, scans, yardsticks, testPatients } = outcome
  const figures = figuresOf(outcome)
  const isEqual = figures.modelDigest === figures.modelDigestUninterrupted
  const verdict = (good: boolean, text: string): string => paint(good ? 'good' : 'bad', text.padEnd(VALUE_WIDTH))
  const accuracyRow = (name: string, accuracy: number, remark = ''): string =>
    row(name, accuracy.toFixed(3), `${bar(accuracy)}${remark === '' ? '' : ` ${paint('dim', remark)}`}`)
  const kms = killed.events.find((event) => event.type === 'kms-restored')
  return [
    paint('strong', `Accuracy on ${String(testPatients)} patients whom nobody trained on (bars from 0.5)`),
    accuracyRow('together', figures.accuracy, 'encrypted, with all the kills'),
    accuracyRow('all data in one place', figures.accuracyCentralised, 'what nobody may do'),
    ...yardsticks.alone.map(({ name, accuracy, patients, malignant }) =>
      accuracyRow(`${name}, alone`, accuracy, `${String(patients)} patients, ${String(malignant)} ill`),
    ),
    '',
    paint('strong', 'The same model, bit for bit'),
    row('killed again and again', figures.modelDigest.slice(0, 16), seconds(killed.events.at(-1)?.atMs ?? 0)),
    row(
      'never interrupted',
      figures.modelDigestUninterrupted.slice(0, 16),
      seconds(uninterrupted.events.at(-1)?.atMs ?? 0),
    ),
    row('', verdict(isEqual, isEqual ? 'equal' : 'DIFFERENT'), 'SHA-256 over every bit of the 31 weights'),
    '',
    paint('strong', 'What was survived'),
    row('enclaves killed', String(figures.enclaveKills), killsByMoment(killed.events)),
    row(
      'KMS killed',
      String(figures.kmsKills),
      kms?.type === 'kms-restored' ? `SIGKILL; restored from custody in ${seconds(kms.tookMs)}` : '',
    ),
    row('recoveries', String(figures.recoveries), `median ${seconds(figures.recoveryMsMedian)} from death to serving`),
    row('secrets stored', String(figures.secretsStored), kindsOf(scans)),
    row(
      'secrets lost',
      verdict(figures.secretsLost === 0, String(figures.secretsLost)),
      scans.flatMap(({ secretsLost }) => secretsLost).join(', '),
    ),
    '',
    paint('strong', 'What was given away'),
    row('leaks found', verdict(figures.leaksFound === 0, String(figures.leaksFound)), searched(scans)),
    ...scans.flatMap(({ leaks }) =>
      leaks.map(({ secret, path, form, offset }) => `    ${secret} as ${form} in ${path} at ${String(offset)}`),
    ),
    paint('dim', '    released on purpose, so not searched for:'),
    ...RELEASED.map(({ entry, reason }) => paint('dim', `      ${entry.padEnd(32)}${reason}`)),
  ]
}

/** The seven kinds of secret (M6), then data before and after processing. */
const SECRET_KINDS = [
  'business-key',
  'intermediate-result',
  'final-result',
  'session',
  'password',
  'authorization',
  'interaction-id',
]
const kindsOf = (scans: readonly LeakScanResult[]): string => {
  const found = SECRET_KINDS.filter((kind) => scans.every(({ kinds }) => kinds.includes(kind)))
  return `${String(found.length)} of 7 kinds of secret, and the data before and after processing`
}

const searched = (scans: readonly LeakScanResult[]): string => {
  const secrets = sum(scans.map(({ secretsSearched }) => secretsSearched))
  const files = sum(scans.map(({ filesScanned }) => filesScanned))
  const bytes = sum(scans.map(({ bytesScanned }) => bytesScanned))
  return `${String(secrets)} keys and entries, as raw, hex, base64, JSON, in ${megabytes(bytes)}, ${String(files)} files`
}

const PHASES: Readonly<Record<string, readonly KillMoment[]>> = {
  'between calls': ['between-calls'],
  'during a call': ['call-posted'],
  'during a write': ['write-lost', 'write-done'],
  'during a commit': ['commit-lost', 'commit-done'],
  'during a recovery': ['recovering'],
}

const killsByMoment = (events: readonly JobEvent[]): string => {
  const counts = new Map<string, number>()
  for (const event of events) {
    if (event.type === 'killed') counts.set(event.kill.moment, (counts.get(event.kill.moment) ?? 0) + 1)
  }
  return Object.entries(PHASES)
    .map(([phase, moments]) => `${String(sum(moments.map((moment) => counts.get(moment) ?? 0)))} ${phase}`)
    .join(', ')
}
