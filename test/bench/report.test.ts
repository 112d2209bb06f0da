import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import test from 'ava'
import { fillDocument, writeDocuments } from '../../bench/document.js'
import { describeMachine, result, type Report } from '../../bench/report.js'
import { renderSvg } from '../../bench/svg.js'
import { renderReport } from '../../bench/table.js'

const summary = { ours: 4321.5, peer: 150, ratio: 28.81, runs: 5, spread: [27.1, 30.9] } as const
const REPORT: Report = {
  results: [
    result('P3.typage', 'typage', summary),
    result('P9', 'bytes stored', { ...summary, ours: 1e6, peer: 1e9, ratio: 0.0015, spread: [0.0012, 0.0016] }),
    result('P10', 'idle', { ...summary, ratio: 300, spread: [299, 301] }),
  ],
  curves: {
    payload: {
      what: 'opening <whole> & at once',
      x: 'payload, bytes',
      y: 'MB/s',
      series: [
        {
          name: 'keyrise',
          points: [
            [1024, 2],
            [2 ** 20, 900],
            [2 ** 30, 1000],
          ],
        },
        { name: 'jose', points: [[1024, 1]], note: 'strings end there' },
      ],
    },
    pool: {
      what: 'pool',
      x: 'threads',
      y: 'MB/s',
      series: [
        {
          name: 'keyrise',
          points: [
            [1, 5],
            [2, 9],
          ],
        },
      ],
    },
    primitives: {
      what: 'primitives',
      x: 'primitive',
      y: 'ops/s',
      series: [{ name: 'noble', points: [['X25519', 9]] }],
    },
  },
  skipped: [{ name: 'P4', why: 'age is not installed' }],
  failed: [{ name: 'P5', why: 'it broke' }],
  machine: describeMachine(),
  isQuick: false,
}

test('the table shows ratio, spread, bound, aim and grade of each row, and why others are missing', (t) => {
  const text = renderReport(REPORT, { isColored: false })
  for (const part of [
    'bulk unseal in memory, pool of 2: 4,322 MB/s; typage: 150 MB/s',
    '28.8× (27.1× … 30.9×)',
    'at least 20×, aim 32×: reached',
    '0.15 % (0.12 % … 0.16 %)',
    'at most 0.2 %, aim 0.1 %: reached',
    '300 MiB (299 MiB … 301 MiB)',
    'at most 128 MiB, aim 64 MiB: MISSED',
    'jose: strings end there',
    'skipped P4: age is not installed',
    'failed P5: it broke',
  ])
    t.true(text.includes(part), `${part}\n${text}`)
})

test('a bar has the bound and the aim on it, and ends where the ratio is', (t) => {
  const bars = renderReport(REPORT, { isColored: false })
    .split('\n')
    .filter((line) => line.includes('┊'))
    .map((line) => line.slice(11, 43))
  t.is(bars.length, 3)
  for (const bar of bars) t.is((bar.match(/│/g) ?? []).length, 1)
  const [below, , above] = bars
  // Less than the aim, more than the bound; then more than both.
  t.regex(below ?? '', /^█+│█+[▏▎▍▌▋▊▉]? *┊ *$/)
  t.regex(above ?? '', /^█+┊█+│█+/)
})

test('colours are put on only where they are asked for, and change no text', (t) => {
  const colored = renderReport(REPORT, { isColored: true })
  const plain = renderReport(REPORT, { isColored: false })
  t.not(colored, plain)
  t.is(stripVTControlCharacters(colored), plain)
  t.is(stripVTControlCharacters(plain), plain)
})

