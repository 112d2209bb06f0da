import type { Stage } from './stage.js'

/**
 * What keeps the key that an attack is after. `bare`: a plain worker thread that serves its functions by Comlink, as one writes
 * it without this library. `worker` and `process`: an enclave of ours, by its isolation.
 */
export const LEVELS = ['bare', 'worker', 'process'] as const
export type Level = (typeof LEVELS)[number]

/** docs/threat-model.md, “Attackers”. */
export type Attacker = 'H1' | 'H2' | 'H3' | 'H4'

/** `leaks`: the attacker has the key, or has done what it came for. */
export type Outcome = 'leaks' | 'stops'

/** In the place of an outcome: why there is nothing to attack at that level. */
export interface NotApplicable {
  readonly notApplicable: string
}
export type Expected = Outcome | NotApplicable

/** What an attempt came to; `detail` says it in a few words, without anything of this machine or run. */
export interface Finding {
  readonly outcome: Outcome
  readonly detail: string
}

export interface Attack {
  readonly name: string
  readonly attacker: Attacker
  /** What is tried, and what it is after: a sentence for docs/attack-matrix.md. */
  readonly tries: string
  readonly expected: Readonly<Record<Level, Expected>>
  /** Only real hardware stops it. */
  readonly needsTee?: true
  /** Tries it once, at `stage.level`, in a process of its own. @throws {Skipped} where this machine lacks something. */
  run(stage: Stage): Promise<Finding>
}

/** Why an attack cannot be tried here: it is named, and counts neither way. */
export class Skipped extends Error {}

export const leaks = (detail: string): Finding => ({ outcome: 'leaks', detail })
export const stops = (detail: string): Finding => ({ outcome: 'stops', detail })

/** The usual three outcomes: a bare worker gives the key away, ours does not. */
export const STOPPED = { bare: 'leaks', worker: 'stops', process: 'stops' } as const
/** Kept as a test, so that the documents stay true. */
export const LEAKS = { bare: 'leaks', worker: 'leaks', process: 'leaks' } as const
