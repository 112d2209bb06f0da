import type { FlowOptions, OpenedFlow } from '../../enclave/flow.js'
import { KeyriseError } from '../../protocol/errors.js'

/**
 * Stands for the real flow where only the boundary is under test: opens at once, and tells the host through its store that
 * `wipe` ran. A flow named `refused` fails to open.
 */
export const openFlow = ({ store, flow, task, attester }: FlowOptions): Promise<OpenedFlow> => {
  if (flow === 'refused') throw new Error('nothing of this text leaves')
  const asked = { nonce: new Uint8Array(32).fill(1), confirmationKey: new Uint8Array(32).fill(2) }
  const vocabulary = {
    id: flow,
    task,
    epoch: 0,
    checkpoint: (claims: typeof asked) => attester.attest({ ...asked, ...claims }),
  }
  return Promise.resolve({
    flow: vocabulary as unknown as OpenedFlow['flow'],
    // Calls with a key need a flow that stores something.
    calls: {
      run: () => Promise.reject(new KeyriseError('ERR_STORE_UNWRITABLE')),
    } as unknown as OpenedFlow['calls'],
    recovery: { kind: 'fresh', adopted: false, epoch: 1 },
    wipe: () => void store.put('wiped', new Uint8Array(1)).catch(() => {}),
  })
}
