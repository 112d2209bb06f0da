import * as Comlink from 'comlink'
import type { CallId } from '../protocol/ports.js'
import { isPending } from './schema.js'
import type { Outcome, ServedEcall } from './served-ecall.js'

/** Serves one call. It neither throws nor rejects. */
export type Serve = (id: CallId, ecall: ServedEcall, given: unknown) => Outcome | PromiseLike<Outcome>

/** Calls of one ECALL on their way through Comlink together: each has an id, and what it was given. */
interface Train {
  readonly ecall: ServedEcall
  readonly ids: CallId[]
  readonly given: unknown[]
}

type Outcomes = readonly (Outcome | PromiseLike<Outcome>)[]

/**
 * Gathers the calls of one turn of the event loop, and has Comlink serve them. Calls of one ECALL that arrive one after another
 * are one message, which the gate has made itself, under an id of its own.
 * @returns what takes a call. `settled` is called once for each.
 */
export const openTrains = (
  ecalls: Readonly<Record<string, ServedEcall>>,
  serve: Serve,
  settled: (id: CallId, ecall: ServedEcall, given: unknown, outcome: Outcome) => void,
): ((id: CallId, ecall: ServedEcall, given: unknown) => void) => {
  let gathered: Train[] = []
  const away = new Map<string, Train>()
  let count = 0
  const comlink = comlinkEnd((trainId, outcomes) => {
    const train = away.get(trainId)
    if (train === undefined) return
    away.delete(trainId)
    const { ecall, ids, given } = train
    for (const [index, id] of ids.entries()) {
      const outcome = outcomes?.[index] ?? { error: undefined }
      if (isPending(outcome)) void outcome.then((late) => settled(id, ecall, given[index], late))
      else settled(id, ecall, given[index], outcome)
    }
  })
  Comlink.expose(servedTrains(ecalls, serve), comlink.endpoint)

  const depart = (): void => {
    const departing = gathered
    gathered = []
    for (const train of departing) {
      const id = String(++count)
      away.set(id, train)
      comlink.deliver({ id, type: 'APPLY', path: [train.ecall.name], argumentList: [{ type: 'RAW', value: train }] })
    }
  }
  return (id, ecall, given) => {
    if (gathered.length === 0) queueMicrotask(depart)
    let train = gathered.at(-1)
    if (train?.ecall !== ecall) gathered.push((train = { ecall, ids: [], given: [] }))
    train.ids.push(id)
    train.given.push(given)
  }
}

/** What Comlink exposes, with no prototype: each ECALL takes a train, and gives an outcome for each of its calls. */
const servedTrains = (ecalls: Readonly<Record<string, ServedEcall>>, serve: Serve): object => {
  const exposed = Object.create(null) as Record<string, (train: Train) => Outcomes>
  for (const name of Object.keys(ecalls))
    exposed[name] = ({ ecall, ids, given }) => ids.map((id, index) => serve(id, ecall, given[index]))
  return Object.freeze(exposed)
}

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
