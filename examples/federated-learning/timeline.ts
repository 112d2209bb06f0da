import type { JobEvent } from './job.js'
import { FLOWS } from './schedule.js'

/** A run as a picture: who served when, who was killed, how long it took to come back. */

export type LaneState = 'serving' | 'recovering' | 'away'
export interface Lane {
  readonly name: string
  /** One after the other, without gaps. */
  readonly spans: readonly { readonly fromMs: number; readonly toMs: number; readonly state: LaneState }[]
  readonly killsMs: readonly number[]
}
export interface Timeline {
  readonly lanes: readonly Lane[]
  readonly roundsMs: readonly number[]
  readonly endMs: number
}

const KMS = 'KMS'

/** What an event makes of which lane. */
const changeOf = (event: JobEvent): { name: string; state: LaneState } | undefined => {
  switch (event.type) {
    case 'serving':
      return { name: event.flow, state: 'serving' }
    case 'lost':
      return { name: event.flow, state: 'recovering' }
    case 'away':
      return { name: event.flow, state: 'away' }
    case 'kms-killed':
      return { name: KMS, state: 'recovering' }
    case 'kms-restored':
      return { name: KMS, state: 'serving' }
    default:
      return undefined
  }
}

const killOf = (event: JobEvent): string | undefined => {
  if (event.type === 'killed') return event.kill.flow
  return event.type === 'kms-killed' ? KMS : undefined
}

export const timelineOf = (events: readonly JobEvent[]): Timeline => {
  const endMs = events.at(-1)?.atMs ?? 0
  // The KMS serves once enclaves are launched.
  const launchMs = events.find((event) => event.type === 'phase' && event.name.startsWith('launching'))?.atMs ?? 0
  const lanes = [...FLOWS, KMS].map((name): Lane => {
    const start = name === KMS ? [{ fromMs: launchMs, state: 'serving' as LaneState }] : []
    const changes = events.flatMap((event) => {
      const change = changeOf(event)
      return change?.name === name ? [{ fromMs: event.atMs, state: change.state }] : []
    })
    const starts = [...start, ...changes]
    const spans = starts.map((span, index) => ({ ...span, toMs: starts[index + 1]?.fromMs ?? endMs }))
    return { name, spans, killsMs: events.filter((event) => killOf(event) === name).map(({ atMs }) => atMs) }
  })
  const roundsMs = events.flatMap((event) =>
    event.type === 'phase' && event.name.startsWith('round') ? [event.atMs] : [],
  )
  return { lanes, roundsMs, endMs }
}

const NAME_WIDTH = 17
const SIGN: Readonly<Record<LaneState, string>> = { serving: '━', recovering: '░', away: ' ' }
const KILL = '✕'

/** @param paint - colours a sign: `kill`, or the state of a lane. */
export const drawText = (
  { lanes, roundsMs, endMs }: Timeline,
  width: number,
  paint: (what: LaneState | 'kill' | 'round', sign: string) => string,
): string[] => {
  const cellCount = Math.max(20, width - NAME_WIDTH)
  const cellOf = (ms: number): number => Math.min(cellCount - 1, Math.floor((ms / endMs) * cellCount))
  const ruler = Array<string>(cellCount).fill(' ')
  let free = 0
  roundsMs.forEach((ms, round) => {
    const label = String(round)
    const cell = cellOf(ms)
    if (cell < free || cell + label.length > cellCount) return
    ;[...label].forEach((sign, at) => (ruler[cell + at] = sign))
    free = cell + label.length + 1
  })
  const rows = lanes.map(({ name, spans, killsMs }) => {
    const cells = Array<string>(cellCount).fill(' ')
    for (const { fromMs, toMs, state } of spans) {
      for (let cell = cellOf(fromMs); cell <= cellOf(toMs); cell++) cells[cell] = paint(state, SIGN[state])
    }
    for (const ms of killsMs) cells[cellOf(ms)] = paint('kill', KILL)
    return name.padEnd(NAME_WIDTH) + cells.join('')
  })
  return ['round'.padEnd(NAME_WIDTH) + paint('round', ruler.join('')), ...rows]
}

const COLOUR: Readonly<Record<LaneState, string>> = { serving: '#2a9d8f', recovering: '#e9c46a', away: 'none' }
const SVG = { width: 1000, left: 130, right: 20, top: 40, laneHeight: 30, barHeight: 14 } as const

/** A self-contained picture. All text in it is ours: nothing has to be escaped. */
export const drawSvg = ({ lanes, roundsMs, endMs }: Timeline, title: string): string => {
  const { width, left, right, top, laneHeight, barHeight } = SVG
  const bottom = top + lanes.length * laneHeight
  const x = (ms: number): string => (left + (ms / endMs) * (width - left - right)).toFixed(1)
  const rounds = roundsMs.map(
    (ms, round) =>
      `<line x1="${x(ms)}" x2="${x(ms)}" y1="${String(top - 8)}" y2="${String(bottom)}" stroke="#8884"/>` +
      `<text x="${x(ms)}" y="${String(top - 12)}" text-anchor="middle" class="small">${String(round)}</text>`,
  )
  const bars = lanes.map(({ name, spans, killsMs }, index) => {
    const y = top + index * laneHeight
    const middle = y + barHeight / 2
    const parts = spans
      .filter(({ state }) => state !== 'away')
      .map(({ fromMs, toMs, state }) => {
        const size = Math.max(0.5, ((toMs - fromMs) / endMs) * (width - left - right)).toFixed(1)
        return `<rect x="${x(fromMs)}" y="${String(y)}" width="${size}" height="${String(barHeight)}" fill="${COLOUR[state]}"/>`
      })
    const kills = killsMs.map(
      (ms) => `<text x="${x(ms)}" y="${String(middle + 6)}" text-anchor="middle" class="kill">${KILL}</text>`,
    )
    return `<text x="${String(left - 10)}" y="${String(middle + 4)}" text-anchor="end">${name}</text>${parts.join('')}${kills.join('')}`
  })
  const legend = `${KILL} killed · yellow: recovering · gap: away · numbers: rounds · ${(endMs / 1000).toFixed(1)} s in all`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${String(width)} ${String(bottom + 30)}" font-family="sans-serif" font-size="13">`,
    '<style>text{fill:#444}.small{font-size:11px}.kill{fill:#d62828;font-weight:bold;font-size:17px}',
    '@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>',
    `<title>${title}</title>`,
    ...rounds,
    ...bars,
    `<text x="${String(left)}" y="${String(bottom + 18)}" class="small">${legend}</text>`,
    '</svg>',
    '',
  ].join('\n')
}
