import { isErrorCode } from '../protocol/errors.js'
import type { Answered } from './http-listener.js'
import type { Surface } from './metrics.js'
import type { KmsEvent } from './service.js'

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
export const LOG_FORMATS = ['text', 'json'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

/** One event of a KMS’s log: names, codes, figures and public detail, nothing secret. */
export interface LogEntry {
  readonly level: LogLevel
  /** An operation of the enclaves’ surface, a path of the admin surface, or what happened to the KMS itself. */
  readonly event: string
  readonly surface?: Surface
  /** Its id, which its answer has as `x-request-id`. */
  readonly request?: string
  /** HTTP’s; 0 where the connection ended before the answer. */
  readonly status?: number
  readonly code?: string
  readonly image?: string
  readonly flow?: string
  readonly detail?: string
  /** Where a fault happened. */
  readonly frames?: readonly string[]
  readonly durationMs?: number
}

/** What an operator wants to see as it happens; the rest is every enclave’s everyday. */
const TOLD: ReadonlySet<string> = new Set(['handshake', 'claim', 'destroy', 'publish'])
const LOOKED_AT: ReadonlySet<string> = new Set(['/v1/status', '/v1/console', '/console', '/metrics', '/openapi.json'])

/** What the log says of a request. */
export const entryOfRequest = (surface: Surface, { note, status, seconds }: Answered): LogEntry => {
  const { id: request, op: event, ...told } = note
  const isTold = surface === 'admin' ? !LOOKED_AT.has(event) : TOLD.has(event)
  const level = told.code === undefined ? (isTold ? 'info' : 'debug') : levelOf(told.code)
  return { level, event, surface, request, status, ...told, durationMs: Math.round(seconds * 1e6) / 1e3 }
}

/** What the log says of an event that belongs to no request; undefined of one that does, since its request is told of. */
export const entryOfEvent = ({ request, event, ...told }: KmsEvent): LogEntry | undefined =>
  request === undefined ? { level: told.code === undefined ? 'info' : levelOf(told.code), event, ...told } : undefined

/** Codes of faults and of what this machine lacks. All else is the caller’s doing. */
const levelOf = (code: string): LogLevel =>
  !isErrorCode(code) || /^ERR_(?:KMS_FAILED|STORE_|LEDGER_DAMAGED|LEDGER_MISSING|UNEXPECTED)/.test(code)
    ? 'error'
    : 'warn'

export const isLogged = (entry: LogEntry, least: LogLevel): boolean =>
  LOG_LEVELS.indexOf(entry.level) <= LOG_LEVELS.indexOf(least)

/** A line of the log: JSON for machines, words for people. */
export const formatEntry = (entry: LogEntry, timeMs: number, format: LogFormat): string => {
  const time = new Date(timeMs).toISOString()
  if (format === 'json') return `${JSON.stringify({ time, ...entry })}\n`
  const { level, event, code, image, flow, detail, durationMs } = entry
  const words = [
    time,
    level,
    event,
    code,
    image,
    flow,
    detail,
    durationMs === undefined ? undefined : `${durationMs} ms`,
  ]
  return `${words.filter((word) => word !== undefined).join(' ')}\n`
}
