import { printableText, RUNTIME_OCALLS } from '../protocol/calls.js'
import { FieldReader } from '../protocol/check.js'
import type { EnclaveEvent } from './supervisor.js'

const LINE_COUNT_MAX = 10_000
const LEVEL_LENGTH_MAX = 32
const LINE_LENGTH_MAX = 64 * 1024

/** The OCALL by which a debug image prints. @param print - called for each line, with text that a terminal may show. */
export const printOcall = (
  print: (level: string, text: string) => void,
): [name: string, serve: (claimed: unknown) => void] => [
  RUNTIME_OCALLS.print,
  (claimed) => {
    const readLine = (claimedLine: unknown): readonly [string, string] => {
      const fields = new FieldReader(claimedLine, ['level', 'text'], 'ERR_ARGUMENT_INVALID')
      return [fields.text('level', LEVEL_LENGTH_MAX), printableText(fields.text('text', LINE_LENGTH_MAX))]
    }
    const lines = new FieldReader(claimed, ['lines'], 'ERR_ARGUMENT_INVALID').list('lines', LINE_COUNT_MAX, readLine)
    for (const [level, text] of lines) print(level, text)
  },
]

/** Where nobody listens to events: standard error has what a debug image prints, each line under the image’s name. */
export const printOutput =
  (imageName: string) =>
  (event: EnclaveEvent): void => {
    if (event.type !== 'output') return
    process.stderr.write(event.text.replaceAll(/^/gm, `[${imageName}] `) + '\n')
  }
