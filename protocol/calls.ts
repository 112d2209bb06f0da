import { describeError, isErrorCode, KeyriseError, outsideCode, type ErrorCode } from './errors.js'
import { CALL_ID_LIMIT, IDEMPOTENCY_KEY_LENGTH_MAX } from './limits.js'
import type { CallId, CallPosting, ClaimedCall, Port } from './ports.js'
import { releaseValue, type ValueLimits } from './values.js'

/**
 * Calls between host and enclave, both ways: the part of Comlink 4's wire that is a plain call. A call is APPLY with a path
 * of one name and at most one RAW argument; a reply is RAW, or Comlink's `throw` with a code. Nothing else is one. What is
 * ours beside it are ids that are numbers, keys, synchronous calls, streams and cancelling.
 */

/**
 * The OCALLs of the runtime itself, with what they carry and answer. Authors' names cannot contain `:`. Those of the store may
 * carry `copy` besides: which of its copies is meant, from 0; none is the store as a whole.
 */
export const RUNTIME_OCALLS = {
  /** { name, bytes } → nothing */
  storePut: 'keyrise:store-put',
  /** { name } → bytes, or null where there are none */
  storeGet: 'keyrise:store-get',
  /** { name, offset, sizeBytes } → at most so many bytes, or null where there is no such name */
  storeRead: 'keyrise:store-read',
  /** { prefix } → names */
  storeList: 'keyrise:store-list',
  /** { name } → nothing */
  storeDelete: 'keyrise:store-delete',
  /** nothing → how many copies the store keeps of everything */
  storeCopies: 'keyrise:store-copies',
  /** { object, status } → nothing: what the enclave found out about an object in the store */
  storeFinding: 'keyrise:store-finding',
  /** { frame } → bytes */
  kmsExchange: 'keyrise:kms-exchange',
  /** { name, bytes, frame } → bytes: what the KMS answered to the frame, which it got once the object was durable */
  storeCommit: 'keyrise:store-commit',
  /** { name, offset, sizeBytes, stream, index } → the segment as the KMS delivers it, or null where there is no such name */
  bulkSegment: 'keyrise:bulk-segment',
  /** nothing → nothing, once the host has use for an instance that was launched to stand by */
  start: 'keyrise:start',
  /** { lines } → nothing: the output of a debug image; lines are { level, text } */
  print: 'keyrise:print',
} as const
export type RuntimeOcallName = (typeof RUNTIME_OCALLS)[keyof typeof RUNTIME_OCALLS]

/** A message and what it transfers, ready for `Port.post`. */
export interface Outgoing {
  readonly message: unknown
  readonly transfer: readonly ArrayBuffer[]
}

/**
 * What belongs to a call in flight, either way: an item of its stream, the stream's end, leave to send so many items more, or
 * word that whoever sends it wants no more of the call, or of the stream that it receives.
 */
export type StreamMessage =
  | { readonly id: CallId; readonly type: 'ITEM'; readonly claimedValue: unknown }
  | { readonly id: CallId; readonly type: 'CREDIT'; readonly claimedCount: unknown }
  | { readonly id: CallId; readonly type: 'END' | 'CANCEL' }

export type ClaimedReply =
  { readonly id: CallId; readonly claimedValue: unknown } | { readonly id: CallId; readonly error: KeyriseError }

const ID_LENGTH_MAX = 64
const NAME_LENGTH_MAX = 64
const REASON_LENGTH_MAX = 256

/** An author's name of an ECALL, an OCALL or a refusal. */
const CALL_NAME = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/
export const isCallName = (claimed: unknown): claimed is string =>
  typeof claimed === 'string' && CALL_NAME.test(claimed)

/** An own field of a claimed object, or undefined: nothing inherited, no accessor. */
const field = (claimed: unknown, key: PropertyKey): unknown =>
  typeof claimed === 'object' && claimed !== null ? Object.getOwnPropertyDescriptor(claimed, key)?.value : undefined

/** Zero has one form: −0 is refused, as the same key of a Map and another number. */
export const isCallNumber = (id: number): boolean =>
  Number.isInteger(id) && id >= 0 && id < CALL_ID_LIMIT && !Object.is(id, -0)

/** The id that a claimed message carries, so that even a refusal can be addressed. */
export const claimedId = (claimed: unknown): CallId | undefined => {
  const id = field(claimed, 'id')
  if (typeof id === 'number') return isCallNumber(id) ? id : undefined
  return typeof id === 'string' && id.length > 0 && id.length <= ID_LENGTH_MAX ? id : undefined
}

const only = (claimed: unknown): unknown =>
  Array.isArray(claimed) && claimed.length === 1 ? field(claimed, 0) : undefined

