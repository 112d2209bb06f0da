import { cpus, release, totalmem } from 'node:os'
import type { Pair, Summary } from './statistics.js'
import { summarise } from './statistics.js'

/** What a run of the bench leaves behind: the file of `--json`, and what the table and the document are made of. */

export type Target =
  | { readonly atLeast: number; readonly aim: number }
  /** Where less is better. */
  | { readonly atMost: number; readonly aim: number }

/** One graded row of the targets’ table. */
export interface Result extends Summary {
  readonly id: string
  readonly what: string
  readonly peerName: string
  /** Of `ours` and `peer`. `ratio` has none, but for P10, where it is MiB. */
  readonly unit: string
  readonly target: Target
}

/** How cost grows: for people, not graded. */
export interface Curve {
  readonly what: string
  readonly x: string
  readonly y: string
  readonly series: readonly Series[]
}
export interface Series {
  readonly name: string
  readonly points: readonly (readonly [x: number | string, y: number])[]
  /** Why it ends where it does. */
  readonly note?: string
}

export interface Left {
  readonly name: string
  readonly why: string
}

export interface Report {
  readonly results: readonly Result[]
  readonly curves: Readonly<Record<string, Curve>>
  /** What was asked for and could not be measured here. */
  readonly skipped: readonly Left[]
  /** What broke: a fault of ours. */
  readonly failed: readonly Left[]
  readonly machine: Machine
  /** A smoke run on tiny sizes: its figures mean nothing. */
  readonly isQuick: boolean
}

export interface Machine {
  readonly date: string
  readonly processor: string
  readonly coreCount: number
  readonly memoryGiB: number
  readonly system: string
  readonly node: string
  readonly openssl: string
}

export const describeMachine = (): Machine => ({
  date: new Date().toISOString(),
  processor: cpus()[0]?.model.trim() ?? 'unknown',
  coreCount: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  system: `${process.platform} ${release()}`,
  node: process.version,
  openssl: process.versions.openssl,
})

/** The name and target of each graded row: performance.md’s, and no others. */
const ROWS = {
  P1: { what: 'one ECALL alone, 8 B, p50', unit: 'µs', target: { atMost: 1.5, aim: 1.1 } },
  'P2.raw': { what: 'ECALLs, 256 in flight, 8 B', unit: 'calls/s', target: { atLeast: 1.5, aim: 4 } },
  'P2.comlink': { what: 'ECALLs, 256 in flight, 8 B', unit: 'calls/s', target: { atLeast: 7, aim: 20 } },
  'P3.typage': { what: 'bulk unseal in memory, pool of 2', unit: 'MB/s', target: { atLeast: 20, aim: 32 } },
  'P3.esdk': { what: 'bulk unseal in memory, pool of 2', unit: 'MB/s', target: { atLeast: 10, aim: 18 } },
  'P3.openssl': { what: 'bulk unseal in memory, pool of 2', unit: 'MB/s', target: { atLeast: 0.4, aim: 0.6 } },
  P4: { what: 'keyrise opens a 1 GiB file, whole process', unit: 'MB/s', target: { atLeast: 1.7, aim: 2.5 } },
  P5: { what: 'header unwraps, pool of 2', unit: 'ops/s', target: { atLeast: 0.6, aim: 1.1 } },
  P6: { what: 'seal and open 1 KiB', unit: 'ops/s', target: { atLeast: 6, aim: 30 } },
  P7: { what: 'checkpoint of 16 × 4 KiB', unit: 'ms', target: { atMost: 1.5, aim: 1.2 } },
  P8: { what: 'kill to first answer, 10,000 secrets, warm spare', unit: 'ms', target: { atMost: 1.5, aim: 0.3 } },
  P9: { what: 'rotation of 1 GiB in 1 MiB envelopes', unit: 'bytes', target: { atMost: 0.002, aim: 0.001 } },
  P10: { what: 'peak memory of a KMS while 8 GiB stream', unit: 'MiB', target: { atMost: 128, aim: 64 } },
  P11: { what: 'one switchless ECALL alone, 8 B, p50', unit: 'µs', target: { atMost: 0.5, aim: 0.05 } },
  'P12.train': { what: 'a training step in the enclave', unit: 'µs', target: { atMost: 1.3, aim: 1.05 } },
  'P12.chacha': {
    what: 'ChaCha20 of 64 KiB in JavaScript in the enclave',
    unit: 'µs',
    target: { atMost: 1.3, aim: 1.05 },
  },
} as const satisfies Record<string, Pick<Result, 'what' | 'unit' | 'target'>>

export type RowId = keyof typeof ROWS
export const ROW_IDS = Object.keys(ROWS) as RowId[]

export const result = (id: RowId, peerName: string, summary: Summary): Result => ({
  id,
  ...ROWS[id],
  peerName,
  ...summary,
})

/** P10’s grade is a difference: memory over idle. */
export const excess = (pairs: readonly Pair[]): Summary => summarise(pairs, ({ ours, peer }) => ours - peer)

export type Grade = 'aim' | 'met' | 'missed'

export const gradeOf = ({ ratio, target }: Pick<Result, 'ratio' | 'target'>): Grade => {
  const isBetter = (bound: number): boolean => ('atLeast' in target ? ratio >= bound : ratio <= bound)
  if (isBetter(target.aim)) return 'aim'
  return isBetter('atLeast' in target ? target.atLeast : target.atMost) ? 'met' : 'missed'
}
