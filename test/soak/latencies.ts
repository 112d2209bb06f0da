/** The shortest latency that is told from shorter ones, in milliseconds. */
const FIRST_MS = 0.05
/** Each bucket is this much wider than the one before: a quantile is right to 4 %. */
const GROWTH = 1.04
const BUCKET_COUNT = 450
const BAR_WIDTH = 40

/** How long calls took, counted in buckets, so that a million of them take no memory. */
export class Latencies {
  readonly #counts = new Float64Array(BUCKET_COUNT)
  #count = 0
  #maxMs = 0

  get count(): number {
    return this.#count
  }

  get maxMs(): number {
    return this.#maxMs
  }

  /** @param ms - in milliseconds. */
  add(ms: number): void {
    const bucket = Math.ceil(Math.log(Math.max(FIRST_MS, ms) / FIRST_MS) / Math.log(GROWTH))
    const index = Math.min(BUCKET_COUNT - 1, bucket)
    this.#counts[index] = (this.#counts[index] ?? 0) + 1
    this.#count++
    this.#maxMs = Math.max(this.#maxMs, ms)
  }

  addAll(others: Latencies): void {
    for (const [index, count] of others.#counts.entries()) this.#counts[index] = (this.#counts[index] ?? 0) + count
    this.#count += others.#count
    this.#maxMs = Math.max(this.#maxMs, others.#maxMs)
  }

  /** In milliseconds: no more than `fraction` of all took less; 0 where there are none. */
  quantileMs(fraction: number): number {
    let left = fraction * this.#count
    for (const [index, count] of this.#counts.entries()) {
      left -= count
      if (count > 0 && left <= 0) return Math.min(this.#maxMs, FIRST_MS * GROWTH ** index)
    }
    return 0
  }

  /** A line for each doubling of the time, with a bar for how many took so long, and where p50 and p99 lie. */
  picture(): string[] {
    const rows = new Map<number, number>()
    for (const [index, count] of this.#counts.entries())
      if (count > 0) {
        const toMs = 2 ** Math.ceil(Math.log2(FIRST_MS * GROWTH ** index))
        rows.set(toMs, (rows.get(toMs) ?? 0) + count)
      }
    const most = Math.max(...rows.values(), 1)
    const [p50, p99] = [this.quantileMs(0.5), this.quantileMs(0.99)]
    return [...rows].map(([toMs, count]) => {
      const marks = [
        [p50, 'p50'],
        [p99, 'p99'],
      ] as const
      const within = marks.filter(([ms]) => ms > toMs / 2 && ms <= toMs).map(([, name]) => name)
      const bar = '█'.repeat(Math.ceil((count / most) * BAR_WIDTH)).padEnd(BAR_WIDTH)
      return `${`≤ ${String(toMs)} ms`.padStart(12)}  ${bar}  ${String(count).padStart(8)}  ${within.join(' ')}`.trimEnd()
    })
  }
}
