import { SimulatedClock } from '../../faults/index.js'
import { launch, MemoryStore, type EnclaveEvent, type EnclaveHandle, type LaunchLimits } from '../../host/index.js'
import { echoKms, scriptedImage, type ScriptedPlatform } from './scripted-platform.js'

export const LIMITS = {
  launchDeadlineMs: 5_000,
  callDeadlineMs: 1_000,
  relaunchDeadlineMs: 60_000,
  backoffMinMs: 100,
  backoffMaxMs: 1_000,
} as const satisfies Partial<LaunchLimits>

interface Started {
  readonly handle: EnclaveHandle<unknown>
  readonly echo: (input?: unknown, options?: { readonly signal?: AbortSignal }) => Promise<unknown>
  readonly clock: SimulatedClock
  readonly events: EnclaveEvent[]
}

export const start = async (platform: ScriptedPlatform, clock = new SimulatedClock(1_000_000)): Promise<Started> => {
  const events: EnclaveEvent[] = []
  const handle = await launch({
    image: scriptedImage(),
    platform,
    store: new MemoryStore(),
    kms: echoKms,
    flow: 'flow-1',
    clock,
    limits: LIMITS,
    onEvent: (event) => events.push(event),
  })
  return { handle, echo: handle.ecalls['echo'] as Started['echo'], clock, events }
}

/** Lets everything that is on its way arrive. */
export const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve))
}
