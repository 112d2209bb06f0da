import type { Port } from '../protocol/ports.js'

/**
 * Two ends of a channel within one thread: what is posted at one end arrives at the other as a structured clone, in order,
 * a turn of the event loop later. A caller that waits has it at once.
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
  /** Clones that are on their way, or that wait for a listener. */
  readonly #inbox: unknown[] = []

  post(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    const { peer } = this
    if (peer === undefined) return
    peer.#inbox.push(structuredClone(message, { transfer: [...transfer] }))
    setImmediate(() => peer.#deliver())
  }

  onMessage(listen: (message: unknown) => void): void {
    const waiting = this.#listen === undefined ? this.#inbox.length : 0
    this.#listen = listen
    for (let count = 0; count < waiting; count++) this.#deliver()
  }

  /** At both ends; what is on its way is lost. */
  close(): void {
    const { peer } = this
    this.peer = undefined
    this.#listen = () => undefined
    this.#inbox.length = 0
    if (peer !== undefined) peer.close()
  }

  /**
   * Lets the other end answer now, if it can. Nobody else has this thread meanwhile: an answer that does not come at once never
   * comes.
   */
  wait(): 'delivered' | 'closed' {
    const { peer } = this
    while (peer !== undefined && peer.#deliver());
    let count = 0
    while (this.#deliver()) count++
    return count > 0 ? 'delivered' : 'closed'
  }

  /** The next message, if there is one and somebody listens. */
  #deliver(): boolean {
    if (this.#listen === undefined || this.#inbox.length === 0) return false
    this.#listen(this.#inbox.shift())
    return true
  }
}
