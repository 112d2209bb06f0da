import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs, styleText } from 'node:util'
import { LEVELS } from './attack.js'
import { LEVEL_NAMES, matrixDocument } from './matrix.js'
import { ATTACKS } from './registry.js'
import { Arena, runAll, type Row } from './run.js'

const HELP = `npm run attack [-- options]

Runs every attack on a plain worker, on an enclave in a hardened worker and on one in a process of its own, prints
what came of each, and writes docs/attack-matrix.md.

  --json FILE    also write rows of attack, level, expected, observed, ok, detail
  --only NAME    only this attack; may be repeated
  --level LEVEL  only this level: ${LEVELS.join(', ')}
  --help

Exit code 1 when an outcome is not the expected one. Without root, gdb's or strace's rights some attacks cannot be
tried: they are listed as skipped.
`

const DOCUMENT = fileURLToPath(new URL('../../../docs/attack-matrix.md', import.meta.url))

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    only: { type: 'string', multiple: true },
    level: { type: 'string' },
    help: { type: 'boolean' },
  },
})

const isColoured = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === ''
const paint = (colour: 'red' | 'green' | 'dim', text: string): string => (isColoured ? styleText(colour, text) : text)

const refuse = (text: string): never => {
  console.error(text)
  process.exit(2)
}

const progress = (row: Row, done: number, total: number): void => {
  const line = `[${done}/${total}] ${row.attack}, ${LEVEL_NAMES[row.level]}: ${row.observed}, ${row.detail}`
  console.error(row.ok ? paint('dim', line) : paint('red', `${line} (expected: ${row.expected})`))
}

const shown = (row: Row | undefined): string => {
  if (row === undefined) return ''
  return row.ok ? row.observed : `${row.observed} (!)`
}

const printTable = (rows: readonly Row[]): void => {
  const lines = ATTACKS.filter(({ name }) => rows.some(({ attack }) => attack === name)).map((attack) => {
    const cells = LEVELS.map((level) => shown(rows.find((row) => row.attack === attack.name && row.level === level)))
    return [attack.name, attack.attacker, ...cells, attack.needsTee === true ? 'yes' : '']
  })
  const header = ['attack', 'attacker', ...LEVELS.map((level) => LEVEL_NAMES[level]), 'needs a TEE']
  const widths = header.map((title, column) =>
    Math.max(title.length, ...lines.map((line) => line[column]?.length ?? 0)),
  )
  for (const line of [header, ...lines]) {
    const text = line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
    console.log(line.some((cell) => cell.endsWith('(!)')) ? paint('red', text) : text)
  }
}

if (values.help === true) {
  console.log(HELP)
  process.exit(0)
}
const unknown = values.only?.find((name) => !ATTACKS.some((attack) => attack.name === name))
if (unknown !== undefined) refuse(`There is no attack ${unknown}: see docs/attack-matrix.md`)
const levels = LEVELS.filter((level) => values.level === undefined || level === values.level)
if (levels.length === 0) refuse(`There is no level ${String(values.level)}: ${LEVELS.join(', ')}`)

const attacks = ATTACKS.filter(({ name }) => values.only?.includes(name) ?? true)
await using arena = await Arena.open()
const rows: Row[] = await runAll(arena, attacks, levels, progress)
printTable(rows)
if (attacks.length === ATTACKS.length) await writeFile(DOCUMENT, matrixDocument(ATTACKS))
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(rows, null, 2)}\n`)
const wrong = rows.filter(({ ok }) => !ok)
const skipped = rows.filter(({ observed }) => observed === 'skipped')
for (const { attack, level, detail } of skipped) console.log(`skipped: ${attack}, ${LEVEL_NAMES[level]}: ${detail}`)
console.log(
  wrong.length === 0
    ? paint('green', `${rows.length} outcomes, all as expected`)
    : paint('red', `${wrong.length} of ${rows.length} outcomes are not as expected`),
)
process.exitCode = wrong.length === 0 ? 0 : 1
