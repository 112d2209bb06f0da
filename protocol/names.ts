import { KeyriseError } from './errors.js'
import { NAME_LENGTH_MAX } from './limits.js'

/** The seven kinds of secret (mission.md, M6), then data before and after processing (M7). */
export const ENTRY_KINDS = [
  'business-key',
  'intermediate-result',
  'final-result',
  'session',
  'password',
  'authorization',
  'interaction-id',
  'pending-data',
  'processed-data',
] as const
export type EntryKind = (typeof ENTRY_KINDS)[number]

/** A store, as an operator registered it with a KMS: `party`. */
export type StoreId = string & { readonly brand: 'StoreId' }

/** What a flow stores: its kind, then a path of its own, as in `intermediate-result/round-3`. */
export type EntryName = `${EntryKind}/${string}`

/** One party's part in one task, or the task itself: `credit-2026`. */
export type FlowId = string & { readonly brand: 'FlowId' }

const SEGMENT = /^[A-Za-z0-9][A-Za-z0-9._-]*$/
const STORE_ID = /^[a-z0-9][a-z0-9-]{0,31}$/
/** Such segments, joined by `/`. */
const PATH = /^[A-Za-z0-9][A-Za-z0-9._-]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/

const refuse = (what: string): never => {
  throw new KeyriseError('ERR_NAME_INVALID', { detail: what })
}

/**
 * Names in a store, of entries and of steps: segments of letters, digits, `.`, `_` and `-`, joined by `/`, none starting
 * with a dot. Nothing else can leave a directory or look like something other than it is.
 */
export const parsePath = (claimed: unknown): string => {
  if (typeof claimed !== 'string' || claimed.length === 0 || claimed.length > NAME_LENGTH_MAX)
    return refuse('1 to 256 characters')
  if (!PATH.test(claimed)) return refuse('letters, digits, . _ - and / between')
  return claimed
}

/** @throws {KeyriseError} ERR_NAME_INVALID. */
export const parseFlowId = (claimed: unknown): FlowId => {
  if (typeof claimed !== 'string' || claimed.length > 64 || !SEGMENT.test(claimed))
    return refuse('a flow or task: 1 to 64 letters, digits, . _ -')
  return claimed as FlowId
}

export const isStoreId = (claimed: unknown): claimed is StoreId => typeof claimed === 'string' && STORE_ID.test(claimed)

/** @throws {KeyriseError} ERR_NAME_INVALID. */
export const parseStoreId = (claimed: unknown): StoreId => {
  return isStoreId(claimed) ? claimed : refuse('a registered store: 1 to 32 lower-case letters, digits, hyphens')
}

/** @throws {KeyriseError} ERR_NAME_INVALID when the kind is unknown or the path is not one. */
export const parseEntryName = (claimed: unknown): EntryName => {
  const path = parsePath(claimed)
  if (!ENTRY_KINDS.some((kind) => path.startsWith(`${kind}/`)))
    return refuse(`an entry starts with one of ${ENTRY_KINDS.join(', ')}`)
  return path as EntryName
}

/** Entries of the runtime itself start with this, which is no kind: no author can name one. */
const RUNTIME_PREFIX = 'keyrise/'

/** Names an entry of the runtime, which is stored as any other. @throws {KeyriseError} ERR_NAME_INVALID. */
export const runtimeEntryName = (path: string): EntryName => parsePath(`${RUNTIME_PREFIX}${path}`) as EntryName

export const isRuntimeEntry = (name: EntryName): boolean => name.startsWith(RUNTIME_PREFIX)

/** What an epoch may list: an author's entry or the runtime's. @throws {KeyriseError} ERR_NAME_INVALID. */
export const parseStoredName = (claimed: unknown): EntryName =>
  typeof claimed === 'string' && claimed.startsWith(RUNTIME_PREFIX)
    ? (parsePath(claimed) as EntryName)
    : parseEntryName(claimed)

/** The kind that a checked entry name starts with. */
export const kindOf = (name: EntryName): EntryKind => name.slice(0, name.indexOf('/')) as EntryKind