/** Tags close in order and what is between them is escaped: enough for the few elements that are drawn. */
const assertWellFormed = (svg: string): void => {
  const open: string[] = []
  const rest = svg.replaceAll(
    /<(\/?)([a-z]+)((?: [a-zA-Z-]+="[^"<]*")*)(\/?)>/g,
    (_, closing, tag: string, _more, alone) => {
      if (closing === '/') {
        if (open.pop() !== tag) throw new Error(`</${tag}> closes nothing`)
      } else if (alone !== '/') open.push(tag)
      return ''
    },
  )
  if (open.length > 0) throw new Error(`<${String(open.at(-1))}> is open`)
  const stray = /[<>]|&(?!(?:amp|lt|gt|quot);)/.exec(rest)
  if (stray !== null) throw new Error(`${stray[0]} in ${rest.slice(stray.index - 20, stray.index + 20)}`)
}

test('the picture is well-formed and holds every curve', (t) => {
  const svg = renderSvg(REPORT.curves)
  t.notThrows(() => assertWellFormed(svg))
  t.true(svg.includes('opening &lt;whole&gt; &amp; at once'))
  t.is((svg.match(/<path class="curve"/g) ?? []).length, 3)
  t.is((svg.match(/<circle/g) ?? []).length, 6)
  t.false(/NaN|Infinity|undefined/.test(svg))
  t.throws(() => assertWellFormed(svg.replace('</g>', '')))
})

test('the document takes figures between its marks, and nothing but whole runs', async (t) => {
  const document = '# Title\n\n<!-- figures -->\n\nold\n\n<!-- end of figures -->\n\nrest\n'
  const filled = fillDocument(document, REPORT)
  t.false(filled.includes('old'))
  t.regex(filled, /^# Title\n\n<!-- figures -->[^]+\| P10 \|[^]+<!-- end of figures -->\n\nrest\n$/)
  t.is(fillDocument(filled, REPORT), filled)
  t.throws(() => fillDocument('no marks', REPORT))
  await t.throwsAsync(writeDocuments(REPORT, ['P6']), { message: /whole runs only/ })
  await t.throwsAsync(writeDocuments({ ...REPORT, isQuick: true }, ['P9']), { message: /whole runs only/ })
})

const MAIN = fileURLToPath(new URL('../../bench/main.js', import.meta.url))

const bench = (...flags: string[]): Promise<{ code: number | string | null; out: string; err: string }> =>
  new Promise((resolve) => {
    const env = { ...process.env, FORCE_COLOR: '0' }
    execFile(process.execPath, [MAIN, ...flags], { env }, (error, out, err) =>
      resolve({ code: error?.code ?? 0, out, err }),
    )
  })

test('a row that there is not is refused by name, before anything is measured', async (t) => {
  const { code, out, err } = await bench('--only', 'P6,P13')
  t.is(code, 1)
  t.is(out, '')
  t.regex(err, /there is no P13\. There are .*P6/)
})

test('a row’s name before the point asks for all rows that begin with it', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-bench-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const file = join(directory, 'bench.json')
  const { code } = await bench('--quick', '--only', 'P1,P2,P11,P12', '--json', file)
  t.is(code, 0)
  const report = JSON.parse(await readFile(file, 'utf8')) as Report
  t.deepEqual(
    report.results.map(({ id, target }) => [id, target]),
    [
      ['P1', { atMost: 1.5, aim: 1.1 }],
      ['P2.raw', { atLeast: 1.5, aim: 4 }],
      ['P2.comlink', { atLeast: 7, aim: 20 }],
      ['P11', { atMost: 0.5, aim: 0.05 }],
      ['P12.train', { atMost: 1.3, aim: 1.05 }],
      ['P12.chacha', { atMost: 1.3, aim: 1.05 }],
    ],
  )
  t.deepEqual([report.curves, report.failed, report.skipped], [{}, [], []])
})

test('the command: progress on standard error, the table on standard output, all of it in the file', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-bench-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const file = join(directory, 'bench.json')
  const { code, out, err } = await bench('--quick', '--only', 'P6', '--json', file)
  t.is(code, 0)
  t.regex(err, /^P6: run 1 of 1$/m)
  t.regex(out, /these figures mean nothing[^]*P6 /)
  const report = JSON.parse(await readFile(file, 'utf8')) as Report
  t.deepEqual(Object.keys(report).sort(), ['curves', 'failed', 'isQuick', 'machine', 'results', 'skipped'])
  t.deepEqual(
    report.results.map(({ id, peerName, unit, target }) => ({ id, peerName, unit, target })),
    [{ id: 'P6', peerName: 'typage', unit: 'ops/s', target: { atLeast: 6, aim: 30 } }],
  )
})
