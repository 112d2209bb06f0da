import { encodeLifecycle, type Lifecycle } from '../protocol/calls.js'
import { decodeConfiguration } from '../protocol/configuration.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError, outsideCode } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { endInstance, EXIT_CODES, wipeAtExit } from './boot.js'
import { diagnostics } from './diagnostics.js'
import type { FlowOptions, OpenedFlow } from './flow.js'
import { openGate } from './gate.js'
import { hostKms, hostSegments, hostStore, platformAttester, printOnHost } from './host-services.js'
import { launchedInstance, type Launched } from './launched.js'
import { OutgoingCalls } from './ocalls.js'

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
  const instance = launchedInstance()
  // The platform closes its end before it ends the instance: the time to wipe. So does a platform that disappears.
  instance.onRelease(() => endInstance(EXIT_CODES.wiped))
  const announce = (lifecycle: Lifecycle): void => instance.ecalls.post(encodeLifecycle(lifecycle).message)
  try {
    await open(definition, openFlow, instance, announce)
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
  announce: (lifecycle: Lifecycle) => void,
): Promise<void> => {
  const { kmsIdentity, messageSizeBytesMax, isolation } = decodeConfiguration(instance.configuration)
  if (isolation !== instance.isolation) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'isolation' })
  const ocalls = new OutgoingCalls(instance.ocalls, clock)
  diagnostics()?.attach((lines) => printOnHost(ocalls, lines))
  const opened = await openFlow({
    store: hostStore(ocalls),
    kms: hostKms(ocalls),
    segments: hostSegments(ocalls),
    attester: platformAttester(new OutgoingCalls(instance.platform, clock)),
    kmsIdentity,
    flow: instance.flow,
    task: instance.task,
    image: instance.measurement,
    random: nodeRandom,
    clock,
  })
  wipeAtExit(() => opened.wipe())
  announce({ type: 'READY' })
  openGate({
    port: instance.ecalls,
    definition,
    flow: opened.flow,
    ocalls,
    limits: { sizeBytesMax: messageSizeBytesMax },
  })
}
