import { encodeCall, parseReply, type ClaimedReply } from '../protocol/calls.js'
import type { EcallDeclaration } from '../protocol/contract.js'
import { KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { CALLS_IN_FLIGHT_MAX } from '../protocol/limits.js'
import type { Clock, Port } from '../protocol/ports.js'
import { admitValue, type ValueLimits } from '../protocol/values.js'
import { parse } from './schema.js'

export interface OutgoingCallOptions {
  readonly deadlineMs: number
  readonly limits?: ValueLimits
  /** The codes that the other side may answer with; any other becomes `otherwise`. */
  readonly codes: readonly ErrorCode[]
  readonly otherwise: ErrorCode
}

interface Pending {
  readonly settle: (reply: ClaimedReply) => void
  readonly fail: (error: KeyriseError) => void
}

/**
 * Calls out of the enclave. The other side is hostile: a reply counts once, for a call in flight, as a private bounded
 * copy, before the deadline; every promise settles. What the reply means is for the caller to check.
 */
export class OutgoingCalls {
  readonly #port: Port
  readonly #clock: Clock
  readonly #pending = new Map<string, Pending>()
  #count = 0

  constructor(port: Port, clock: Clock) {
    this.#port = port
    this.#clock = clock
    port.onMessage((claimed) => this.#receive(claimed))
  }

  /** @throws {KeyriseError} ERR_CALLS_LIMIT, ERR_DEADLINE, ERR_REPLY_INVALID, one of `codes`, or as `releaseValue`. */
  async call(name: string, argument: unknown, options: OutgoingCallOptions): Promise<unknown> {
    if (this.#pending.size >= CALLS_IN_FLIGHT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
    const id = String(++this.#count)
    const { message, transfer } = encodeCall(id, name, argument, { limits: options.limits })
    const reply = await new Promise<ClaimedReply>((resolve, reject) => {
      const timer = this.#clock.timer(options.deadlineMs, () => this.#take(id)?.fail(new KeyriseError('ERR_DEADLINE')))
      const stopped =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          timer[Symbol.dispose]()
          then(value)
        }
      this.#pending.set(id, { settle: stopped(resolve), fail: stopped(reject) })
      this.#port.post(message, transfer)
    })
    if ('error' in reply)
      throw options.codes.includes(reply.error.code) ? reply.error : new KeyriseError(options.otherwise)
    try {
      return admitValue(reply.claimedValue, options.limits)
    } catch (error) {
      throw new KeyriseError('ERR_REPLY_INVALID', { cause: error })
    }
  }

  /** Takes a call out of those in flight, so that it settles once. */
  #take(id: string): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #receive(claimed: unknown): void {
    const reply = parseReply(claimed)
    if (reply !== undefined) this.#take(reply.id)?.settle(reply)
  }
}

const OCALL_DEADLINE_MS = 60_000
const OCALL_CODES: readonly ErrorCode[] = ['ERR_OCALL_UNKNOWN', 'ERR_OCALL_FAILED']

type OcallFunction = (input: unknown) => Promise<unknown>

/** The OCALLs that one ECALL declares, as functions: both schemas checked on this side, whatever the host checks. */
export const ocallFunctions = (
  declaration: EcallDeclaration,
  calls: OutgoingCalls,
  limits: ValueLimits,
): Readonly<Record<string, OcallFunction>> => {
  const functions = Object.create(null) as Record<string, OcallFunction>
  for (const [name, { input, output }] of Object.entries(declaration.ocalls ?? {})) {
    functions[name] = async (argument) => {
      const checked = await parse(input, argument, 'ERR_ARGUMENT_INVALID')
      const reply = await calls.call(name, checked, {
        deadlineMs: OCALL_DEADLINE_MS,
        limits,
        codes: OCALL_CODES,
        otherwise: 'ERR_OCALL_FAILED',
      })
      return parse(output, reply, 'ERR_REPLY_INVALID')
    }
  }
  return Object.freeze(functions)
}
