import { styleText } from 'node:util'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'

/**
 * 0: done. 1: refused or failed, with a code. 2: the command line is not understood. 130: Ctrl-C at a question. 141: whoever
 * read the output stopped, as for a process that SIGPIPE ends.
 */
export const EXIT = { failed: 1, usage: 2, interrupted: 130, brokenPipe: 141 } as const

/** What ends a command from outside. Whoever listens to one ends the process by it in the end. */
export const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Ctrl-C at a question. */
export class Interrupted extends Error {}

/** Whoever read the output wants no more of it. */
export class BrokenPipe extends Error {}

/** A pipe says EPIPE to whoever writes; a socket that was closed with bytes unread in it, ECONNRESET. */
export const isBrokenPipe = (code: string | undefined): boolean => code === 'EPIPE' || code === 'ECONNRESET'

let isWatched = false

/** Writes on standard output, for whoever still reads it. Where it cannot be written, the command says so and exits by it. */
export const printText = (text: string): void => {
  if (!isWatched) process.stdout.once('error', onUnwritten).on('error', () => undefined)
  isWatched = true
  process.stdout.write(text)
}

/** The one way to print a result: as lines for people, or as one JSON object. */
export const printResult = (isJson: boolean, result: object, lines: readonly string[]): void => {
  printText(isJson ? `${JSON.stringify(result)}\n` : lines.map((line) => `${line}\n`).join(''))
}

/** The outcome of a command that says nothing to people: where standard output carries a file, it goes to standard error. */
export const printOutcome = (isJson: boolean, result: object, isOutputTaken: boolean): void => {
  if (!isJson) return
  if (isOutputTaken) process.stderr.write(`${JSON.stringify(result)}\n`)
  else printResult(true, result, [])
}

const onUnwritten = (error: NodeJS.ErrnoException): void => {
  const detail = `standard output (${error.code ?? 'unknown'})`
  const failure = isBrokenPipe(error.code) ? new BrokenPipe() : new KeyriseError('ERR_FILE_UNWRITABLE', { detail })
  process.exitCode = printError(process.argv.includes('--json'), failure)
}

/** Prints what went wrong and what to do on standard error, and says with what to exit. */
export const printError = (isJson: boolean, error: unknown): number => {
  if (error instanceof Interrupted) return EXIT.interrupted
  if (error instanceof BrokenPipe) return EXIT.brokenPipe
  const { code, message, remedy } = isKeyriseError(error)
    ? error
    : {
        code: 'ERR_UNEXPECTED',
        message: error instanceof Error ? error.message : 'unknown',
        remedy: 'Report it: this is a fault of keyrise itself',
      }
  const lines = [`${emphasise(code)} ${message}`, `  ${remedy}.`]
  process.stderr.write(isJson ? `${JSON.stringify({ error: { code, message, remedy } })}\n` : `${lines.join('\n')}\n`)
  return EXIT.failed
}

/** Red where standard error is a terminal with colours; NO_COLOR is heeded by `hasColors`. */
export const emphasise = (text: string): string =>
  process.stderr.isTTY && process.stderr.hasColors() ? styleText('red', text) : text

/** `name  value` lines with the values below each other. */
export const table = (rows: readonly (readonly [name: string, value: string])[]): string[] => {
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`)
}
