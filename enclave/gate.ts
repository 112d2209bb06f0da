import {
  claimedId,
  claimedType,
  encodeRefusal,
  parseCall,
  parseStreamMessage,
  postReply,
  type Outgoing,
} from '../protocol/calls.js'
import type { EnclaveDefinition, Flow } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { CALLS_IN_FLIGHT_MAX } from '../protocol/limits.js'
import type { CallId, ClaimedCall, Clock, Port } from '../protocol/ports.js'
import { admitReceived, type ValueLimits } from '../protocol/values.js'
import { Cancellations } from './cancellations.js'
import type { IdempotentCalls } from './idempotency.js'
import { LiveCall } from './live-call.js'
import { AuthorsOcalls, type OutgoingCalls } from './ocalls.js'
import { isPending } from './schema.js'
import { CallContext, ServedEcall, type Outcome } from './served-ecall.js'
import { openTrains, type Serve } from './trains.js'

/**
 * The only way in. Comlink serves the calls (enclave/trains.ts), but sees none of the host's messages: the gate reads each one,
 * admits plain calls of declared ECALLs with a private copy of their argument, within the limits that are declared, and hands
 * them on. The answers come back to the gate, which releases an exact copy of each, or a code.
 *
 * A switchless call's caller blocks until it is answered: the gate serves it itself, at once.
 */
export interface GateOptions {
  readonly port: Port
  readonly definition: EnclaveDefinition
  readonly flow: Flow
  readonly calls: IdempotentCalls
  readonly ocalls: OutgoingCalls
  readonly clock: Clock
  readonly limits: ValueLimits
}

export const openGate = (options: GateOptions): void => {
  const { port } = options
  const gate = new Gate(options)
  port.onMessage(
    (claimed, sizeBytes) => gate.receive(claimed, sizeBytes),
    (id, error) => gate.refuse(id, error),
    { call: (call, sizeBytes) => gate.call(call, sizeBytes) },
  )
}

class Gate {
  readonly #o: GateOptions
  /** Name → ECALL, with no prototype: `constructor` is a name like any other, and not declared. */
  readonly #ecalls: Readonly<Record<string, ServedEcall>>
  readonly #admit: (id: CallId, ecall: ServedEcall, given: unknown) => void
  readonly #cancellations = new Cancellations()
  /** Calls with streams, by the host's ids. */
  readonly #live = new Map<CallId, LiveCall>()
  #inFlightCount = 0

