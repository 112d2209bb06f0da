export { defineEnclave, ecall, ocall, refuse, type Ecall, type EcallContext, type OcallFunctions } from './define.js'
export { KeyriseError, isKeyriseError, type ErrorCode } from '../protocol/errors.js'
export type {
  BulkItem,
  CheckpointValue,
  EnclaveDefinition,
  Flow,
  FlowEntry,
  ResealedEntry,
  RosterMember,
} from '../protocol/contract.js'
export type { EntryKind, EntryName, FlowId } from '../protocol/names.js'
