import type { JobEvent } from './job.js'
import type { Paint } from './report.js'
import { FLOWS } from './schedule.js'

/** A run as it goes on: a block that is redrawn on a terminal, a line for each thing that happens elsewhere. */
export interface Display {
  show(event: JobEvent): void
  end(): void
}

const EXPLAINED: Readonly<Record<string, string>> = {
  'between-calls': 'between two calls',
  'call-posted': 'with a call on its way',
  'write-lost': 'while it wrote; the file is lost',
  'write-done': 'while it wrote; the file is there, half a checkpoint',
  'commit-lost': 'before the KMS heard of its checkpoint',
  'commit-done': 'after the KMS recorded its checkpoint, before it knew',
  recovering: 'again, while it recovered',
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`

/** One line for what is worth one. */
const lineOf = (event: JobEvent, paint: Paint): string | undefined => {
  switch (event.type) {
    case 'killed':
      return `${paint('bad', '✕')} ${event.kill.flow} killed ${EXPLAINED[event.kill.moment] ?? ''} (${event.kill.step})`
    case 'serving':
      return event.recoveredInMs === undefined
        ? undefined
        : `${paint('good', '↑')} ${event.flow} recovered in ${seconds(event.recoveredInMs)}`
    case 'kms-killed':
      return `${paint('bad', '✕')} KMS killed with SIGKILL, in the middle of a commit`
    case 'kms-restored':
      return `${paint('good', '↑')} KMS restored from custody in ${seconds(event.tookMs)}`
    case 'away':
      return `${paint('dim', '○')} ${event.flow} drops out`
    case 'back':
      return `${paint('good', '●')} ${event.flow} is back`
    case 'round':
      return event.round.accuracy === undefined
        ? 'round 0: statistics summed under encryption'
        : `round ${String(event.round.round)}: ${String(event.round.participants.length)} of 3 hospitals, loss ${(event.round.loss ?? 0).toFixed(3)}, accuracy ${event.round.accuracy.toFixed(3)}`
    default:
      return undefined
  }
}

/** @param write - takes whole lines. */
export const lineDisplay = (write: (text: string) => void, paint: Paint): Display => ({
  show: (event) => {
    const line = lineOf(event, paint)
    if (line !== undefined) write(`${seconds(event.atMs).padStart(9)}  ${line}\n`)
  },
  end: () => undefined,
})

const HISTORY_COUNT = 6
const ROUNDS_WIDTH = 24

/** Redraws its block in place. */
export class LiveDisplay implements Display {
  readonly #write: (text: string) => void
  readonly #paint: Paint
  readonly #roundCount: number
  readonly #states = new Map<string, string>([...FLOWS, 'KMS'].map((flow) => [flow, 'starting']))
  readonly #kills = new Map<string, number>()
  readonly #history: string[] = []
  #phase = ''
  #round = 0
  #score = ''
  #lineCount = 0

  constructor(options: { write: (text: string) => void; paint: Paint; roundCount: number }) {
    this.#write = options.write
    this.#paint = options.paint
    this.#roundCount = options.roundCount
  }

  show(event: JobEvent): void {
    this.#follow(event)
    const line = lineOf(event, this.#paint)
    if (line !== undefined && event.type !== 'round') this.#history.push(line)
    this.#draw(this.#block())
  }

  /** Clears the block: the report takes its place. */
  end(): void {
    this.#draw([])
  }

  #follow(event: JobEvent): void {
    if (event.type === 'phase') {
      this.#phase = event.name
      if (event.name.startsWith('launching')) this.#states.set('KMS', 'serving')
    } else if (event.type === 'round') {
      this.#round = event.round.round
      if (event.round.accuracy !== undefined)
        this.#score = `accuracy ${event.round.accuracy.toFixed(3)}, loss ${(event.round.loss ?? 0).toFixed(3)}`
    } else if (event.type === 'killed') this.#fall(event.kill.flow)
    else if (event.type === 'kms-killed') this.#fall('KMS')
    else if (event.type === 'kms-restored') this.#states.set('KMS', 'serving')
    else if (event.type === 'serving' || event.type === 'back') this.#states.set(event.flow, 'serving')
    else if (event.type === 'away') this.#states.set(event.flow, 'away')
  }

  #fall(name: string): void {
    this.#states.set(name, 'recovering')
    this.#kills.set(name, (this.#kills.get(name) ?? 0) + 1)
  }

  #block(): string[] {
    const filled = Math.round((this.#round / this.#roundCount) * ROUNDS_WIDTH)
    const progress = '█'.repeat(filled) + '░'.repeat(ROUNDS_WIDTH - filled)
    const lanes = [...this.#states].map(([name, state]) => {
      const mood = state === 'serving' ? 'good' : state === 'recovering' ? 'bad' : 'dim'
      return `  ${name.padEnd(17)}${this.#paint(mood, `● ${state}`.padEnd(14))}${this.#paint('bad', '✕'.repeat(this.#kills.get(name) ?? 0))}`
    })
    const history = this.#history.slice(-HISTORY_COUNT).map((line) => `  ${line}`)
    return [
      `  ${progress}  ${this.#phase}`,
      `  ${' '.repeat(ROUNDS_WIDTH)}  ${this.#score}`,
      '',
      ...lanes,
      '',
      ...history,
    ]
  }

  #draw(lines: readonly string[]): void {
    const up = this.#lineCount === 0 ? '' : `\u001b[${String(this.#lineCount)}A`
    // Without wrapping, since a line that wraps would count twice.
    this.#write(`${up}\r\u001b[J\u001b[?7l${lines.map((line) => `${line}\n`).join('')}\u001b[?7h`)
    this.#lineCount = lines.length
  }
}
