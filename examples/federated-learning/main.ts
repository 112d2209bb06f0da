import { buildImage, isKeyriseError } from 'keyrise'
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, styleText } from 'node:util'
import type { DecryptorEnclave } from './decryptor.enclave.js'
import { lineDisplay, LiveDisplay, type Display } from './display.js'
import type { FederationImages } from './federation.js'
import { runJob, type JobResult } from './job.js'
import { scanInProcess, type LeakScanResult } from './leak-scan.js'
import type { PartyEnclave } from './party.enclave.js'
import { parseRecordsCsv } from './records.js'
import { figuresOf, isGood, reportOf, type Mood, type Outcome } from './report.js'
import { FLOWS, KILLS_DEFAULT, planSchedule, withoutKills, type Schedule } from './schedule.js'
import { splitRecords, type Split } from './split.js'
import { runTampering } from './tamper.js'
import { drawSvg, drawText, timelineOf } from './timeline.js'
import { yardsticksOf } from './yardsticks.js'

const HELP = `Three hospitals train one classifier on encrypted data, while their enclaves are killed again and again.

  npm start -- [options]

  --seed N      split, dropout and kill points, by logical step; the same seed replays them (default 1)
  --kills N     how many enclaves die (default ${String(KILLS_DEFAULT)})
  --json FILE   write the figures
  --svg FILE    write the timeline as a picture
  --tamper      instead: an aggregator and a host that cheat, and the codes that refuse them
  --keep        leave everything that was written where it is, and say where
  --help        this text
`
const ROUND_COUNT = 12
const WORK_FACTOR = 18
/** The run for comparison has a keyring too; guessing its passphrase would gain nobody anything. */
const WORK_FACTOR_COMPARISON = 12
const KILL_COUNT_MAX = 60

const DATA = new URL('../../../examples/federated-learning/data/breast-cancer-wisconsin.csv', import.meta.url)

interface Flags {
  readonly seed: number
  readonly kills: number
  readonly json: string | undefined
  readonly svg: string | undefined
  readonly tamper: boolean
  readonly keep: boolean
}

class UsageError extends Error {}

const readFlags = (args: string[]): Flags | 'help' => {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args,
    options: { seed: text, kills: text, json: text, svg: text, tamper: flag, keep: flag, help: flag },
  })
  const whole = (name: string, value: string | undefined, otherwise: number, max: number): number => {
    if (value === undefined) return otherwise
    if (!/^\d{1,9}$/.test(value) || Number(value) > max)
      throw new UsageError(`--${name} takes a whole number up to ${String(max)}`)
    return Number(value)
  }
  if (values.help) return 'help'
  // Said now, not after a minute of work.
  for (const file of [values.json, values.svg]) {
    if (file !== undefined && !isWritableFolder(dirname(resolve(file))))
      throw new UsageError(`${file} cannot be written`)
  }
  return {
    seed: whole('seed', values.seed, 1, 999_999_999),
    kills: whole('kills', values.kills, KILLS_DEFAULT, KILL_COUNT_MAX),
    ...{ json: values.json, svg: values.svg, tamper: values.tamper, keep: values.keep },
  }
}

