import { isKeyriseError, type ErrorCode } from '../protocol/errors.js'

/** What is told of one request to those who operate the KMS: names, codes and public detail, nothing secret. */
export interface RequestNote {
  /** Made here; also the answer’s `x-request-id`. What the caller calls its request is not looked at. */
  readonly id: string
  /** What was asked for, from a fixed list: an operation’s name, a route’s path, or `unknown`. */
  op: string
  /** Why it was refused; undefined where it was not. */
  code?: ErrorCode
  /** As the policy calls it. */
  image?: string
  flow?: string
  detail?: string
  frames?: readonly string[]
}

/** A fault, for the operator’s log. */
export interface FaultDetail {
  readonly detail: string
  /** Where it happened: functions and places in files, never a message. */
  readonly frames?: readonly string[]
}

const FRAME_COUNT_MAX = 12

/**
 * What can be told of an error without a secret in it. A message of ours holds public detail only; one of anybody else’s may
 * quote what it could not read, so only its kind, its system code and the functions that it passed are told.
 */
export const describeFault = (error: unknown): FaultDetail => {
  if (isKeyriseError(error)) return { detail: error.message }
  if (!(error instanceof Error)) return { detail: 'something that is no error was thrown' }
  const code =
    'code' in error && typeof error.code === 'string' && /^[A-Z0-9_]{1,40}$/.test(error.code) ? error.code : ''
  const frames = (error.stack ?? '')
    .split('\n')
    .filter((line) => /^ {4}at /.test(line))
    .slice(0, FRAME_COUNT_MAX)
    .map((line) => line.trim())
  return { detail: code === '' ? error.name : `${error.name} ${code}`, frames }
}

/** Writes down why a request was not answered as asked. */
export const noteFault = (note: RequestNote, code: ErrorCode, error: unknown): void => {
  Object.assign(note, { code, ...describeFault(error) })
}

/** So that an event can be found in the log of requests. */
export const requestOf = (note: RequestNote | undefined): { readonly request?: string } =>
  note === undefined ? {} : { request: note.id }
