import type { Parts } from './copies.js'
import type { EpochState } from './epoch-file.js'
import type { FlowKeys } from './flow-keys.js'
import type { LedgerState } from './kms-client.js'
import { ROOT_EPOCH, type ObjectName } from './object-names.js'
import { openRoot, sealNewRoot, type FlowPorts } from './root.js'
import type { StoredObject } from './epoch-file.js'
import { putObject } from './stored-objects.js'

/** True when the store holds more than a birth that a crash cut short, so that a ledger without a head must have forgotten. */
export const isBeyondBirth = (ledger: LedgerState, names: readonly ObjectName[]): boolean =>
  names.some(({ kind, incarnation }) => kind !== 'root' || incarnation > ledger.incarnation)

/**
 * The ledger has no head, so nothing was ever acknowledged: what the store may hold is a root of a birth that a crash cut
 * short. It is taken over where it is the newest incarnation's, so that one root lives on.
 */
export const findUnfinishedBirth = async (
  ports: FlowPorts,
  ledger: LedgerState,
  names: readonly ObjectName[],
): Promise<{ keys: FlowKeys; state: EpochState; parts: Parts } | undefined> => {
  const name = names.find(({ incarnation }) => incarnation === ledger.incarnation)
  const opened = name && (await openRoot(ports, name))
  return opened && { keys: opened.keys, state: newbornState(opened.object), parts: opened.parts }
}

/**
 * Makes the flow's root key and commits it as epoch 1.
 * @param incarnation - claimed, with no head in the ledger.
 */
export const beginFlow = async (
  ports: FlowPorts,
  incarnation: number,
): Promise<{ keys: FlowKeys; state: EpochState }> => {
  const name: ObjectName = { kind: 'root', epoch: ROOT_EPOCH, incarnation, serial: 0 }
  const { keys, envelope, object } = sealNewRoot(ports, name)
  try {
    await putObject(ports.store, ports.identity.flow, name, envelope)
    const state = newbornState(object)
    await ports.kms.commit(incarnation, null, state.head)
    ports.kms.tookOver()
    return { keys, state }
  } catch (error) {
    // Nothing was sealed under it. If its envelope is there, the next launch takes the same root over.
    keys[Symbol.dispose]()
    throw error
  }
}

export const newbornState = (object: StoredObject): EpochState => ({
  head: { epoch: ROOT_EPOCH, digest: object.digest },
  object,
  entries: new Map(),
})
