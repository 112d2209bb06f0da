import { SourceMap } from 'node:module'
import { format } from 'node:util'
import { tellErrors } from '../protocol/calls.js'
import { setDiagnostics, type OutputLine, type SendOutput } from './diagnostics.js'
import { printValue } from './print-value.js'

/**
 * The very first module of a debug image, before boot closes what it uses: console output goes to the host, errors leave with
 * their stack, and stacks name the author’s own lines. A debug image has another measurement, says so in its manifest and so in
 * evidence, and gets keys only where a KMS’s policy allows it.
 */

/** The bundle’s own source map, which the bundler puts into the measured string (platform/bundle.ts). */
declare const keyriseSourceMap: string
/** In the measured string the manifest and the opening of the script come before the first line that is mapped. */
const LINES_BEFORE_SCRIPT = 2
/** What imports the author’s module and starts it. */
const ENTRY = 'keyrise-image.js'
const STACK_DEPTH_MAX = 50

const TEXT_LENGTH_MAX = 32 * 1024
/** One call’s worth of output: a few of the longest lines. */
const BATCH_LENGTH_MAX = 128 * 1024
/** Whoever prints faster than the host listens loses the newest lines. */
const WAITING_COUNT_MAX = 10_000

let sourceMap: SourceMap | undefined

/** Where a position of the bundle comes from: `party.enclave.ts:12:9`; undefined where it is not the bundle’s. */
const originOf = (line: number, column: number): string | undefined => {
  sourceMap ??= new SourceMap(JSON.parse(keyriseSourceMap) as ConstructorParameters<typeof SourceMap>[0])
  const entry = sourceMap.findEntry(line - 1 - LINES_BEFORE_SCRIPT, column - 1)
  return 'originalSource' in entry
    ? `${entry.originalSource}:${String(entry.originalLine + 1)}:${String(entry.originalColumn + 1)}`
    : undefined
}

/** A frame as the author knows it; undefined for those of Node and of what starts the bundle. */
const frameOf = (site: NodeJS.CallSite): string | undefined => {
  const [file, line, column] = [site.getFileName() ?? '', site.getLineNumber(), site.getColumnNumber()]
  const frame = (site as { toString(): string }).toString()
  if (line === null || column === null) return frame
  // The bundle is the one script that is not Node’s own, nor what Node wraps around it.
  if (file.startsWith('node:') || file.endsWith('-wrapper')) return undefined
  const origin = originOf(line, column)
  if (origin === undefined || origin.startsWith(ENTRY)) return undefined
  return frame.replace(`${file}:${String(line)}:${String(column)}`, origin)
}

const headOf = (error: Error): string => {
  try {
    return String(error)
  } catch {
    return 'an error that cannot be printed'
  }
}

const bounded = (text: string): string =>
  text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}… (cut)` : text

/** As they were when they were made: Node writes the source of an uncaught error into its stack, and here that is the whole bundle. */
const stacks = new WeakMap<Error, string>()

const stackOf = (error: Error): string => {
  // Read first, because it is made when it is read.
  const { stack } = error
  return stacks.get(error) ?? (typeof stack === 'string' ? stack : headOf(error))
}

const text = (value: unknown): string => {
  try {
    return bounded(printValue(value, stackOf))
  } catch {
    return 'a value that cannot be printed'
  }
}

/** As the console does: the first text may have places for the others. */
const formatted = (values: readonly unknown[]): string => {
  const printed = values.map((value) =>
    typeof value === 'object' || typeof value === 'function' ? text(value) : value,
  )
  return typeof printed[0] === 'string' ? format(...printed) : printed.map(text).join(' ')
}

const waiting: OutputLine[] = []
let send: SendOutput | undefined
let isSending = false

/** One call at a time, since calls have no promised order. */
const pass = (): void => {
  if (send === undefined || isSending || waiting.length === 0) return
  isSending = true
  const sent = (): void => {
    isSending = false
    pass()
  }
  send(takeBatch()).then(sent, sent)
}

const takeBatch = (): OutputLine[] => {
  let length = 0
  const end = waiting.findIndex(({ text }) => (length += text.length) > BATCH_LENGTH_MAX)
  return waiting.splice(0, end === -1 ? waiting.length : Math.max(end, 1))
}

const print = (level: string, line: string): void => {
  if (waiting.length < WAITING_COUNT_MAX) waiting.push({ level, text: bounded(line) })
  pass()
}

const openConsole = (): void => {
  for (const level of Object.keys(console)) {
    if (typeof console[level as keyof Console] !== 'function') continue
    const value = (...values: unknown[]): void => print(level, formatted(values))
    Object.defineProperty(console, level, { value, writable: false, configurable: false })
  }
  for (const [stream, level] of [
    ['stdout', 'log'],
    ['stderr', 'error'],
  ] as const) {
    const write = (chunk: unknown): boolean => {
      print(level, typeof chunk === 'string' ? chunk.replace(/\n$/, '') : text(chunk))
      return true
    }
    const sink = Object.freeze({
      write,
      end: () => {},
      on: () => sink,
      once: () => sink,
      emit: () => false,
      isTTY: false,
    })
    Object.defineProperty(process, stream, { value: sink, writable: false, configurable: false })
  }
}

Error.stackTraceLimit = STACK_DEPTH_MAX
Error.prepareStackTrace = (error, sites) => {
  const stack = [headOf(error), ...sites.map(frameOf).filter((frame) => frame !== undefined)].join('\n    at ')
  stacks.set(error, stack)
  return stack
}
openConsole()
tellErrors(text)
setDiagnostics({
  attach: (to) => {
    send = to
    pass()
  },
  fail: (error) => {
    print('error', text(error))
    while (send !== undefined && waiting.length > 0) send(takeBatch()).catch(() => {})
  },
})
