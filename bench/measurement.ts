import type { Curve, Result } from './report.js'

/** How much is measured. */
export interface Scale {
  readonly runs: number
  /** How long a short piece of work is repeated for. */
  readonly sliceMs: number
  /** Peers that take 20 s to open 1 GiB are measured up to this size. */
  readonly slowPeerSizeBytesMax: number
  /** A payload’s size at this scale. */
  readonly bytes: (sizeBytes: number) => number
  /** A number of items at this scale. */
  readonly count: (count: number) => number
  /** Which of a curve’s points. */
  readonly points: (all: readonly number[]) => readonly number[]
}

/** Medians of five at full size. */
export const FULL: Scale = {
  runs: 5,
  sliceMs: 500,
  slowPeerSizeBytesMax: 2 ** 26,
  bytes: (sizeBytes) => sizeBytes,
  count: (count) => count,
  points: (all) => all,
}

/** Every peer at every size. */
export const LONG: Scale = { ...FULL, slowPeerSizeBytesMax: Infinity }

/** For a test that all of it runs: a thousandth of what is large, and of a curve its ends. */
export const QUICK: Scale = {
  runs: 1,
  sliceMs: 5,
  slowPeerSizeBytesMax: Infinity,
  bytes: (sizeBytes) => Math.min(sizeBytes, Math.max(64 * 1024, sizeBytes / 1024)),
  count: (count) => Math.ceil(count / 256),
  points: (all) => all.filter((_, index) => index === 0 || index === all.length - 1),
}

export interface Measured {
  readonly results?: readonly Result[]
  readonly curves?: Readonly<Record<string, Curve>>
}

/** Some rows or curves that are measured together. */
export interface Measurement {
  /** Ids of rows, or names of curves: what `--only` can name. */
  readonly names: readonly string[]
  /** Why one of them cannot be measured on this machine; undefined where it can. */
  readonly lacks?: (name: string) => string | undefined
  /** @param say - tells of progress. @param wants - whether this name is asked for. */
  measure(scale: Scale, context: { say: (line: string) => void; wants: (name: string) => boolean }): Promise<Measured>
}
