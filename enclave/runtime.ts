import type { MessagePort } from 'node:worker_threads'
import { copyBytes, type Bytes } from '../protocol/bytes.js'
import { encodeLifecycle, type Lifecycle } from '../protocol/calls.js'
import { decodeConfiguration } from '../protocol/configuration.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError, outsideCode } from '../protocol/errors.js'
import { portOf } from '../protocol/message-port.js'
import { parseFlowId, type FlowId } from '../protocol/names.js'
import type { Clock, Port } from '../protocol/ports.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { endInstance, EXIT_CODES, launched, wipeAtExit } from './boot.js'
import { diagnostics } from './diagnostics.js'
import type { FlowOptions, OpenedFlow } from './flow.js'
import { openGate } from './gate.js'
import { hostKms, hostSegments, hostStore, platformAttester, printOnHost } from './host-services.js'
import { OutgoingCalls } from './ocalls.js'

/** What the platform passes to an instance. The platform is trusted; the ports to the host are not. */
interface Launched {
  readonly ecalls: MessagePort
  readonly ocalls: MessagePort
  readonly platform: MessagePort
  readonly configuration: Bytes
  readonly measurement: Bytes
  readonly flow: FlowId
  readonly task: FlowId
}

const clock: Clock = {
  nowMs: () => Date.now(),
  timer(delayMs, elapsed) {
    const timeout = setTimeout(elapsed, delayMs)
    return { [Symbol.dispose]: () => clearTimeout(timeout) }
  },
}

/**
 * The last thing that an image does: opens the flow, says READY, then serves. A flow that does not open says FAILED with
 * its code, and the instance ends.
 */
export const startEnclave = async (
  definition: EnclaveDefinition,
  openFlow: (options: FlowOptions) => Promise<OpenedFlow>,
): Promise<void> => {
  const instance = launched as Launched
  // The platform closes its end before it ends the instance: the time to wipe. So does a platform that disappears.
  instance.platform.on('close', () => endInstance(EXIT_CODES.wiped))
  const ecalls = portOf(instance.ecalls)
  const announce = (lifecycle: Lifecycle): void => ecalls.post(encodeLifecycle(lifecycle).message)
  try {
    await open(definition, openFlow, instance, ecalls, announce)
  } catch (error) {
    diagnostics()?.fail(error)
    announce({ type: 'FAILED', code: error instanceof KeyriseError ? outsideCode(error.code) : 'ERR_LAUNCH_FAILED' })
    endInstance(EXIT_CODES.failed)
  }
}

const open = async (
  definition: EnclaveDefinition,
  openFlow: (options: FlowOptions) => Promise<OpenedFlow>,
  instance: Launched,
  ecalls: Port,
  announce: (lifecycle: Lifecycle) => void,
): Promise<void> => {
  const { kmsIdentity, messageSizeBytesMax } = decodeConfiguration(instance.configuration)
  const ocalls = new OutgoingCalls(portOf(instance.ocalls), clock)
  diagnostics()?.attach((lines) => printOnHost(ocalls, lines))
  const opened = await openFlow({
    store: hostStore(ocalls),
    kms: hostKms(ocalls),
    segments: hostSegments(ocalls),
    attester: platformAttester(new OutgoingCalls(portOf(instance.platform), clock)),
    kmsIdentity,
    flow: parseFlowId(instance.flow),
    task: parseFlowId(instance.task),
    image: copyBytes(instance.measurement),
    random: nodeRandom,
    clock,
  })
  wipeAtExit(() => opened.wipe())
  announce({ type: 'READY' })
  openGate({ port: ecalls, definition, flow: opened.flow, ocalls, limits: { sizeBytesMax: messageSizeBytesMax } })
}
