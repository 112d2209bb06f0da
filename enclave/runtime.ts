import { encodeLifecycle } from '../protocol/calls.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError, outsideCode } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import { endInstance, EXIT_CODES, wipeAtExit } from './boot.js'
import { diagnostics } from './diagnostics.js'
import type { FlowOptions, OpenedFlow } from './flow.js'
import { launchedInstance } from './launched.js'
import { serveInstance } from './serve.js'

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
  try {
    await serveInstance({ definition, openFlow, instance, clock, wipeAtExit })
  } catch (error) {
    diagnostics()?.fail(error)
    const code = error instanceof KeyriseError ? outsideCode(error.code) : 'ERR_LAUNCH_FAILED'
    instance.ecalls.post(encodeLifecycle({ type: 'FAILED', code }).message)
    endInstance(EXIT_CODES.failed)
  }
}
