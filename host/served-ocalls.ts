import {
  claimedId,
  encodeRefusal,
  encodeReply,
  parseCall,
  parseStreamMessage,
  postItem,
  type Outgoing,
  type StreamMessage,
} from '../protocol/calls.js'
import type { OcallContext } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import type { CallId, ClaimedCall, Port } from '../protocol/ports.js'
import { isSource, StreamSender } from '../protocol/stream-sender.js'

/** What a host does for its enclaves, by name. One that yields returns an iterable. */
export type OcallTable = ReadonlyMap<string, (claimedArgument: unknown, context: OcallContext) => unknown>

export interface ServedOcallsOptions {
  readonly port: Port
  readonly table: OcallTable
  /** The names of those that yield. */
  readonly yielding: ReadonlySet<string>
  readonly failed: (name: string, error: unknown) => void
}

/** An OCALL that is being served. */
class Running {
  readonly sender: StreamSender
  #controller: AbortController | undefined
  #isGivenUp = false

  constructor(port: Port, id: CallId) {
    this.sender = new StreamSender((item) => postItem(port, id, item))
  }

  /** Made for whoever asks: most never do. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#isGivenUp) this.#controller.abort(new KeyriseError('ERR_CANCELLED'))
    return this.#controller.signal
  }

  get isGivenUp(): boolean {
    return this.#isGivenUp
  }

  giveUp(): void {
    this.#isGivenUp = true
    this.sender.stop()
    this.#controller?.abort(new KeyriseError('ERR_CANCELLED'))
  }
}

/** Answers an instance's OCALLs from a table. What fails reaches the enclave as a code, and `failed` with its cause. */
export class ServedOcalls {
  readonly #o: ServedOcallsOptions
  readonly #running = new Map<CallId, Running>()

  constructor(options: ServedOcallsOptions) {
    this.#o = options
    options.port.onMessage((message) => void this.#receive(message))
  }

  /** The enclave is gone: nobody waits for what is being served. */
  end(): void {
    for (const running of this.#running.values()) running.giveUp()
  }

  async #receive(claimed: unknown): Promise<void> {
    const { port } = this.#o
    const message = parseStreamMessage(claimed)
    if (message !== undefined) return this.#heed(message)
    try {
      const call = parseCall(claimed)
      const answer = await this.#perform(call)
      if (answer !== undefined) port.post(answer.message, answer.transfer)
    } catch (error) {
      // Not a call: whoever waits for an answer to it, if anyone, hears that.
      port.post(encodeRefusal(claimedId(claimed), error, 'ERR_OCALL_FAILED').message)
    }
  }

  #heed(message: StreamMessage): void {
    const running = this.#running.get(message.id)
    if (running === undefined) return
    if (message.type === 'CANCEL') return running.giveUp()
    if (message.type !== 'CREDIT') return
    try {
      running.sender.credit(message.claimedCount)
    } catch {
      running.giveUp()
    }
  }

  /** Undefined where the enclave gave the call up: nothing is answered any more. */
  async #perform(call: ClaimedCall): Promise<Outgoing | undefined> {
    const { table, failed, port } = this.#o
    const { id, name } = call
    const running = new Running(port, id)
    this.#running.set(id, running)
    try {
      const value = await this.#serve(call, table.get(name), running)
      return running.isGivenUp ? undefined : encodeReply(id, value)
    } catch (error) {
      // What comes of giving up is no failure.
      if (running.isGivenUp) return undefined
      failed(name, error)
      return encodeRefusal(id, error, 'ERR_OCALL_FAILED')
    } finally {
      this.#running.delete(id)
    }
  }

  async #serve(
    { name, claimedArgument }: ClaimedCall,
    serve: ((claimedArgument: unknown, context: OcallContext) => unknown) | undefined,
    running: Running,
  ): Promise<unknown> {
    if (serve === undefined) throw new KeyriseError('ERR_OCALL_UNKNOWN')
    const context: OcallContext = {
      get signal() {
        return running.signal
      },
    }
    const answer = await serve(claimedArgument, context)
    if (!this.#o.yielding.has(name)) return answer
    if (!isSource(answer)) throw new TypeError(`The OCALL ${name} yields: it returns an iterable`)
    const end = await running.sender.run(answer)
    if (end.kind === 'failed') throw end.error
    return undefined
  }
}