  constructor(options: GateOptions) {
    this.#o = options
    this.#ecalls = ecallTable(options)
    this.#admit = openTrains(this.#ecalls, this.#serve, (id, ecall, given, outcome) =>
      this.#settle(id, ecall, given, outcome),
    )
  }

  receive(claimed: unknown, sizeBytes: number | undefined): void {
    try {
      if (claimedType(claimed) === 'APPLY') this.#call(parseCall(claimed), sizeBytes)
      else this.#message(claimed, sizeBytes)
    } catch (error) {
      this.refuse(claimedId(claimed), error)
    }
  }

  /** What a port has read itself. */
  call(call: ClaimedCall, sizeBytes: number): void {
    try {
      this.#call(call, sizeBytes)
    } catch (error) {
      this.refuse(call.id, error)
    }
  }

  refuse(id: CallId | undefined, error: unknown): void {
    this.#post(encodeRefusal(id, error))
  }

  #call(call: ClaimedCall, sizeBytes: number | undefined): void {
    const ecall = this.#ecalls[call.name]
    if (ecall === undefined) throw new KeyriseError('ERR_ECALL_UNKNOWN')
    if (this.#inFlightCount >= CALLS_IN_FLIGHT_MAX || ecall.inFlightCount >= ecall.inFlightMax)
      throw new KeyriseError('ERR_CALLS_LIMIT')
    const argument = admitArgument(call, ecall, sizeBytes)
    if (call.isSwitchless === true) return this.#serveAtOnce(call, ecall, argument)
    const given = ecall.isStreaming || call.key !== undefined ? this.#begin(call, ecall, argument) : argument
    this.#inFlightCount++
    ecall.inFlightCount++
    this.#admit(call.id, ecall, given)
  }

  /** @throws {KeyriseError} ERR_MESSAGE_INVALID: another call with streams has this id. */
  #begin({ id, key }: ClaimedCall, served: ServedEcall, argument: unknown): LiveCall {
    const { port, flow, calls, clock } = this.#o
    if (this.#live.has(id)) throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'an id in use' })
    const call = new LiveCall({
      id,
      key,
      argument,
      served,
      port,
      flow,
      calls,
      cancellations: this.#cancellations,
      clock,
    })
    if (served.isStreaming) this.#live.set(id, call)
    return call
  }

  /** @throws {KeyriseError} ERR_MESSAGE_INVALID. */
  #message(claimed: unknown, sizeBytes: number | undefined): void {
    const message = parseStreamMessage(claimed)
    if (message === undefined) throw new KeyriseError('ERR_MESSAGE_INVALID')
    // Of a call that has ended, or never was, it is late or nobody's: there is nothing to answer.
    if (message.type === 'CANCEL' && this.#inFlightCount > 0) this.#cancellations.cancel(message.id)
    this.#live.get(message.id)?.receive(message, sizeBytes)
  }

  readonly #serve: Serve = (id, ecall, given) =>
    given instanceof LiveCall ? given.serve() : ecall.serve(given, this.#context(id, ecall))

  #context(id: CallId, ecall: ServedEcall): CallContext {
    return new CallContext(this.#o.flow, ecall.ocalls, id, this.#cancellations)
  }

  #serveAtOnce({ id }: ClaimedCall, ecall: ServedEcall, argument: unknown): void {
    if (!ecall.isSwitchless) throw new KeyriseError('ERR_SWITCHLESS')
    const outcome = ecall.serve(argument, this.#context(id, ecall))
    // What was begun goes on; nobody hears of it any more.
    this.#release(id, ecall, isPending(outcome) ? { error: new KeyriseError('ERR_SWITCHLESS') } : outcome)
  }

  /** Only now, when the handler has really ended, another call may take its place. */
  #settle(id: CallId, ecall: ServedEcall, given: unknown, outcome: Outcome): void {
    this.#inFlightCount--
    ecall.inFlightCount--
    if (given instanceof LiveCall && this.#live.get(id) === given) this.#live.delete(id)
    if (!this.#cancellations.end(id)) this.#release(id, ecall, outcome)
  }

  #release(id: CallId, { outputLimits }: ServedEcall, outcome: Outcome): void {
    if ('error' in outcome) return this.refuse(id, outcome.error)
    try {
      postReply(this.#o.port, id, outcome.value, outputLimits)
    } catch (error) {
      this.refuse(id, error)
    }
  }

  #post({ message, transfer }: Outgoing): void {
    this.#o.port.post(message, transfer)
  }
}

/** A port that knows the size has made a private copy of plain values, which count so many bytes. */
const admitArgument = (
  { claimedArgument }: ClaimedCall,
  ecall: ServedEcall,
  sizeBytes: number | undefined,
): unknown => {
  if (sizeBytes === undefined) return admitReceived(claimedArgument, ecall.inputLimits)
  if (sizeBytes > ecall.inputLimits.sizeBytesMax) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'bytes' })
  return claimedArgument
}

const ecallTable = ({ definition, ocalls, limits, clock }: GateOptions): Readonly<Record<string, ServedEcall>> => {
  const authors = new AuthorsOcalls(ocalls, limits, clock)
  const table = Object.create(null) as Record<string, ServedEcall>
  for (const [name, declaration] of Object.entries(definition.ecalls))
    table[name] = new ServedEcall(name, declaration, {
      definition,
      ocalls: authors.of(declaration),
      limits,
    })
  return Object.freeze(table)
}
