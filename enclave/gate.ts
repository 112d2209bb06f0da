import * as Comlink from 'comlink'
import { claimedId, encodeRefusal, encodeReply, parseCall, type Outgoing } from '../protocol/calls.js'
import type { EcallDeclaration, EnclaveDefinition, Flow } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { CALLS_IN_FLIGHT_MAX } from '../protocol/limits.js'
import type { Port } from '../protocol/ports.js'
import { admitValue, type ValueLimits } from '../protocol/values.js'
import { ocallFunctions, type OutgoingCalls } from './ocalls.js'
import { parse } from './schema.js'

/**
 * The only way in. Comlink serves the calls, but sees none of the host's messages: the gate reads each one, admits plain
 * calls of declared ECALLs with a private copy of their argument, and writes the message that Comlink gets, under an id of
 * its own. Comlink's answers come back to the gate, which releases an exact copy, or a code.
 */
export interface GateOptions {
  readonly port: Port
  readonly definition: EnclaveDefinition
  readonly flow: Flow
  readonly ocalls: OutgoingCalls
  readonly limits: ValueLimits
}

/** How a call ended. It crosses Comlink as one value, so that Comlink never serialises an error. */
type Outcome = { readonly value: unknown } | { readonly error: unknown }
type Served = (argument: unknown) => Promise<Outcome>

export const openGate = (options: GateOptions): void => {
  const { port, limits } = options
  const table = ecallTable(options)
  const inFlight = new Map<string, string>()
  let admittedCount = 0

  const post = ({ message, transfer }: Outgoing): void => port.post(message, transfer)
  const release = (id: string, outcome: Outcome): Outgoing => {
    if ('error' in outcome) return encodeRefusal(id, outcome.error)
    try {
      return encodeReply(id, outcome.value, limits)
    } catch (error) {
      return encodeRefusal(id, error)
    }
  }
  const comlink = comlinkEnd((admittedId, outcome) => {
    const id = inFlight.get(admittedId)
    inFlight.delete(admittedId)
    if (id !== undefined) post(release(id, outcome))
  })
  Comlink.expose(table, comlink.endpoint)

  port.onMessage((claimed) => {
    try {
      const { id, name, claimedArgument } = parseCall(claimed)
      if (table[name] === undefined) throw new KeyriseError('ERR_ECALL_UNKNOWN')
      if (inFlight.size >= CALLS_IN_FLIGHT_MAX) throw new KeyriseError('ERR_CALLS_LIMIT')
      const argument = admitValue(claimedArgument, limits)
      const admittedId = String(++admittedCount)
      inFlight.set(admittedId, id)
      comlink.deliver({ id: admittedId, type: 'APPLY', path: [name], argumentList: [{ type: 'RAW', value: argument }] })
    } catch (error) {
      post(encodeRefusal(claimedId(claimed), error))
    }
  })
}

/** The endpoint that Comlink serves: messages in from the gate alone, answers out to the gate alone. */
const comlinkEnd = (answered: (id: string, outcome: Outcome) => void) => {
  let listen: ((event: { data: unknown }) => void) | undefined
  const endpoint: Comlink.Endpoint = {
    postMessage: (message: { id: string; type: string; value: unknown }) =>
      answered(message.id, message.type === 'RAW' ? (message.value as Outcome) : { error: undefined }),
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
  for (const [name, declaration] of Object.entries(definition.ecalls)) {
    const context = Object.freeze({ flow, ocalls: ocallFunctions(declaration, ocalls, limits) })
    table[name] = async (argument) => {
      try {
        return { value: await serve(declaration, context, argument) }
      } catch (error) {
        return { error: declaredRefusal(definition, error) }
      }
    }
  }
  return Object.freeze(table)
}

const serve = async (declaration: EcallDeclaration, context: object, argument: unknown): Promise<unknown> => {
  const input = await parse(declaration.input, argument, 'ERR_ARGUMENT_INVALID')
  const handle = declaration.handle as (context: object, input: unknown) => unknown
  return parse(declaration.output, await handle(context, input), 'ERR_REPLY_INVALID')
}

/** A refusal leaves with its declared text; one that is not declared is a bug, and leaves as ERR_ENCLAVE_FAILED. */
const declaredRefusal = (definition: EnclaveDefinition, error: unknown): unknown => {
  if (!(error instanceof KeyriseError) || error.code !== 'ERR_APPLICATION') return error
  const { reason } = error
  if (reason === undefined || !Object.hasOwn(definition.refusals, reason)) return undefined
  const detail = definition.refusals[reason]
  return new KeyriseError('ERR_APPLICATION', { reason, ...(detail === undefined ? {} : { detail }) })
}
