import { createHash } from 'node:crypto'

/**
 * Numbers that a seed repeats: for the split, the dropout and the kill points, never for keys. Each `label` is a stream of
 * its own, so that drawing more from one moves no other. SHA-256 over seed, label and a counter.
 */
export class SeededSequence {
  readonly #prefix: string
  #drawn = 0

  constructor(seed: number, label: string) {
    this.#prefix = `${String(seed)}/${label}/`
  }

  /** A whole number from 0 to `count` − 1. The modulo's bias is below count / 2³², far under what a shuffle shows. */
  below(count: number): number {
    const digest = createHash('sha256')
      .update(this.#prefix + String(this.#drawn++))
      .digest()
    return digest.readUInt32BE(0) % count
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new RangeError('nothing to pick from')
    return item
  }

  /** A shuffled copy (Fisher and Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const shuffled = [...items]
    for (let last = shuffled.length - 1; last > 0; last--) {
      const other = this.below(last + 1)
      ;[shuffled[last], shuffled[other]] = [shuffled[other] as T, shuffled[last] as T]
    }
    return shuffled
  }
}