const IDEMPOTENCY_KEY = /^[\x20-\x7e]+$/

export const isIdempotencyKey = (claimed: unknown): claimed is string =>
  typeof claimed === 'string' && claimed.length <= IDEMPOTENCY_KEY_LENGTH_MAX && IDEMPOTENCY_KEY.test(claimed)

/** What a claimed message says it is. */
export const claimedType = (claimed: unknown): unknown => field(claimed, 'type')

/** Reads a call. @throws {KeyriseError} ERR_MESSAGE_INVALID. */
export const parseCall = (claimed: unknown): ClaimedCall => {
  if (claimedType(claimed) !== 'APPLY') throw new KeyriseError('ERR_MESSAGE_INVALID')
  const call = readCall(claimed)
  // Asked before they are read, since most calls have neither.
  const isOurs = typeof claimed === 'object' && claimed !== null && ('key' in claimed || 'switchless' in claimed)
  return isOurs ? withOptions(call, claimed) : call
}

const withOptions = (call: ClaimedCall, claimed: object): ClaimedCall => {
  const key = field(claimed, 'key')
  if (key !== undefined && !isIdempotencyKey(key)) throw new KeyriseError('ERR_MESSAGE_INVALID', { detail: 'key' })
  return {
    ...call,
    ...(field(claimed, 'switchless') === true ? { isSwitchless: true } : {}),
    ...(key === undefined ? {} : { key }),
  }
}

const readCall = (claimed: unknown): ClaimedCall => {
  const id = claimedId(claimed)
  const name = only(field(claimed, 'path'))
  if (id === undefined) throw new KeyriseError('ERR_MESSAGE_INVALID')
  if (typeof name !== 'string' || name.length === 0 || name.length > NAME_LENGTH_MAX)
    throw new KeyriseError('ERR_MESSAGE_INVALID')
  const claimedList = field(claimed, 'argumentList')
  if (Array.isArray(claimedList) && claimedList.length === 0) return { id, name, claimedArgument: undefined }
  const wire = only(claimedList)
  if (field(wire, 'type') !== 'RAW') throw new KeyriseError('ERR_MESSAGE_INVALID')
  return { id, name, claimedArgument: field(wire, 'value') }
}

/** Reads what belongs to a call in flight; undefined when it is nothing of the kind. */
export const parseStreamMessage = (claimed: unknown): StreamMessage | undefined => {
  const id = claimedId(claimed)
  if (id === undefined) return undefined
  const type = claimedType(claimed)
  switch (type) {
    case 'ITEM':
      return { id, type, claimedValue: field(claimed, 'value') }
    case 'CREDIT':
      return { id, type, claimedCount: field(claimed, 'count') }
    case 'END':
    case 'CANCEL':
      return { id, type }
    default:
      return undefined
  }
}

/** Posts one item of a stream. @returns the bytes that it counts. @throws {KeyriseError} as `releaseValue`. */
export const postItem = (port: Port, id: CallId, item: unknown, limits?: ValueLimits): number => {
  const { value, transfer, sizeBytes } = releaseValue(item, limits)
  port.post({ id, type: 'ITEM', value }, transfer)
  return sizeBytes
}
export const postCredit = (port: Port, id: CallId, count: number): void => port.post({ id, type: 'CREDIT', count })
export const postEnd = (port: Port, id: CallId): void => port.post({ id, type: 'END' })
export const postCancel = (port: Port, id: CallId): void => port.post({ id, type: 'CANCEL' })

/** @throws {KeyriseError} as `releaseValue`, when the argument cannot cross. */
export const encodeCall = (
  id: CallId,
  name: string,
  argument: unknown,
  { limits, isSwitchless = false, key }: CallPosting = {},
): Outgoing => {
  const { value, transfer } = releaseValue(argument, limits)
  const argumentList = value === undefined ? [] : [{ type: 'RAW', value }]
  const message = { id, type: 'APPLY', path: [name], argumentList }
  return {
    message: {
      ...message,
      ...(isSwitchless ? { switchless: true } : {}),
      ...(key === undefined ? {} : { key }),
    },
    transfer,
  }
}

/** Makes a call, the way that the port does it best. @throws {KeyriseError} as `releaseValue`. */
export const postCall = (port: Port, id: CallId, name: string, argument: unknown, options?: CallPosting): void => {
  if (port.postCall !== undefined && options?.key === undefined) return port.postCall(id, name, argument, options)
  const { message, transfer } = encodeCall(id, name, argument, options)
  port.post(message, transfer)
}

