import type { Resealed, SegmentRequest, Unsealed, Unsealer, UnsealTask } from './unseal.js'

/** An unsealer that another can take the place of while it works: what is under way ends where it began. */
export class RenewableUnsealer implements Unsealer {
  #current: Unsealer
  readonly #underWay = new Map<Unsealer, Set<Promise<unknown>>>()

  constructor(first: Unsealer) {
    this.#current = first
  }

  get queueCount(): number {
    return this.#current.queueCount ?? 0
  }

  unseal(task: UnsealTask): Promise<Unsealed> {
    return this.#track((unsealer) => unsealer.unseal(task))
  }

  reseal(request: SegmentRequest): Promise<Resealed> {
    return this.#track((unsealer) => unsealer.reseal(request))
  }

  /** New work goes to `next` from here on. Resolves when the one before has ended its own and is closed. */
  async renew(next: Unsealer): Promise<void> {
    const before = this.#current
    this.#current = next
    await Promise.allSettled(this.#underWay.get(before) ?? new Set<Promise<unknown>>())
    this.#underWay.delete(before)
    await before.close()
  }

  close(): Promise<void> {
    return this.#current.close()
  }

  #track<T>(work: (unsealer: Unsealer) => Promise<T>): Promise<T> {
    const unsealer = this.#current
    const own = this.#underWay.get(unsealer) ?? new Set<Promise<unknown>>()
    this.#underWay.set(unsealer, own)
    const done = work(unsealer).finally(() => own.delete(done))
    own.add(done)
    return done
  }
}
