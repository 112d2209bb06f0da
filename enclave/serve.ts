import { encodeLifecycle } from '../protocol/calls.js'
import { decodeConfiguration } from '../protocol/configuration.js'
import type { EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { diagnostics } from './diagnostics.js'
import type { FlowOptions, OpenedFlow } from './flow.js'
import { openGate } from './gate.js'
import {
  hostCommits,
  hostFindings,
  hostKms,
  hostSegments,
  hostStore,
  platformAttester,
  printOnHost,
  untilStarted,
} from './host-services.js'
import type { Launched } from './launched.js'
import { OutgoingCalls } from './ocalls.js'

export interface ServeOptions {
  readonly definition: EnclaveDefinition
  readonly openFlow: (options: FlowOptions) => Promise<OpenedFlow>
  readonly instance: Launched
  readonly clock: Clock
  /** Runs `wipe` before the instance ends. */
  readonly wipeAtExit: (wipe: () => void) => void
}

/**
 * Opens the flow of an instance, says READY, then serves. Apart from runtime.ts, whose imports harden the realm: the test kit
 * serves in a realm that is its user’s own.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, and as `openFlow`.
 */
export const serveInstance = async (options: ServeOptions): Promise<void> => {
  const { definition, openFlow, instance, clock, wipeAtExit } = options
  const { kmsIdentity, kmsStore, messageSizeBytesMax, isolation, standby } = decodeConfiguration(instance.configuration)
  if (isolation !== instance.isolation) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'isolation' })
  const ocalls = new OutgoingCalls(instance.ocalls, clock)
  diagnostics()?.attach((lines) => printOnHost(ocalls, lines))
  if (standby === true) await untilStarted(ocalls)
  const opened = await openFlow({
    store: hostStore(ocalls),
    kms: hostKms(ocalls),
    commits: hostCommits(ocalls),
    segments: hostSegments(ocalls),
    attester: platformAttester(new OutgoingCalls(instance.platform, clock)),
    kmsIdentity,
    kmsStore,
    flow: instance.flow,
    task: instance.task,
    image: instance.measurement,
    random: nodeRandom,
    clock,
    found: hostFindings(ocalls),
    ...(definition.migrate === undefined ? {} : { migrate: definition.migrate }),
  })
  wipeAtExit(() => opened.wipe())
  instance.ecalls.post(encodeLifecycle({ type: 'READY' }).message)
  openGate({
    port: instance.ecalls,
    definition,
    flow: opened.flow,
    calls: opened.calls,
    ocalls,
    clock,
    limits: { sizeBytesMax: messageSizeBytesMax },
  })
}
