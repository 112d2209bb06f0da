import test from 'ava'
import { lineDisplay, LiveDisplay } from '../../examples/federated-learning/display.js'
import type { JobEvent, JobResult } from '../../examples/federated-learning/job.js'
import type { LeakScanResult } from '../../examples/federated-learning/leak-scan.js'
import { figuresOf, isGood, median, reportOf, type Outcome } from '../../examples/federated-learning/report.js'
import { drawSvg, drawText, timelineOf } from '../../examples/federated-learning/timeline.js'

const EVENTS: JobEvent[] = [
  { atMs: 0, type: 'phase', name: 'starting the KMS' },
  { atMs: 100, type: 'phase', name: 'launching enclaves' },
  ...['screening-north', 'oncology', 'screening-south', 'decryptor'].map((flow): JobEvent => ({
    atMs: 200,
    type: 'serving',
    flow,
    recoveredInMs: undefined,
  })),
  { atMs: 300, type: 'phase', name: 'round 0: statistics' },
  { atMs: 400, type: 'killed', kill: { flow: 'oncology', step: 'round-0', moment: 'write-lost' } },
  { atMs: 400, type: 'lost', flow: 'oncology' },
  { atMs: 500, type: 'serving', flow: 'oncology', recoveredInMs: 100 },
  { atMs: 510, type: 'round', round: { round: 0, participants: ['oncology'], loss: undefined, accuracy: undefined } },
  { atMs: 520, type: 'phase', name: 'round 1 of 1' },
  { atMs: 600, type: 'away', flow: 'screening-north' },
  { atMs: 650, type: 'kms-killed' },
  { atMs: 750, type: 'kms-restored', tookMs: 100 },
  { atMs: 800, type: 'serving', flow: 'screening-north', recoveredInMs: undefined },
  { atMs: 800, type: 'back', flow: 'screening-north' },
  { atMs: 900, type: 'round', round: { round: 1, participants: ['oncology'], loss: 0.5, accuracy: 0.97 } },
  { atMs: 1000, type: 'end' },
]
const plain = (_what: string, text: string): string => text

test('a lane has no gaps and shows what became of its enclave', (t) => {
  const { lanes, roundsMs, endMs } = timelineOf(EVENTS)
  t.is(endMs, 1000)
  t.deepEqual(roundsMs, [300, 520])
  const states = Object.fromEntries(lanes.map(({ name, spans }) => [name, spans.map(({ state }) => state).join(' ')]))
  t.deepEqual(states, {
    'screening-north': 'serving away serving',
    oncology: 'serving recovering serving',
    'screening-south': 'serving',
    decryptor: 'serving',
    KMS: 'serving recovering serving',
  })
  for (const { spans } of lanes) {
    t.is(spans.at(-1)?.toMs, 1000)
    t.true(spans.every((span, index) => span.toMs === (spans[index + 1]?.fromMs ?? 1000)))
  }
})

test('the picture in text fits its width and marks each death where it was', (t) => {
  const [ruler, ...lanes] = drawText(timelineOf(EVENTS), 80, plain)
  t.true([ruler ?? '', ...lanes].every((line) => line.length <= 80))
  const cell = (ms: number): number => 17 + Math.floor((ms / 1000) * 63)
  t.is(lanes[1]?.[cell(400)], '✕')
  t.is(lanes[4]?.[cell(650)], '✕')
  t.is(lanes.join('').split('✕').length - 1, 2)
  t.is(ruler?.[cell(300)], '0')
})

test('the SVG is well formed', (t) => {
  const svg = drawSvg(timelineOf(EVENTS), 'A run')
  const open: string[] = []
  for (const [, slash, name, empty] of svg.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)) {
    if (slash === '/') t.is(open.pop(), name)
    else if (empty !== '/') open.push(name ?? '')
  }
  t.deepEqual(open, [])
  t.is(svg.split('class="kill"').length - 1, 2)
})

test('without a terminal, one line for each thing that happens', (t) => {
  const lines: string[] = []
  const display = lineDisplay((text) => lines.push(text), plain)
  EVENTS.forEach((event) => {
    display.show(event)
  })
  t.true(lines.every((line) => line.endsWith('\n') && !line.includes('\u001b')))
  t.is(lines.length, 8)
  t.regex(
    lines.join(''),
    /oncology killed while it wrote; the file is lost \(round-0\)\n.*oncology recovered in 0\.10 s/,
  )
})

test('the live block goes up exactly as many lines as it wrote before', (t) => {
  let text = ''
  const display = new LiveDisplay({ write: (part) => (text += part), paint: plain, roundCount: 1 })
  EVENTS.forEach((event) => {
    display.show(event)
  })
  display.end()
  const parts = text.split('\r')
  t.true(parts.length > EVENTS.length)
  parts.slice(0, -1).forEach((part, index) => {
    const up = Number(/\u001b\[(\d+)A$/.exec(part)?.[1] ?? 0)
    t.is(up, index === 0 ? 0 : part.split('\n').length - 1)
  })
})

const scan: LeakScanResult = {
  ...{
    secretsStored: 100,
    secretsLost: [],
    secretsSearched: 200,
    unsearchable: [],
    leaks: [],
    filesScanned: 9,
    bytesScanned: 1000,
  },
  kinds: [],
}
const result = (events: JobEvent[], modelDigest: string): JobResult => ({
  ...{ accuracy: 0.97, modelDigest, events, enclaveKills: 1, passphrase: new Uint8Array(), receipts: {} },
  rounds: [0, 1].map((round) => ({ round, participants: [], loss: undefined, accuracy: undefined })),
  place: { directory: '', custody: '', policy: '', log: '' },
})
const outcome: Outcome = {
  ...{ seed: 4, scans: [scan, scan], testPatients: 10, killed: result(EVENTS, 'ab'), uninterrupted: result([], 'ab') },
  yardsticks: {
    centralised: 0.98,
    alone: [0.9, 0.8].map((accuracy) => ({ name: 'x', accuracy, patients: 1, malignant: 0 })),
  },
}

test('the figures are those of the runs', (t) => {
  t.deepEqual(figuresOf(outcome), {
    ...{ rounds: 1, accuracy: 0.97, accuracyCentralised: 0.98, accuracyBestSingleParty: 0.9, seed: 4 },
    ...{
      modelDigest: 'ab',
      modelDigestUninterrupted: 'ab',
      enclaveKills: 1,
      kmsKills: 1,
      recoveries: 1,
      recoveryMsMedian: 100,
    },
    ...{ secretsStored: 100, secretsLost: 0, leaksFound: 0, bytesScanned: 2000 },
  })
  t.is(median([3, 1, 2]), 2)
  t.is(median([4, 1, 2, 3]), 2.5)
})

test('another digest, a lost secret or a leak is not good, and the report says which', (t) => {
  const leak = { secret: 'oncology: session/decryptor', path: 'x', form: 'hex', offset: 3 }
  const bad: [Outcome, RegExp][] = [
    [{ ...outcome, uninterrupted: result([], 'cd') }, /DIFFERENT/],
    [
      { ...outcome, scans: [scan, { ...scan, secretsLost: ['oncology: password/archive'] }] },
      /oncology: password\/archive/,
    ],
    [{ ...outcome, scans: [{ ...scan, leaks: [leak] }, scan] }, /oncology: session\/decryptor as hex in x at 3/],
  ]
  t.true(isGood(figuresOf(outcome)))
  for (const [changed, said] of bad) {
    t.false(isGood(figuresOf(changed)))
    t.regex(reportOf(changed, plain).join('\n'), said)
  }
})
