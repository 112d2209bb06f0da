import { styleText } from 'node:util'
import { formatFigure, formatGraded, formatPlace } from './figures.js'
import { gradeOf, type Curve, type Grade, type Report, type Result } from './report.js'

/** What a terminal shows of a report. */

const BAR_WIDTH = 32
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
const COLORS = { aim: 'green', met: 'yellow', missed: 'red' } as const
const MARKS: Readonly<Record<Grade, string>> = { aim: 'aim reached', met: 'reached', missed: 'MISSED' }

export const renderReport = (report: Report, { isColored }: { readonly isColored: boolean }): string => {
  const paint = (color: 'green' | 'yellow' | 'red' | 'dim', text: string): string =>
    isColored ? styleText(color, text, { validateStream: false }) : text
  const { results, curves, skipped, failed, machine, isQuick } = report
  const lines = [
    `${machine.processor}, ${machine.coreCount} cores, Node ${machine.node}, OpenSSL ${machine.openssl}`,
    ...(isQuick ? [paint('red', 'A quick run: these figures mean nothing.')] : []),
    '',
    ...results.flatMap((row) => [...renderResult(row, (text) => paint(COLORS[gradeOf(row)], text)), '']),
    ...Object.entries(curves).flatMap(([name, curve]) => [...renderCurve(name, curve), '']),
    ...skipped.map(({ name, why }) => `skipped ${name}: ${why}`),
    ...failed.map(({ name, why }) => paint('red', `failed ${name}: ${why}`)),
  ]
  return `${lines.join('\n').trimEnd()}\n`
}

const renderResult = (row: Result, paint: (text: string) => string): string[] => {
  const { id, what, ours, peer, peerName, unit, ratio, spread, target } = row
  const graded = (value: number): string => formatGraded(value, row)
  const bound = 'atLeast' in target ? `at least ${graded(target.atLeast)}` : `at most ${graded(target.atMost)}`
  return [
    `${id.padEnd(11)}${what}: ${formatFigure(ours)} ${unit}; ${peerName}: ${formatFigure(peer)} ${unit}`,
    `${' '.repeat(11)}${paint(bar(row))}  ${graded(ratio)} (${spread.map(graded).join(' … ')})`,
    `${' '.repeat(11)}${bound}, aim ${graded(target.aim)}: ${paint(MARKS[gradeOf(row)])}`,
  ]
}

/** The ratio to scale, `│` where it must reach or stay under, `┊` at the aim. */
const bar = ({ ratio, target }: Result): string => {
  const bound = 'atLeast' in target ? target.atLeast : target.atMost
  const full = Math.max(ratio, bound, target.aim) * 1.05
  const at = (value: number): number => Math.min(BAR_WIDTH - 1, Math.floor((value / full) * BAR_WIDTH))
  const eighths = Math.round((Math.max(0, ratio) / full) * BAR_WIDTH * 8)
  const cells = Array.from(('█'.repeat(eighths >> 3) + (EIGHTHS[eighths & 7] ?? '')).padEnd(BAR_WIDTH, ' '))
  cells[at(target.aim)] = '┊'
  cells[at(bound)] = '│'
  return cells.join('')
}

const renderCurve = (name: string, { what, x, y, series }: Curve): string[] => {
  const xs = [...new Set(series.flatMap(({ points }) => points.map(([value]) => value)))]
  const rows = [
    [x, ...series.map((one) => one.name)],
    ...xs.map((value) => [
      formatPlace(x, value),
      ...series.map(({ points }) => {
        const point = points.find(([at]) => at === value)
        return point === undefined ? '–' : formatFigure(point[1])
      }),
    ]),
  ]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  const cell = (text: string, column: number): string =>
    column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)
  return [
    `${name}: ${what}, ${y}`,
    ...rows.map((row) => `  ${row.map(cell).join('  ')}`),
    ...series.flatMap(({ name: who, note }) => (note === undefined ? [] : [`  ${who}: ${note}`])),
  ]
}
