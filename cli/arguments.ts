import { InvalidArgumentError, Option } from 'commander'
import { ROOT_SUITES } from '../protocol/statements.js'

/** Reads an option’s whole number from `min` to `max`. */
export const wholeNumber =
  (min: number, max: number) =>
  (claimed: string): number => {
    const value = /^\d{1,9}$/.test(claimed) ? Number(claimed) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`A whole number from ${min} to ${max}.`)
  }

/** Of a root key that is made. */
export const suiteOption = (): Option =>
  new Option('--suite <name>', 'what the root key is made of').choices(ROOT_SUITES).default(ROOT_SUITES[0])
