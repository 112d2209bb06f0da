/** What many noisy measurements come to. */

/** @param values - at least one. */
export const median = (values: readonly number[]): number => {
  if (values.length === 0) throw new RangeError('No values')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >>> 1
  const [low, high] = [sorted[middle - 1] ?? 0, sorted[middle] ?? 0]
  return sorted.length % 2 === 1 ? high : (low + high) / 2
}

/** One run: ours and the peer’s, one right after the other, in one unit. */
export interface Pair {
  readonly ours: number
  readonly peer: number
}

/** Medians of each. The ratio’s is the median of the runs’ ratios, so that what slowed one run down as a whole counts little. */
export interface Summary extends Pair {
  readonly ratio: number
  readonly runs: number
  /** The lowest and the highest ratio of a run. */
  readonly spread: readonly [lowest: number, highest: number]
}

/** @param gradeOf - what a run is graded by: ours over the peer’s unless told. */
export const summarise = (pairs: readonly Pair[], gradeOf = ({ ours, peer }: Pair) => ours / peer): Summary => {
  const ratios = pairs.map(gradeOf)
  return {
    ours: median(pairs.map(({ ours }) => ours)),
    peer: median(pairs.map(({ peer }) => peer)),
    ratio: median(ratios),
    runs: pairs.length,
    spread: [Math.min(...ratios), Math.max(...ratios)],
  }
}

/** A measurement, in a unit that both sides share. */
export type Measure = () => Promise<number>

/**
 * Runs both sides in turns, so that a machine that grows slower or faster does so for both. Who begins changes from turn to
 * turn.
 * @param onRun - told before each, from 1.
 * @param turnCount - how often both are measured within one run, whose figures are the medians: for what takes less time than
 * the machine’s moods.
 */
export const compare = async (
  sides: { readonly ours: Measure; readonly peer: Measure },
  runs: number,
  onRun: (run: number) => void = () => undefined,
  turnCount = 1,
): Promise<Pair[]> => {
  const pairs: Pair[] = []
  for (let run = 0; run < runs; run++) {
    onRun(run + 1)
    const turns: Pair[] = []
    for (let turn = 0; turn < turnCount; turn++) {
      if ((run + turn) % 2 === 0) {
        const ours = await sides.ours()
        turns.push({ ours, peer: await sides.peer() })
      } else {
        const peer = await sides.peer()
        turns.push({ ours: await sides.ours(), peer })
      }
    }
    pairs.push({ ours: median(turns.map(({ ours }) => ours)), peer: median(turns.map(({ peer }) => peer)) })
  }
  return pairs
}