/** Answers a call, the way that the port does it best. @throws {KeyriseError} as `releaseValue`. */
export const postReply = (port: Port, id: CallId, reply: unknown, limits?: ValueLimits): void => {
  if (port.postReply !== undefined) return port.postReply(id, reply, limits)
  const { message, transfer } = encodeReply(id, reply, limits)
  port.post(message, transfer)
}

/** Shared memory is copied. @throws {KeyriseError} as `releaseValue`, when the value cannot cross. */
export const encodeReply = (id: CallId, reply: unknown, limits?: ValueLimits): Outgoing => {
  const { value, transfer } = releaseValue(reply, limits, 'copied')
  return { message: { id, type: 'RAW', value }, transfer }
}

let tellError: ((error: unknown) => string) | undefined

/** Lets refusals carry what `tell` says of their errors. Called in debug images alone, by enclave/debug.ts. */
export const tellErrors = (tell: (error: unknown) => string): void => {
  tellError = tell
}

/**
 * A refusal: the code and its fixed text; for ERR_APPLICATION the declared reason and its declared text. No detail, cause
 * or stack leaves, unless this is a debug image, and what is not a KeyriseError leaves as `otherwise`.
 */
export const encodeRefusal = (
  id: CallId | undefined,
  error: unknown,
  otherwise: ErrorCode = 'ERR_ENCLAVE_FAILED',
): Outgoing => {
  const code = error instanceof KeyriseError ? outsideCode(error.code) : otherwise
  const reason = code === 'ERR_APPLICATION' && error instanceof KeyriseError ? error.reason : undefined
  const message = reason !== undefined && error instanceof KeyriseError ? error.message : describeError(code).text
  const value = {
    name: 'KeyriseError',
    message,
    code,
    remedy: describeError(code).remedy,
    ...(reason === undefined ? {} : { reason }),
    ...(tellError === undefined ? {} : { trace: tellError(error) }),
  }
  return {
    message: { ...(id === undefined ? {} : { id }), type: 'HANDLER', name: 'throw', value: { isError: true, value } },
    transfer: [],
  }
}

const claimedError = (claimed: unknown): KeyriseError | undefined => {
  if (field(claimed, 'isError') !== true) return undefined
  const claimedCode = field(field(claimed, 'value'), 'code')
  const code = isErrorCode(claimedCode) ? claimedCode : 'ERR_MESSAGE_INVALID'
  const reason = field(field(claimed, 'value'), 'reason')
  const error = new KeyriseError(
    code,
    typeof reason === 'string' && reason.length <= REASON_LENGTH_MAX ? { reason } : {},
  )
  const trace = field(field(claimed, 'value'), 'trace')
  if (typeof trace === 'string') tellInStack(error, trace)
  return error
}

/** The stack on this side says how the reply arrived; what a debug image told says more. */
const tellInStack = (error: KeyriseError, trace: string): void => {
  const told = printableText(trace).split('\n').join('\n    ')
  Object.defineProperty(error, 'stack', {
    value: `${error.name}: ${error.message}\n  in the enclave:\n    ${told}`,
    writable: true,
    configurable: true,
  })
}

const TEXT_LENGTH_MAX = 64 * 1024

/** Text from the other side as a terminal may show it: nothing moves the cursor, and its length is bounded. */
export const printableText = (claimed: string): string =>
  claimed
    .slice(0, TEXT_LENGTH_MAX)
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\ufffd')

/**
 * Reads a reply; undefined when it is none. An error in it has a known code, and nothing else of the sender's but the reason and,
 * of a debug image, the stack.
 */
export const parseReply = (claimed: unknown): ClaimedReply | undefined => {
  const id = claimedId(claimed)
  if (id === undefined) return undefined
  const type = field(claimed, 'type')
  if (type === 'RAW') return { id, claimedValue: field(claimed, 'value') }
  if (type !== 'HANDLER' || field(claimed, 'name') !== 'throw') return undefined
  const error = claimedError(field(claimed, 'value'))
  return error === undefined ? undefined : { id, error }
}

/**
 * The first message on the ECALL port, from the enclave: it serves, or why it never will. A failed launch then ends the
 * instance. No call is read before READY.
 */
export type Lifecycle = { readonly type: 'READY' } | { readonly type: 'FAILED'; readonly code: ErrorCode }

export const encodeLifecycle = (lifecycle: Lifecycle): Outgoing => ({ message: { ...lifecycle }, transfer: [] })

/** Undefined when the message is no lifecycle message. */
export const parseLifecycle = (claimed: unknown): Lifecycle | undefined => {
  const type = field(claimed, 'type')
  if (type === 'READY') return { type }
  const code = field(claimed, 'code')
  return type === 'FAILED' ? { type, code: isErrorCode(code) ? code : 'ERR_LAUNCH_FAILED' } : undefined
}
