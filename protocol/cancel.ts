import { KeyriseError } from './errors.js'
import type { CancelSignal } from './ports.js'

/** A signal, and who aborts it. The signal is made when somebody asks for it: most calls never look. */
export class CancelSource {
  #signal: Signal | undefined
  #isCancelled = false

  get signal(): CancelSignal {
    return this.#made
  }

  get isCancelled(): boolean {
    return this.#isCancelled
  }

  /** Aborts the signal with ERR_CANCELLED. Safe to repeat. */
  cancel(): void {
    if (this.#isCancelled) return
    this.#isCancelled = true
    this.#signal?.abort(new KeyriseError('ERR_CANCELLED'))
  }

  get #made(): Signal {
    if (this.#signal === undefined) {
      this.#signal = new Signal()
      if (this.#isCancelled) this.#signal.abort(new KeyriseError('ERR_CANCELLED'))
    }
    return this.#signal
  }
}

const rejected = async (error: unknown): Promise<never> =>
  Promise.resolve().then(() => {
    throw error
  })

/** The part of AbortSignal that a `CancelSignal` is, without an EventTarget, which this folder does not know. */
class Signal implements CancelSignal {
  readonly #listeners = new Set<() => void>()
  #aborted: { readonly reason: KeyriseError } | undefined

  get aborted(): boolean {
    return this.#aborted !== undefined
  }

  get reason(): unknown {
    return this.#aborted?.reason
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.add(listener)
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.delete(listener)
  }

  throwIfAborted(): void {
    if (this.#aborted !== undefined) throw this.#aborted.reason
  }

  /** Listeners run once, in the order in which they came. One that throws is a bug like any other that nobody handles. */
  abort(reason: KeyriseError): void {
    this.#aborted = { reason }
    const listeners = [...this.#listeners]
    this.#listeners.clear()
    for (const listener of listeners) {
      try {
        listener()
      } catch (error) {
        void rejected(error)
      }
    }
  }
}
