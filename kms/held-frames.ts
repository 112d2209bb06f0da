import type { IncomingMessage } from 'node:http'
import { concatBytes, type Bytes } from '../protocol/bytes.js'

/** Handshakes and most calls are this small: they are never turned away for lack of memory. */
const SMALL_FRAME_SIZE_BYTES_MAX = 256 * 1024
/** Larger frames held at once, those being answered included: thirty segments, or one of the largest and a dozen segments. */
export const HELD_SIZE_BYTES_MAX = 32 * 1024 * 1024
/** A large body that has been arriving for longer makes room where others find none: over loopback it takes milliseconds. */
const ARRIVAL_MS_MAX = 5_000
/** Parts this small are joined as they arrive: each takes hundreds of bytes beside its own. */
const TINY_PART_SIZE_BYTES_MAX = 1024
const TINY_PART_COUNT_MAX = 256

/** Memory for large frames, shared by all requests. */
export interface Budget {
  leftSizeBytes: number
  /** Those whose frames are large and not whole, the first to have become so first. */
  readonly arriving: Set<Hold>
}

/** What one request holds of the budget: what has arrived of it, from the moment it is large. */
export class Hold {
  readonly #budget: Budget
  readonly #breakOff: () => void
  #sizeBytes = 0
  #sinceMs = 0

  /** @param breakOff - called where it must make room: no more of the frame is to come. */
  constructor(budget: Budget, breakOff: () => void) {
    this.#budget = budget
    this.#breakOff = breakOff
  }

  /** False when the frame grows larger than there is room for. */
  grow(totalSizeBytes: number): boolean {
    if (totalSizeBytes <= SMALL_FRAME_SIZE_BYTES_MAX) return true
    const budget = this.#budget
    if (this.#sizeBytes === 0) {
      this.#sinceMs = performance.now()
      budget.arriving.add(this)
    }
    const more = totalSizeBytes - this.#sizeBytes
    for (const other of budget.arriving) {
      if (more <= budget.leftSizeBytes || !other.#isLate()) break
      if (other !== this) other.#giveUp()
    }
    if (more > budget.leftSizeBytes) return false
    budget.leftSizeBytes -= more
    this.#sizeBytes += more
    return true
  }

  /** All of the frame is there. */
  arrived(): void {
    this.#budget.arriving.delete(this)
  }

  /** Safe to repeat. */
  end(): void {
    this.arrived()
    this.#budget.leftSizeBytes += this.#sizeBytes
    this.#sizeBytes = 0
  }

  #isLate(): boolean {
    return performance.now() - this.#sinceMs > ARRIVAL_MS_MAX
  }

  #giveUp(): void {
    this.end()
    this.#breakOff()
  }
}

/** The body, as it arrives: a claimed length alone takes no memory. */
export const readBody = async (request: IncomingMessage, hold: Hold): Promise<Bytes | 'busy' | 'broken'> => {
  const parts: Uint8Array[] = []
  const tiny: Uint8Array[] = []
  let size = 0
  try {
    for await (const part of request as AsyncIterable<Uint8Array>) {
      size += part.length
      if (!hold.grow(size)) return 'busy'
      if (part.length <= TINY_PART_SIZE_BYTES_MAX) tiny.push(part)
      else parts.push(...tiny.splice(0), part)
      if (tiny.length === TINY_PART_COUNT_MAX) parts.push(concatBytes(...tiny.splice(0)))
    }
  } catch {
    return 'broken'
  }
  hold.arrived()
  return concatBytes(...parts, ...tiny)
}
