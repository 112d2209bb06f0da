import { openSync, writeSync } from 'node:fs'
import { describeFault } from '../kms/request-note.js'
import { formatEntry, isLogged, type LogEntry, type LogFormat } from '../kms/log-entry.js'
import { KeyriseError } from '../protocol/errors.js'
import { systemCode } from '../storage/failures.js'
import type { ServeConfig } from './serve-config.js'

/** Where `kms serve` says what happens. */
export interface OperatorLog {
  /** Adds a line, unless the event is of less importance than the log has. Never throws: a full disk must not stop the KMS. */
  write(entry: LogEntry): void
  /** A fault that ends the process. */
  fault(error: unknown): void
}

const STANDARD_ERROR = 2

/**
 * Opens the log that the configuration asks for. A line is written before the next thing happens, so that none is missing when the
 * process ends; a file is made for this user alone.
 * @throws {KeyriseError} ERR_CONFIG_INVALID: the file cannot be written.
 */
export const openLog = (
  { logFile, logFormat, logLevel }: Pick<ServeConfig, 'logFile' | 'logFormat' | 'logLevel'>,
  isJson: boolean,
): OperatorLog => {
  const isForPeople = logFile === undefined && !isJson && process.stderr.isTTY
  const format: LogFormat = logFormat ?? (isForPeople ? 'text' : 'json')
  const descriptor = logFile === undefined ? STANDARD_ERROR : openFile(logFile)
  let isFailing = false
  const write = (entry: LogEntry): void => {
    if (!isLogged(entry, logLevel)) return
    try {
      writeSync(descriptor, formatEntry(entry, Date.now(), format))
      isFailing = false
    } catch (error) {
      if (descriptor === STANDARD_ERROR || isFailing) return
      isFailing = true
      process.stderr.write(`logFile: ${logFile ?? ''} cannot be written (${systemCode(error) ?? 'unknown'})\n`)
    }
  }
  return { write, fault: (error) => write({ level: 'error', event: 'fault', ...describeFault(error) }) }
}

const openFile = (path: string): number => {
  try {
    return openSync(path, 'a', 0o600)
  } catch (error) {
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `logFile: ${path} cannot be written (${systemCode(error) ?? 'unknown'})`,
    })
  }
}
