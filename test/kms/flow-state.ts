import type { FlowState } from '../../kms/ledger.js'
import { parseFlowId } from '../../protocol/names.js'
import { digestOf } from './attested-client.js'

/** The ledger’s line of a flow that was opened and never claimed, but for `changes`. */
export const flowState = (changes: Partial<FlowState> = {}): FlowState => ({
  task: parseFlowId('task-1'),
  image: digestOf(1),
  svn: 0,
  signed: null,
  predecessors: [],
  head: null,
  incarnation: 0,
  destroyed: false,
  staleAccepted: false,
  ...changes,
})

/** A head that is like no other epoch’s. */
export const headOf = (epoch: number) => ({ epoch, digest: digestOf(epoch) })
