export {
  defineEnclave,
  ecall,
  ocall,
  refuse,
  type Ecall,
  type EcallContext,
  type Ocall,
  type OcallFunctions,
} from './define.js'
export { KeyriseError, isKeyriseError, type ErrorCode } from '../protocol/errors.js'
export type {
  BulkItem,
  CheckpointValue,
  EcallLimits,
  EnclaveDefinition,
  Flow,
  FlowEntry,
  Migrate,
  Migrated,
  Migration,
  OcallLimits,
  ObjectStatus,
  ResealedEntry,
  RosterMember,
  VerifiedObject,
} from '../protocol/contract.js'
export type { CancelSignal } from '../protocol/ports.js'
export { wipeAtExit } from '../protocol/live-secrets.js'
export type { EntryKind, EntryName, FlowId } from '../protocol/names.js'