const isWritableFolder = (folder: string): boolean => {
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

const isLive = process.stdout.isTTY && process.env['TERM'] !== 'dumb'
const hasColour = isLive && (process.env['NO_COLOR'] ?? '') === ''
const write = (text: string): void => void process.stdout.write(text)
const line = (text = ''): void => {
  write(`${text}\n`)
}
const STYLES = { good: 'green', bad: 'red', strong: 'bold', dim: 'dim' } as const
const paint = (mood: Mood, text: string): string => (hasColour ? styleText(STYLES[mood], text) : text)
const newDisplay = (): Display =>
  isLive ? new LiveDisplay({ write, paint, roundCount: ROUND_COUNT }) : lineDisplay(write, paint)

const buildImages = async (): Promise<FederationImages> => {
  const [party, decryptor] = await Promise.all([
    buildImage<PartyEnclave>(new URL('party.enclave.js', import.meta.url)),
    buildImage<DecryptorEnclave>(new URL('decryptor.enclave.js', import.meta.url)),
  ])
  return { party, decryptor }
}

const runOnce = async (
  directory: string,
  split: Split,
  schedule: Schedule,
  images: FederationImages,
  workFactor: number,
): Promise<JobResult> => {
  mkdirSync(directory)
  const display = newDisplay()
  try {
    const onEvent = display.show.bind(display)
    return await runJob({ directory, split, schedule, images, roundCount: ROUND_COUNT, workFactor, onEvent })
  } finally {
    display.end()
  }
}

const scanRun = (directory: string, { place, passphrase, receipts }: JobResult): Promise<LeakScanResult> =>
  scanInProcess(
    {
      directory,
      custody: place.custody,
      store: join(directory, 'store'),
      flows: FLOWS,
      steps: ['predictions'],
      receipts,
    },
    passphrase,
  )

const runBoth = async (directory: string, flags: Flags, split: Split): Promise<Outcome> => {
  line(paint('dim', 'Building the two enclave images, then starting the KMS …'))
  const images = await buildImages()
  const schedule = planSchedule({ seed: flags.seed, kills: flags.kills, roundCount: ROUND_COUNT })
  line(
    paint(
      'strong',
      `\nFirst run: ${String(flags.kills)} enclaves will be killed, the KMS once, and one hospital drops out`,
    ),
  )
  const [first, second] = [join(directory, 'killed'), join(directory, 'uninterrupted')]
  const killed = await runOnce(first, split, schedule, images, WORK_FACTOR)
  // The search of what the first run wrote goes on beside the second run, in a process of its own.
  const firstScan = scanRun(first, killed)
  firstScan.catch(() => undefined)
  line(paint('strong', '\nSecond run: nobody is killed'))
  const uninterrupted = await runOnce(second, split, withoutKills(schedule), images, WORK_FACTOR_COMPARISON)
  line(paint('dim', '\nOpening custody, searching everything that was written or sent …'))
  const scans = await Promise.all([firstScan, scanRun(second, uninterrupted)])
  for (const { passphrase } of [killed, uninterrupted]) passphrase.fill(0)
  return {
    seed: flags.seed,
    killed,
    uninterrupted,
    scans,
    yardsticks: yardsticksOf(split, ROUND_COUNT),
    testPatients: split.test.count,
  }
}

const show = (outcome: Outcome): void => {
  const width = Math.min(process.stdout.columns || 100, 120)
  const moods = { serving: 'good', recovering: 'bad', away: 'dim', kill: 'bad', round: 'dim' } as const
  line()
  for (const text of reportOf(outcome, paint)) line(text)
  line()
  line(paint('strong', 'The first run   ━ serving   ✕ killed   ░ recovering   blank: away'))
  for (const text of drawText(timelineOf(outcome.killed.events), width, (what, sign) => paint(moods[what], sign)))
    line(text)
}

const main = async (flags: Flags): Promise<boolean> => {
  const startMs = performance.now()
  const directory = mkdtempSync(join(tmpdir(), 'keyrise-federated-learning-'))
  try {
    const split = splitRecords(parseRecordsCsv(readFileSync(DATA, 'utf8')), flags.seed)
    line(
      `Three hospitals train one classifier, seed ${String(flags.seed)}. Their enclaves are simulated by worker threads.`,
    )
    if (flags.tamper) return await runTampering({ directory, split, images: await buildImages(), line, paint })
    const outcome = await runBoth(directory, flags, split)
    const figures = figuresOf(outcome)
    show(outcome)
    if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(figures, null, 2)}\n`)
    if (flags.svg !== undefined)
      writeFileSync(flags.svg, drawSvg(timelineOf(outcome.killed.events), `Run of seed ${String(flags.seed)}`))
    line()
    const all = `${((performance.now() - startMs) / 1000).toFixed(1)} s for everything`
    line(
      isGood(figures)
        ? paint('good', `Nothing lost, nothing leaked; ${all}.`)
        : paint('bad', `NOT as promised; ${all}.`),
    )
    return isGood(figures)
  } finally {
    if (flags.keep) line(paint('dim', `Everything written: ${directory}`))
    else rmSync(directory, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const flags = readFlags(process.argv.slice(2))
    if (flags === 'help') write(HELP)
    else process.exitCode = (await main(flags)) ? 0 : 1
  } catch (error) {
    const isUsage =
      error instanceof UsageError ||
      (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'))
    const said = isKeyriseError(error)
      ? `${error.code}: ${error.message}. ${error.remedy}.`
      : error instanceof Error
        ? isUsage
          ? error.message
          : error.stack
        : String(error)
    process.stderr.write(`${String(said)}\n${isUsage ? '\n' + HELP : ''}`)
    process.exitCode = isUsage ? 2 : 1
  }
}
