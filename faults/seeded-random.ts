import { createHash } from 'node:crypto'
import type { Random } from '../protocol/ports.js'

/** The same bytes for the same seed: for tests that must be replayed. Never for a key that matters. */
export class SeededRandom implements Random {
  readonly #seed: string
  #blockCount = 0

  constructor(seed: string | number) {
    this.#seed = String(seed)
  }

  fill<T extends Uint8Array>(bytes: T): T {
    for (let offset = 0; offset < bytes.length; offset += 32) {
      const block = createHash('sha256')
        .update(`keyrise/seeded-random/${this.#seed}/${String(this.#blockCount++)}`)
        .digest()
      bytes.set(block.subarray(0, bytes.length - offset), offset)
    }
    return bytes
  }
}
