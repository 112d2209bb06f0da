import { InvalidArgumentError, Option, type Command } from 'commander'
import { ROOT_SUITES } from '../protocol/statements.js'

/** Reads an option’s whole number from `min` to `max`. */
export const wholeNumber =
  (min: number, max: number) =>
  (claimed: string): number => {
    const value = /^\d{1,9}$/.test(claimed) ? Number(claimed) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`A whole number from ${min} to ${max}.`)
  }

/** Collects an option that may be repeated. */
export const each = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  value,
]

/** Of a root key that is made. */
export const suiteOption = (): Option =>
  new Option('--suite <name>', 'what the root key is made of').choices(ROOT_SUITES)

/** Which running KMS a command is for. */
export interface RunningFlags {
  readonly directory: string
  readonly adminSocket?: string
  readonly json?: boolean
}

export const withRunning = (command: Command): Command =>
  command
    .requiredOption('--directory <path>', 'the directory of a KMS that runs')
    .option('--admin-socket <path>', 'its admin socket, where it is not in the directory')
    .option('--json', 'print JSON')
