import { InvalidArgumentError } from 'commander'

/** Reads an option’s whole number from `min` to `max`. */
export const wholeNumber =
  (min: number, max: number) =>
  (claimed: string): number => {
    const value = /^\d{1,9}$/.test(claimed) ? Number(claimed) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`A whole number from ${min} to ${max}.`)
  }
