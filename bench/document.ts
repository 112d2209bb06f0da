import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import prettier from 'prettier'
import { formatFigure, formatGraded, formatPlace } from './figures.js'
import { gradeOf, type Curve, type Report, type Result } from './report.js'
import { renderSvg } from './svg.js'

/** Puts a report into docs/performance.md, between its two marks, and its curves into the picture beside it. */

/** This file is compiled to dist/bench/. */
const DOCS = new URL('../../docs/', import.meta.url)
const MARKED = /(<!-- figures -->\n)[^]*(<!-- end of figures -->)/

/**
 * @param names - of all rows and curves.
 * @throws {Error} when one of them is missing: half a table would be worse than an old one.
 */
export const writeDocuments = async (report: Report, names: readonly string[]): Promise<void> => {
  const measured = [...report.results.map(({ id }) => id), ...Object.keys(report.curves)]
  if (report.isQuick || names.some((name) => !measured.includes(name)))
    throw new Error('docs/ takes whole runs only: nothing was written there')
  const file = fileURLToPath(new URL('performance.md', DOCS))
  const document = fillDocument(await readFile(file, 'utf8'), report)
  const options = await prettier.resolveConfig(file)
  await writeFile(file, await prettier.format(document, { ...options, parser: 'markdown' }))
  await writeFile(new URL('performance.svg', DOCS), renderSvg(report.curves))
}

const PICTURE = '![How the cost of Keyrise grows, beside its peers](performance.svg)'

export const fillDocument = (document: string, report: Report): string => {
  if (!MARKED.test(document)) throw new Error('docs/performance.md has no place for figures')
  const figures = [
    renderMachine(report),
    renderResults(report.results),
    PICTURE,
    ...Object.values(report.curves).map(renderCurve),
  ]
  return document.replace(MARKED, (_, start: string, end: string) => `${start}\n${figures.join('\n\n')}\n\n${end}`)
}

const renderMachine = ({ machine, results }: Report): string => {
  const { date, processor, coreCount, memoryGiB, system, node, openssl } = machine
  const runs = Math.max(...results.map((row) => row.runs))
  const place = `${processor}, ${coreCount} cores, ${memoryGiB} GiB, ${system}, Node ${node.slice(1)}, OpenSSL ${openssl}`
  return `Measured on ${date.slice(0, 10)}: ${place}. Medians of ${runs} runs.`
}

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`

const MARKS = { aim: 'aim reached', met: 'reached', missed: '**missed**' } as const

const renderResults = (results: readonly Result[]): string =>
  [
    row(['row', 'what', 'ours', 'peer', 'ratio (lowest … highest)', 'bound', 'aim', '']),
    row(Array<string>(8).fill('---')),
    ...results.map((one) => {
      const { id, what, ours, peer, peerName, unit, ratio, spread, target } = one
      const graded = (value: number): string => formatGraded(value, one)
      return row([
        id,
        what,
        `${formatFigure(ours)} ${unit}`,
        `${peerName}: ${formatFigure(peer)} ${unit}`,
        `${graded(ratio)} (${spread.map(graded).join(' … ')})`,
        'atLeast' in target ? `≥ ${graded(target.atLeast)}` : `≤ ${graded(target.atMost)}`,
        graded(target.aim),
        MARKS[gradeOf(one)],
      ])
    }),
  ].join('\n')

const renderCurve = ({ what, x, y, series }: Curve): string => {
  const places = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))]
  return [
    `${what}, ${y}:`,
    '',
    row([x, ...series.map(({ name }) => name)]),
    row(Array<string>(series.length + 1).fill('---')),
    ...places.map((place) =>
      row([
        formatPlace(x, place),
        ...series.map(({ points }) => {
          const found = points.find(([at]) => at === place)
          return found === undefined ? '–' : formatFigure(found[1])
        }),
      ]),
    ),
    ...series.flatMap(({ name, note }) => (note === undefined ? [] : ['', `${name}: ${note}.`])),
  ].join('\n')
}
