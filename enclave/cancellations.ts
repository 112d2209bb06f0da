import { CancelSource } from '../protocol/cancel.js'
import { CALLS_IN_FLIGHT_MAX } from '../protocol/limits.js'
import type { CallId, CancelSignal } from '../protocol/ports.js'

/**
 * Which calls their host gave up, by the host's ids. A call costs nothing here unless it is given up or its handler asks for its
 * signal. Ids of calls that are not in flight are forgotten, the oldest first.
 */
export class Cancellations {
  readonly #sources = new Map<CallId, CancelSource>()
  readonly #cancelled = new Set<CallId>()

  signalOf(id: CallId): CancelSignal {
    let source = this.#sources.get(id)
    if (source === undefined) this.#sources.set(id, (source = new CancelSource()))
    if (this.#cancelled.has(id)) source.cancel()
    return source.signal
  }

  cancel(id: CallId): void {
    this.#cancelled.add(id)
    if (this.#cancelled.size > CALLS_IN_FLIGHT_MAX)
      for (const oldest of this.#cancelled) {
        this.#cancelled.delete(oldest)
        break
      }
    this.#sources.get(id)?.cancel()
  }

  /** The call has ended. @returns true where it was given up: nobody waits for an answer. */
  end(id: CallId): boolean {
    if (this.#sources.size > 0) this.#sources.delete(id)
    return this.#cancelled.size > 0 && this.#cancelled.delete(id)
  }
}
