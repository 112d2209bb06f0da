import type { EcallsOf, EnclaveDefinition } from '../protocol/contract.js'
import { KeyriseError } from '../protocol/errors.js'
import { parseFlowId } from '../protocol/names.js'

/** What `sweep` runs again and again: enclaves, each with a flow of its own, and what is asked of them, step by step. */

/** What the operator of the KMS does meanwhile. Each resolves when it is acknowledged; `rewrap` when all pairs are current. */
export interface Operator {
  /** A new newest root key; the KMS starts again with it. */
  readonly rotate: () => Promise<void>
  /** All that is sealed to a root key, for the newest one alone. */
  readonly rewrap: () => Promise<void>
  /** Ends the KMS and starts it again. */
  readonly restart: () => Promise<void>
  /** A copy of the keyring is put back, and the KMS starts from it and its ledger. */
  readonly restore: () => Promise<void>
  /** A backup in the place of the one before. No KMS starts beside it if its receipt is missing. */
  readonly backUp: () => Promise<void>
  /** A backup is made, and restored over the KMS that it was made of. */
  readonly restoreBackup: () => Promise<void>
  /** A backup is made, and restored to a place of its own, where a KMS could start from it with every key. */
  readonly restoreElsewhere: () => Promise<void>
  /** The root keys are taken out. No KMS starts beside them if the receipt of it is missing. */
  readonly breakGlass: () => Promise<void>
  /** Custodians’ shares open the keyring of another KMS instead of a passphrase, and the next time that again. Whatever is said there opens it, or no KMS starts. */
  readonly rekeyAside: () => Promise<void>
  /** A new newest root key while the KMS runs; it rewraps the host’s store in the background. */
  readonly rotateOnline: () => Promise<void>
  /** Older root keys are disabled while the KMS runs, once it has rewrapped the store and nothing there depends on them. */
  readonly retire: () => Promise<void>
}

/** What a step has in hand. */
export interface Party<Definition> {
  readonly ecalls: EcallsOf<Definition>
  readonly operator: Operator
  /** Drops the instance as a power cut would; the next call waits for one that has recovered. */
  readonly crash: () => Promise<void>
}

export interface FlowScenario<Definition> {
  /** The default export of an enclave module, of the image’s source. */
  readonly enclave: Definition
  /**
   * One after the other. Each may change the flow’s state once, all or nothing: after a crash it is there as a whole or not at
   * all, and it is there once the step has resolved. A step that changes the state more often has `between`.
   */
  readonly steps: readonly ((party: Party<Definition>) => Promise<unknown>)[]
  /**
   * What the state is, as plain values; all entries of the flow unless told. Needed where runs of the steps do not store the same
   * bytes each time. It changes nothing.
   */
  readonly observe?: (party: Party<Definition>) => Promise<unknown>
  /** True for a state that may be found between two of `observe`, the first of which was acknowledged. */
  readonly between?: (observed: unknown, before: unknown, after: unknown) => boolean
  /** What the host does for the enclave. */
  readonly ocalls?: object
  /** As of `launch`: flows of one task are members of it. */
  readonly task?: string
  /** A newer image, with an approved grant to take the flow over; launched in place of the older one as the step of this number, from 1, begins. */
  readonly successor?: { readonly enclave: Definition; readonly step: number }
}

export interface Scenario {
  readonly name: string
  /** By the name of each flow. Flows run at the same time, their steps one after the other. */
  readonly flows: Readonly<Record<string, FlowScenario<EnclaveDefinition>>>
  /** Values that lie in entries and may appear nowhere else; 16 bytes or more each. */
  readonly secrets?: readonly Uint8Array[]
}

/**
 * A scenario, with its enclaves’ types in its steps.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_NAME_INVALID: what a compiler would have said.
 */
export const defineScenario = <Definitions extends Readonly<Record<string, EnclaveDefinition>>>(scenario: {
  readonly name: string
  readonly flows: { readonly [Flow in keyof Definitions]: FlowScenario<Definitions[Flow]> }
  readonly secrets?: readonly Uint8Array[]
}): Scenario => checkScenario(scenario)

/** @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_NAME_INVALID. */
export const checkScenario = (claimed: unknown): Scenario => {
  const scenario = claimed as Partial<Scenario> | null | undefined
  const flows = scenario?.flows
  if (typeof scenario?.name !== 'string' || typeof flows !== 'object' || Object.keys(flows).length === 0)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'not a scenario: it has a name, and at least one flow' })
  for (const [flow, { enclave, steps }] of Object.entries(flows)) {
    parseFlowId(flow)
    if (typeof (enclave as Partial<EnclaveDefinition> | undefined)?.ecalls !== 'object' || !Array.isArray(steps))
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `the flow ${flow} has an enclave, and steps` })
  }
  return scenario as Scenario
}
