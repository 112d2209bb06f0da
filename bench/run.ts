import type { Measurement, Scale } from './measurement.js'
import { describeMachine, ROW_IDS, type Curve, type Left, type Report, type Result } from './report.js'
import { bulk } from './rows/bulk.js'
import { calls } from './rows/calls.js'
import { checkpoint } from './rows/checkpoint.js'
import { command } from './rows/command.js'
import { hardening } from './rows/hardening.js'
import { launches } from './rows/launches.js'
import { memory } from './rows/memory.js'
import { payload } from './rows/payload.js'
import { primitives } from './rows/primitives.js'
import { recovery } from './rows/recovery.js'
import { rotation } from './rows/rotation.js'
import { small } from './rows/small.js'
import { tax } from './rows/tax.js'
import { unwrap } from './rows/unwrap.js'

const MEASUREMENTS: readonly Measurement[] = [
  calls,
  tax,
  bulk,
  command,
  unwrap,
  small,
  checkpoint,
  rotation,
  memory,
  launches,
  recovery,
  hardening,
  payload,
  primitives,
]

/** Of rows and curves that are measured together. */
export const GROUPS: readonly (readonly string[])[] = MEASUREMENTS.map(({ names }) => names)
export const NAMES: readonly string[] = GROUPS.flat()

export interface RunOptions {
  /** All that there are, unless told. */
  readonly measurements?: readonly Measurement[]
  /** Of NAMES. */
  readonly names: readonly string[]
  readonly scale: Scale
  readonly isQuick: boolean
  /** Told of progress. */
  readonly say: (line: string) => void
}

/** Measures what is asked for, one after the other. What fails or cannot be measured here is named, and the rest goes on. */
export const run = async (options: RunOptions): Promise<Report> => {
  const { measurements = MEASUREMENTS, names, scale, isQuick, say } = options
  const results: Result[] = []
  const curves: Record<string, Curve> = {}
  const skipped: Left[] = []
  const failed: Left[] = []
  for (const measurement of measurements) {
    const asked = measurement.names.filter((name) => {
      if (!names.includes(name)) return false
      const why = measurement.lacks?.(name)
      if (why !== undefined) skipped.push({ name, why })
      return why === undefined
    })
    if (asked.length === 0) continue
    try {
      const measured = await measurement.measure(scale, { say, wants: (name) => asked.includes(name) })
      results.push(...(measured.results ?? []))
      Object.assign(curves, measured.curves)
    } catch (error) {
      failed.push(...asked.map((name) => ({ name, why: error instanceof Error ? error.message : String(error) })))
    }
  }
  results.sort((a, b) => position(a) - position(b))
  return { results, curves, skipped, failed, machine: describeMachine(), isQuick }
}

const position = ({ id }: Result): number => (ROW_IDS as readonly string[]).indexOf(id)
