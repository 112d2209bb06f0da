import { writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import type { Command } from 'commander'
import { recordRun } from '../faults/crash-check.js'
import { replay } from '../faults/shrink.js'
import { watchFor, type FoundViolation, type Trouble } from '../faults/state-checker.js'
import { sweep, type SweepProgress, type SweepReport } from '../faults/sweep.js'
import { KeyriseError } from '../protocol/errors.js'
import { wholeNumber } from './arguments.js'
import { loadScenario } from './sweep-scenario.js'
import { startCheckers } from './sweep-threads.js'
import { EXIT, printText, table } from './terminal.js'

interface SweepFlags {
  readonly states?: number
  readonly faults?: number
  readonly crashAgain?: number
  readonly seed: string
  readonly long?: true
  readonly threads?: number
  readonly json?: string
  readonly replay?: string
}

/** `keyrise sweep SCENARIO…` */
export const addSweepCommand = (sweeping: Command): void => {
  sweeping
    .argument('<scenario...>', 'modules whose default export is a scenario (docs/fault-injection.md)')
    .option(
      '--states <count>',
      'crash states of each scenario to recover at most, those of crashed recoveries not counted',
      wholeNumber(1, 100_000_000),
    )
    .option(
      '--faults <count>',
      'how often each kind of fault, or of damage, is tried; 5, or with --long everywhere, unless told',
      wholeNumber(1, 1_000_000),
    )
    .option(
      '--crash-again <every>',
      'one in so many recoveries is crashed too; 16, or with --long 1, unless told',
      wholeNumber(1, 1_000_000),
    )
    .option('--long', 'every state that the engine finds, and crashes of every recovery')
    .option('--seed <text>', 'of what is chosen at random', '1')
    .option('--threads <count>', 'as many as the machine has cores unless told', wholeNumber(1, 64))
    .option('--json <file>', 'write a report')
    .option('--replay <crashes>', 'recover from one crash, as a violation names it')
    .action(run)
}

const run = async (paths: readonly string[], flags: SweepFlags): Promise<void> => {
  if (flags.replay !== undefined) return replayOne(paths[0] ?? '', flags.replay)
  const threadCount = flags.threads ?? availableParallelism()
  const reports: SweepReport[] = []
  for (const path of paths) {
    const scenario = await loadScenario(path)
    const report = await sweep(scenario, {
      seed: flags.seed,
      isLong: flags.long === true,
      ...(flags.faults === undefined ? {} : { faultsOfKind: flags.faults }),
      ...(flags.crashAgain === undefined ? {} : { crashedAgainEvery: flags.crashAgain }),
      ...(flags.states === undefined ? {} : { statesMax: flags.states }),
      startCheckers: (reference, options) => startCheckers(path, threadCount, reference, options),
      onProgress: showProgress,
    })
    reports.push(report)
    printReport(path, report)
  }
  const total = totalOf(reports)
  if (reports.length > 1) printText(`\n${lines(total).join('\n')}\n`)
  if (flags.json !== undefined)
    await writeFile(flags.json, `${JSON.stringify({ ...total, scenarios: reports }, null, 2)}\n`)
  if (total.violations.length > 0) process.exitCode = EXIT.failed
}

const totalOf = (reports: readonly SweepReport[]) => {
  const sum = (count: (report: SweepReport) => number): number => reports.reduce((all, each) => all + count(each), 0)
  return {
    states: sum(({ states }) => states),
    distinctStates: sum(({ distinctStates }) => distinctStates),
    recoveries: sum(({ recoveries }) => recoveries),
    crashPoints: sum(({ crashPoints }) => crashPoints.length),
    crashPointsCovered: sum(({ crashPointsCovered }) => crashPointsCovered.length),
    faultKinds: [...new Set(reports.flatMap(({ faultKinds }) => Object.keys(faultKinds)))],
    violations: reports.flatMap(({ scenario, violations }) => violations.map((each) => ({ scenario, ...each }))),
    seed: reports[0]?.seed ?? '',
    seconds: sum(({ seconds }) => seconds),
  }
}

const showProgress = ({ scenario, checkedCount, totalCount, violationCount }: SweepProgress): void => {
  if (!process.stderr.isTTY) return
  const found = violationCount === 0 ? '' : `, ${String(violationCount)} violations`
  process.stderr.write(`\r\u001b[K${scenario}: ${String(checkedCount)} of ${String(totalCount)} states${found}`)
  if (checkedCount === totalCount) process.stderr.write('\r\u001b[K')
}

const lines = (total: ReturnType<typeof totalOf>): string[] =>
  table([
    ['states', `${String(total.states)}, of which ${String(total.distinctStates)} distinct`],
    ['recoveries', `${String(total.recoveries)}, one for all states that a recovery cannot tell apart`],
    ['crash points', `${String(total.crashPointsCovered)} of ${String(total.crashPoints)} covered`],
    ['fault kinds', String(total.faultKinds.length)],
    ['violations', String(total.violations.length)],
    [
      'time',
      `${total.seconds.toFixed(1)} s, ${String(Math.round(total.distinctStates / total.seconds))} distinct states a second`,
    ],
    ['seed', total.seed],
  ])

const printReport = (path: string, report: SweepReport): void => {
  const covered = new Set(report.crashPointsCovered)
  const missed = report.crashPoints.filter((name) => !covered.has(name))
  printText(
    [
      report.scenario,
      ...lines(totalOf([report])),
      ...missed.map((name) => `not covered: ${name}`),
      ...report.violations.flatMap((violation) => violationLines(path, violation)),
      '',
    ].join('\n'),
  )
}

const violationLines = (path: string, { what, trouble }: FoundViolation): string[] => [
  `VIOLATION ${what}`,
  ...troubleLines(trouble).map((line) => `  ${line}`),
  `  replay: keyrise sweep ${path} --replay '${JSON.stringify(trouble).replaceAll("'", '\\u0027')}'`,
]

const troubleLines = (trouble: Trouble): string[] => {
  if ('faults' in trouble) return trouble.faults.map(({ fault, at }) => `${fault}: ${at}`)
  if ('clone' in trouble) return [`two hosts with the flow ${trouble.clone}`]
  if ('damage' in trouble) {
    const { damage, machine, path, at } = trouble.damage
    return [`${damage}: ${machine} ${path}, as it was after ${at}`]
  }
  return trouble.crashes.map(({ at, crash, kept }) => {
    const count = kept.host.length + kept.kms.length
    return `power cut of ${crash} after ${at}; unsynced changes kept: ${String(count)}`
  })
}

const replayOne = async (path: string, claimed: string): Promise<void> => {
  const scenario = await loadScenario(path)
  const trouble = readTrouble(claimed)
  const reference = await recordRun(scenario, { leaks: watchFor(scenario) })
  const what = await replay(scenario, reference, trouble)
  printText(what === undefined ? 'nothing is wrong\n' : `VIOLATION ${what}\n`)
  if (what !== undefined) process.exitCode = EXIT.failed
}

/** Its user’s own word, as `violationLines` printed it. @throws {KeyriseError} ERR_CONFIG_INVALID. */
const readTrouble = (claimed: string): Trouble => {
  try {
    const trouble = JSON.parse(claimed) as Trouble
    if (['crashes', 'faults', 'damage', 'clone'].some((kind) => kind in trouble)) return trouble
  } catch {
    // As what is JSON and no trouble.
  }
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail: '--replay: as a violation prints it' })
}
