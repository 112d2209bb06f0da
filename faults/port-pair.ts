import type { Port } from '../protocol/ports.js'

/**
 * Two ends of a channel within one thread: what is posted at one end arrives at the other as a structured clone, in order,
 * a turn of the event loop later.
 */
export const portPair = (): [Port, Port] => {
  const [a, b] = [new End(), new End()]
  a.peer = b
  b.peer = a
  return [a, b]
}

class End implements Port {
  peer: End | undefined
  #listen: ((message: unknown) => void) | undefined
  readonly #waiting: unknown[] = []

  post(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    const { peer } = this
    if (peer === undefined) return
    const clone: unknown = structuredClone(message, { transfer: [...transfer] })
    setImmediate(() => {
      peer.#receive(clone)
    })
  }

  onMessage(listen: (message: unknown) => void): void {
    this.#listen = listen
    this.#waiting.splice(0).forEach(listen)
  }

  /** At both ends; what is on its way is lost. */
  close(): void {
    const { peer } = this
    this.peer = undefined
    this.#listen = () => undefined
    if (peer !== undefined) peer.close()
  }

  #receive(message: unknown): void {
    if (this.#listen === undefined) this.#waiting.push(message)
    else this.#listen(message)
  }
}
