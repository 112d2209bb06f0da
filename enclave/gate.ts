import * as Comlink from 'comlink'
import { claimedId, encodeRefusal, parseCall, postReply, type ClaimedCall, type Outgoing } from '../protocol/calls.js'
import type { EcallDeclaration, EnclaveDefinition, Flow } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { CALLS_IN_FLIGHT_MAX } from '../protocol/limits.js'
import type { Port } from '../protocol/ports.js'
import { admitReceived, type ValueLimits } from '../protocol/values.js'
import { ocallFunctions, type OutgoingCalls } from './ocalls.js'
import { isPending, parse, whenReady } from './schema.js'

/**
 * The only way in. Comlink serves the calls, but sees none of the host's messages: the gate reads each one, admits plain
 * calls of declared ECALLs with a private copy of their argument, and writes the message that Comlink gets, under an id of
 * its own. Calls of one ECALL that arrive together, one after another, are one such message with an argument each. Comlink's
 * answers come back to the gate, which releases an exact copy of each call's, or a code.
 *
 * A switchless call's caller blocks until it is answered: the gate serves it itself, at once.
 */
export interface GateOptions {
  readonly port: Port
  readonly definition: EnclaveDefinition
  readonly flow: Flow
  readonly ocalls: OutgoingCalls
  readonly limits: ValueLimits
}

/** How a call ended. It crosses Comlink as a value, so that Comlink never serialises an error. */
type Outcome = { readonly value: unknown } | { readonly error: unknown }
/** At once where schemas and handler answer at once. It neither throws nor rejects. */
type Served = (argument: unknown) => Outcome | PromiseLike<Outcome>

/** Calls of one ECALL on their way through Comlink together. */
interface Train {
  readonly name: string
  readonly ids: string[]
  readonly argumentList: { readonly type: 'RAW'; readonly value: unknown }[]
}

export const openGate = (options: GateOptions): void => {
  const { port, limits, definition } = options
  const table = ecallTable(options)
  let inFlightCount = 0

  const post = ({ message, transfer }: Outgoing): void => port.post(message, transfer)
  const release = (id: string, outcome: Outcome): void => {
    if ('error' in outcome) return post(encodeRefusal(id, outcome.error))
    try {
      postReply(port, id, outcome.value, limits)
    } catch (error) {
      post(encodeRefusal(id, error))
    }
  }
  const settle = (id: string, outcome: Outcome): void => {
    inFlightCount--
    release(id, outcome)
  }
  const admit = trains(table, settle)

  const serveAtOnce = ({ id, name }: ClaimedCall, served: Served, argument: unknown): void => {
    if (definition.ecalls[name]?.switchless !== true) throw new KeyriseError('ERR_SWITCHLESS')
    const outcome = served(argument)
    // What was begun goes on; nobody hears of it any more.
    release(id, isPending(outcome) ? { error: new KeyriseError('ERR_SWITCHLESS') } : outcome)
  }

  const admitted = ({ claimedArgument }: ClaimedCall, sizeBytes: number | undefined): unknown => {
    if (sizeBytes === undefined) return admitReceived(claimedArgument, limits)
    // The port has made a private copy of plain values, which count so many bytes.
    if (sizeBytes > (limits.sizeBytesMax ?? Infinity)) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'bytes' })
    return claimedArgument
  }

  port.onMessage(
    (claimed, sizeBytes) => {
      try {
        const call = parseCall(claimed)
        const served = table[call.name]
        if (served === undefined) throw new KeyriseError('ERR_ECALL_UNKNOWN')
        if (inFlightCount >= CALLS_IN_FLIGHT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
        const argument = admitted(call, sizeBytes)
        if (call.isSwitchless === true) return serveAtOnce(call, served, argument)
        inFlightCount++
        admit(call.id, call.name, argument)
      } catch (error) {
        post(encodeRefusal(claimedId(claimed), error))
      }
    },
    (id, error) => post(encodeRefusal(id, error)),
  )
}

