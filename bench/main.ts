import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError } from 'commander'
import { writeDocuments } from './document.js'
import { FULL, LONG, QUICK } from './measurement.js'
import { gradeOf } from './report.js'
import { NAMES, run } from './run.js'
import { renderReport } from './table.js'

/** `npm run bench`. */

const readNames = (text: string): string[] => {
  const asked = text.split(',').map((name) => name.trim())
  // P3 asks for P3.typage, P3.esdk and P3.openssl.
  const found = asked.map((name) => NAMES.filter((known) => known === name || known.startsWith(`${name}.`)))
  const unknown = asked.filter((_, index) => found[index]?.length === 0)
  if (unknown.length === 0) return found.flat()
  throw new InvalidArgumentError(`there is no ${unknown.join(', ')}. There are ${NAMES.join(', ')}.`)
}

interface Flags {
  readonly json?: string
  readonly only?: readonly string[]
  readonly quick?: true
  readonly long?: true
  readonly docs?: true
  readonly strict?: true
}

const program = new Command('npm run bench --')
  .description('Measures Keyrise beside its peers, in one run. docs/performance.md says what each row means.')
  .option('--json <file>', 'write the results there')
  .option('--only <names>', `some of them, by commas: ${NAMES.join(', ')}; P3 is all of P3`, readNames)
  .option('--quick', 'see that all of it runs, on tiny sizes; the figures mean nothing')
  .option('--long', 'typage and the AWS Encryption SDK at 1 GiB too: four minutes more')
  .option('--docs', 'put figures and curves into docs/')
  .option('--strict', 'exit with 1 where a row misses its “at least”; otherwise 0, whatever the figures')
  .allowExcessArguments(false)
  .showHelpAfterError('(--help shows what there is)')
  .parse()
const { json, only, quick, long, docs, strict } = program.opts<Flags>()

const report = await run({
  names: only ?? NAMES,
  scale: quick ? QUICK : long ? LONG : FULL,
  isQuick: quick === true,
  say: (line) => process.stderr.write(`${line}\n`),
})
if (json !== undefined) await writeFile(json, `${JSON.stringify(report, undefined, 2)}\n`)
process.stdout.write(renderReport(report, { isColored: process.stdout.isTTY && process.stdout.hasColors() }))
if (docs) await writeDocuments(report, NAMES)
const isMissed = strict === true && report.results.some((row) => gradeOf(row) === 'missed')
if (report.failed.length > 0 || isMissed) process.exitCode = 1
