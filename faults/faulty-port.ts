import { claimedId, parseCall, parseLifecycle, parseReply, parseStreamMessage } from '../protocol/calls.js'
import type { CallId, Port } from '../protocol/ports.js'
import { portPair } from './port-pair.js'

/** Which of an instance’s ports. */
export type Boundary = 'ecall' | 'ocall'

/** A message between a host and its enclave. */
export interface BoundaryMessage {
  readonly on: Boundary
  /**
   * What it is, the same in every run: `call write`, `call write with a key`, `answer write`, `ready`, `stream ITEM write`. An answer is
   * named after its call.
   */
  readonly name: string
  /** As it was posted. */
  readonly message: unknown
}

/**
 * What becomes of a message. `replay`: an earlier one of the same direction comes in its place. `late`: it comes after the next one.
 * `delay`: it comes when every deadline has passed. `damage`: with a bit of its bytes changed, or with no value where it has no bytes.
 * `cut`: the instance dies of it.
 */
export type BoundaryFault = 'lose' | 'double' | 'replay' | 'late' | 'delay' | 'damage' | 'cut'

export interface FaultyPortOptions {
  readonly on: Boundary
  /** Told of each message as it is posted; decides what becomes of it. */
  readonly fault: (message: BoundaryMessage) => BoundaryFault | undefined
  /** Told of each message that was handed on. */
  readonly onDone: (message: BoundaryMessage) => void
  /** Hands a message on after every deadline. */
  readonly delay: (hand: () => void) => void
  /** Ends the instance as a power cut would. */
  readonly cut: () => void
}

/** The two ends of a channel, on which things go wrong as they are told to. */
export const faultyPortPair = (options: FaultyPortOptions): [Port, Port] => {
  const [host, inside] = portPair()
  const names = new MessageNames()
  return [new FaultyEnd(host, names, options), new FaultyEnd(inside, names, options)]
}

const WITH_KEY = ' with a key'

/** Names messages by what they say they are. */
class MessageNames {
  /** Calls in flight, by id. */
  readonly #calls = new Map<CallId, string>()

  nameOf(message: unknown): string {
    const id = claimedId(message) ?? ''
    if (parseReply(message) !== undefined) {
      const call = this.#calls.get(id) ?? ''
      this.#calls.delete(id)
      return `answer ${call}`
    }
    const streamed = parseStreamMessage(message)
    if (streamed !== undefined) return `stream ${streamed.type} ${this.#calls.get(id) ?? ''}`
    if (parseLifecycle(message) !== undefined) return 'ready'
    const { name, key } = parseCall(message)
    this.#calls.set(id, name)
    return `call ${name}${key === undefined ? '' : WITH_KEY}`
  }
}

class FaultyEnd implements Port {
  readonly #port: Port
  readonly #names: MessageNames
  readonly #o: FaultyPortOptions
  /** The last message, for a replay; and those that come after the next. */
  #earlier: unknown
  readonly #late: unknown[] = []

  constructor(port: Port, names: MessageNames, options: FaultyPortOptions) {
    this.#port = port
    this.#names = names
    this.#o = options
  }

  post(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    const { on, fault, onDone, delay, cut } = this.#o
    const posted = { on, name: this.#names.nameOf(message), message }
    const decided = fault(posted)
    const copy = (): unknown => structuredClone(message)
    const earlier = this.#earlier
    // To make an ECALL again is a host’s right, where no key makes the two one.
    if (on === 'ocall' || !posted.name.startsWith('call ') || posted.name.endsWith(WITH_KEY)) this.#earlier = copy()
    switch (decided) {
      case 'lose':
        return
      case 'cut':
        cut()
        return
      case 'late':
        this.#late.push(copy())
        return
      case 'delay': {
        const delayed = copy()
        delay(() => this.#port.post(delayed))
        return
      }
      case 'damage':
        this.#port.post(damaged(copy()))
        break
      case 'replay':
        this.#port.post(earlier ?? message)
        break
      case 'double':
        this.#port.post(copy())
        this.#port.post(message, transfer)
        break
      case undefined:
        this.#port.post(message, transfer)
        break
    }
    for (const late of this.#late.splice(0)) this.#port.post(late)
    onDone(posted)
  }

  onMessage(listen: (message: unknown) => void): void {
    this.#port.onMessage(listen)
  }

  close(): void {
    this.#port.close()
  }

  wait(timeoutMs: number): 'delivered' | 'nothing' | 'closed' {
    return this.#port.wait?.(timeoutMs) ?? 'closed'
  }
}

/** One bit in the middle of its bytes; where the value is something else, there is none. */
const damaged = (message: unknown): unknown => {
  const answer = message as { value?: unknown }
  if (!(answer.value instanceof Uint8Array)) return { ...answer, value: null }
  const middle = answer.value.length >>> 1
  if (middle > 0) answer.value[middle] = (answer.value[middle] ?? 0) ^ 1
  return answer
}
