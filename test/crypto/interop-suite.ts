import test, { type ExecutionContext } from 'ava'
import { inDirectory, withAge, withAgeAndTerminal } from '../machine.js'
import {
  ageOpensOurs,
  passphrasesWithAge,
  passphrasesWithTypage,
  typageOpensOurs,
  weOpenAges,
  weOpenTypages,
} from './interop-cases.js'

/** How many random cases of each, in each direction. */
export interface InteropCounts {
  readonly typage: number
  readonly hybrid: number
  readonly command: number
  readonly rsa: number
  readonly passphrase: number
}

const TIMEOUT_MS = 60 * 60_000

const inTime =
  (run: (directory: string) => Promise<void>) =>
  async (t: ExecutionContext): Promise<void> => {
    t.timeout(TIMEOUT_MS)
    await inDirectory(run)(t)
  }

export const defineInterop = ({ typage, hybrid, command, rsa, passphrase }: InteropCounts): void => {
  test(
    `typage opens ${String(typage)} of ours: X25519`,
    inTime(() => typageOpensOurs('x25519', typage)),
  )
  test(
    `we open ${String(typage)} of typage’s: X25519`,
    inTime(() => weOpenTypages('x25519', typage)),
  )
  test(
    `typage opens ${String(hybrid)} of ours: mlkem768x25519`,
    inTime(() => typageOpensOurs('hybrid', hybrid)),
  )
  test(
    `we open ${String(hybrid)} of typage’s: mlkem768x25519`,
    inTime(() => weOpenTypages('hybrid', hybrid)),
  )
  test(
    `${String(passphrase)} with typage, both ways: passphrase`,
    inTime(() => passphrasesWithTypage(passphrase)),
  )
  withAge(
    `age opens ${String(command)} of ours: X25519`,
    inTime((directory) => ageOpensOurs('x25519', command, directory)),
  )
  withAge(
    `we open ${String(command)} of age’s: X25519`,
    inTime(() => weOpenAges('x25519', command)),
  )
  withAge(
    `age opens ${String(rsa)} of ours: ssh-rsa`,
    inTime((directory) => ageOpensOurs('ssh-rsa', rsa, directory)),
  )
  withAge(
    `we open ${String(rsa)} of age’s: ssh-rsa`,
    inTime(() => weOpenAges('ssh-rsa', rsa)),
  )
  withAgeAndTerminal(
    `${String(passphrase)} with age, both ways: passphrase`,
    inTime((directory) => passphrasesWithAge(passphrase, directory)),
  )
}