/** Gathers the calls of one turn of the event loop, and has Comlink serve them. */
const trains = (table: Readonly<Record<string, Served>>, settle: (id: string, outcome: Outcome) => void) => {
  let gathered: Train[] = []
  const away = new Map<string, Train>()
  let count = 0
  const comlink = comlinkEnd((trainId, outcomes) => {
    const train = away.get(trainId)
    away.delete(trainId)
    for (const [index, id] of train?.ids.entries() ?? []) {
      const outcome = outcomes?.[index] ?? { error: undefined }
      if (isPending(outcome)) void outcome.then((settled) => settle(id, settled))
      else settle(id, outcome)
    }
  })
  Comlink.expose(servedTrains(table), comlink.endpoint)

  const depart = (): void => {
    const departing = gathered
    gathered = []
    for (const train of departing) {
      const id = String(++count)
      away.set(id, train)
      comlink.deliver({ id, type: 'APPLY', path: [train.name], argumentList: train.argumentList })
    }
  }
  return (id: string, name: string, argument: unknown): void => {
    if (gathered.length === 0) queueMicrotask(depart)
    let train = gathered.at(-1)
    if (train?.name !== name) gathered.push((train = { name, ids: [], argumentList: [] }))
    train.ids.push(id)
    train.argumentList.push({ type: 'RAW', value: argument })
  }
}

/** What Comlink exposes: each ECALL takes the arguments of a train, and gives an outcome for each. */
const servedTrains = (table: Readonly<Record<string, Served>>): object => {
  const exposed = Object.create(null) as Record<string, (...given: unknown[]) => unknown>
  for (const [name, served] of Object.entries(table))
    exposed[name] = (...given) => given.map((argument) => served(argument))
  return Object.freeze(exposed)
}

type Outcomes = readonly (Outcome | PromiseLike<Outcome>)[]

/** The endpoint that Comlink serves: messages in from the gate alone, answers out to the gate alone. */
const comlinkEnd = (answered: (trainId: string, outcomes: Outcomes | undefined) => void) => {
  let listen: ((event: { data: unknown }) => void) | undefined
  const endpoint: Comlink.Endpoint = {
    postMessage: (message: { id: string; type: string; value: unknown }) =>
      answered(message.id, message.type === 'RAW' ? (message.value as Outcomes) : undefined),
    addEventListener: (_type: string, listener: unknown) => {
      listen = listener as typeof listen
    },
    removeEventListener: () => {},
  }
  return { endpoint, deliver: (data: unknown) => listen?.({ data }) }
}

/** Name → served ECALL, with no prototype: `constructor` is a name like any other, and not declared. */
const ecallTable = ({ definition, flow, ocalls, limits }: GateOptions): Readonly<Record<string, Served>> => {
  const table = Object.create(null) as Record<string, Served>
  const refused = (error: unknown): Outcome => ({ error: declaredRefusal(definition, error) })
  const answered = (value: unknown): Outcome => ({ value })
  for (const [name, declaration] of Object.entries(definition.ecalls)) {
    const context = Object.freeze({ flow, ocalls: ocallFunctions(declaration, ocalls, limits) })
    table[name] = (argument) => {
      try {
        const output = serve(declaration, context, argument)
        return isPending(output) ? output.then(answered, refused) : answered(output)
      } catch (error) {
        return refused(error)
      }
    }
  }
  return Object.freeze(table)
}

const serve = (declaration: EcallDeclaration, context: object, argument: unknown): unknown => {
  const handle = declaration.handle as (context: object, input: unknown) => unknown
  const output = whenReady(parse(declaration.input, argument, 'ERR_ARGUMENT_INVALID'), (input) =>
    handle(context, input),
  )
  return whenReady(output, (value) => parse(declaration.output, value, 'ERR_REPLY_INVALID'))
}

/** A refusal leaves with its declared text; one that is not declared is a bug, and leaves as ERR_ENCLAVE_FAILED. */
const declaredRefusal = (definition: EnclaveDefinition, error: unknown): unknown => {
  if (!(error instanceof KeyriseError) || error.code !== 'ERR_APPLICATION') return error
  const { reason } = error
  if (reason === undefined || !Object.hasOwn(definition.refusals, reason)) return undefined
  const detail = definition.refusals[reason]
  return new KeyriseError('ERR_APPLICATION', { reason, ...(detail === undefined ? {} : { detail }) })
}
