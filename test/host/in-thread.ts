import { openGate } from '../../enclave/gate.js'
import type { OpenedFlow } from '../../enclave/flow.js'
import { OutgoingCalls } from '../../enclave/ocalls.js'
import { portPair, SimulatedClock } from '../../faults/index.js'
import {
  launch,
  MemoryStore,
  type EnclaveHandle,
  type Image,
  type Instance,
  type LaunchOptions,
} from '../../host/index.js'
import { encodeLifecycle } from '../../protocol/calls.js'
import type { EnclaveDefinition } from '../../protocol/contract.js'
import { declaredCalls } from '../../protocol/declared-calls.js'
import type { KmsLink, Port } from '../../protocol/ports.js'

/** The host's ends of the ports of a running instance, and what passed over the one for ECALLs. */
export interface InThread<Definition> {
  readonly handle: EnclaveHandle<Definition>
  readonly clock: SimulatedClock
  /** Types of the messages into the enclave and out of it, `in:APPLY` say, in order. */
  readonly passed: string[]
  /** Messages out of the enclave. */
  readonly answers: unknown[]
  /** Posts a message to the gate, as a hostile host does. */
  readonly post: (message: unknown) => void
  /** Ends the instance as a crash does. */
  readonly kill: () => void
}

const NO_KMS = { identity: new Uint8Array(32) } as unknown as KmsLink

/**
 * A definition between a real gate and a real host, in this thread, over ports that the test can read and write.
 * @param o.opened - the flow, where the handlers use one.
 */
export const launchInThread = async <Definition extends EnclaveDefinition>(
  definition: Definition,
  o: { readonly ocalls?: object; readonly opened?: OpenedFlow; readonly limits?: object } = {},
): Promise<InThread<Definition>> => {
  const clock = new SimulatedClock()
  const passed: string[] = []
  const answers: unknown[] = []
  let host: Port | undefined
  let exit: (() => void) | undefined
  const start = (): Instance => {
    const [ecalls, ecallsInside] = portPair()
    const [ocalls, ocallsInside] = portPair()
    const exited = new Promise<{ reason: string }>((resolve) => (exit = () => resolve({ reason: 'killed' })))
    host = watched(ecalls, passed, answers)
    ecallsInside.post(encodeLifecycle({ type: 'READY' }).message)
    openGate({
      port: ecallsInside,
      definition,
      flow: o.opened?.flow as OpenedFlow['flow'],
      calls: o.opened?.calls as OpenedFlow['calls'],
      ocalls: new OutgoingCalls(ocallsInside, clock),
      clock,
      limits: { sizeBytesMax: 1024 * 1024 },
    })
    const end = (): Promise<void> => Promise.resolve(exit?.())
    return { ecalls: host, ocalls, exited, terminate: end, kill: end }
  }
  const { name, svn } = definition
  const manifest = { format: 'keyrise-image/2', name, svn, debug: false, ...declaredCalls(definition), refusals: [] }
  const handle = await launch({
    image: { manifest, source: '', measurement: new Uint8Array(32) } as unknown as Image<Definition>,
    platform: { publicKey: new Uint8Array(32), launch: start },
    store: new MemoryStore(),
    kms: NO_KMS,
    flow: 'flow',
    clock,
    ocalls: o.ocalls,
    ...(o.limits === undefined ? {} : { limits: o.limits }),
  } as unknown as LaunchOptions<Definition>)
  return { handle, clock, passed, answers, post: (message) => host?.post(message), kill: () => exit?.() }
}

const watched = (port: Port, passed: string[], answers: unknown[]): Port => ({
  post: (message, transfer) => {
    passed.push(`in:${typeOf(message)}`)
    port.post(message, transfer)
  },
  onMessage: (listen) =>
    port.onMessage((message) => {
      passed.push(`out:${typeOf(message)}`)
      answers.push(message)
      listen(message)
    }),
  close: () => port.close(),
})

const typeOf = (message: unknown): string => String((message as { type?: unknown } | null)?.type)

/** Lets what is on its way arrive, and what follows from it happen. */
export const turns = async (count = 40): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}
