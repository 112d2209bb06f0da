import type { EcallDeclaration, EnclaveDefinition, Flow } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { CALLS_IN_FLIGHT_MAX, MESSAGE_SIZE_BYTES_MAX } from '../protocol/limits.js'
import type { CallId, CancelSignal } from '../protocol/ports.js'
import type { ValueLimits } from '../protocol/values.js'
import type { Cancellations } from './cancellations.js'
import { isPending, parse, whenReady } from './schema.js'

/** How a call ended. It crosses Comlink as a value, so that Comlink never serialises an error. */
export type Outcome = { readonly value: unknown } | { readonly error: unknown }

type SizeLimits = ValueLimits & { readonly sizeBytesMax: number }

/** What a handler gets beside its input. */
export class CallContext {
  readonly flow: Flow
  readonly ocalls: object
  readonly items: AsyncIterable<unknown> | undefined
  readonly #id: CallId
  readonly #cancellations: Cancellations

  constructor(flow: Flow, ocalls: object, id: CallId, cancellations: Cancellations, items?: AsyncIterable<unknown>) {
    this.flow = flow
    this.ocalls = ocalls
    this.items = items
    this.#id = id
    this.#cancellations = cancellations
  }

  get signal(): CancelSignal {
    return this.#cancellations.signalOf(this.#id)
  }
}

/** One declared ECALL: what the gate needs of its declaration, made once. */
export class ServedEcall {
  readonly name: string
  readonly declaration: EcallDeclaration
  readonly ocalls: object
  readonly inputLimits: SizeLimits
  readonly outputLimits: SizeLimits
  readonly inFlightMax: number
  readonly isStreaming: boolean
  readonly isSwitchless: boolean
  inFlightCount = 0
  readonly #definition: EnclaveDefinition
  readonly #answered = (value: unknown): Outcome => ({ value })
  readonly #refused = (error: unknown): Outcome => ({ error: declaredRefusal(this.#definition, error) })

  constructor(
    name: string,
    declaration: EcallDeclaration,
    o: { readonly definition: EnclaveDefinition; readonly ocalls: object; readonly limits: ValueLimits },
  ) {
    const { receives, yields, switchless, limits = {} } = declaration
    const { sizeBytesMax = MESSAGE_SIZE_BYTES_MAX } = o.limits
    this.name = name
    this.declaration = declaration
    this.#definition = o.definition
    this.ocalls = o.ocalls
    this.inputLimits = { ...o.limits, sizeBytesMax: Math.min(sizeBytesMax, limits.inputSizeBytesMax ?? sizeBytesMax) }
    this.outputLimits = { ...o.limits, sizeBytesMax: Math.min(sizeBytesMax, limits.outputSizeBytesMax ?? sizeBytesMax) }
    this.inFlightMax = limits.inFlightMax ?? CALLS_IN_FLIGHT_MAX
    this.isStreaming = receives !== undefined || yields !== undefined
    this.isSwitchless = switchless === true
  }

  /** Input schema, handler, output schema. At once where all of them answer at once; it neither throws nor rejects. */
  serve(argument: unknown, context: CallContext): Outcome | PromiseLike<Outcome> {
    try {
      const output = this.answer(argument, context)
      return isPending(output) ? output.then(this.#answered, this.#refused) : this.#answered(output)
    } catch (error) {
      return this.#refused(error)
    }
  }

  /** The checked reply, or a promise of it. @throws what the handler throws; {KeyriseError} */
  answer(argument: unknown, context: CallContext): unknown {
    return whenReady(this.handle(argument, context), (value) =>
      parse(this.declaration.output, value, 'ERR_REPLY_INVALID'),
    )
  }

  /** What the handler returns for a checked argument, not checked itself. */
  handle(argument: unknown, context: CallContext): unknown {
    const handle = this.declaration.handle as (context: object, input: unknown) => unknown
    return whenReady(parse(this.declaration.input, argument, 'ERR_ARGUMENT_INVALID'), (input) => handle(context, input))
  }

  /** An error of the handler's as it may leave. */
  refused(error: unknown): Outcome {
    return this.#refused(error)
  }
}

/** A refusal leaves with its declared text; one that is not declared is a bug, and leaves as ERR_ENCLAVE_FAILED. */
const declaredRefusal = (definition: EnclaveDefinition, error: unknown): unknown => {
  if (!(error instanceof KeyriseError) || error.code !== 'ERR_APPLICATION') return error
  const { reason } = error
  if (reason === undefined || !Object.hasOwn(definition.refusals, reason))
    return new TypeError('A refusal that is not declared', { cause: error })
  const detail = definition.refusals[reason]
  // The cause stays inside, but for debug images, where it says who refused.
  return new KeyriseError('ERR_APPLICATION', { reason, cause: error, ...(detail === undefined ? {} : { detail }) })
}
