import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import {
  ageOpensOurs,
  hasAge,
  hasTerminal,
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

const check = (title: string, run: () => Promise<void>): void => {
  test(title, async (t) => {
    t.timeout(TIMEOUT_MS)
    await t.notThrowsAsync(run)
  })
}

/** Skipped by name where the machine lacks the command. */
const checkCommand = (title: string, present: boolean, run: (directory: string) => Promise<void>): void => {
  if (!present) {
    test.skip(`${title}: no age, or no script`, () => undefined)
    return
  }
  test(title, async (t) => {
    t.timeout(TIMEOUT_MS)
    const directory = mkdtempSync(join(tmpdir(), 'keyrise-age-'))
    t.teardown(() => {
      rmSync(directory, { recursive: true })
    })
    await t.notThrowsAsync(() => run(directory))
  })
}

export const defineInterop = ({ typage, hybrid, command, rsa, passphrase }: InteropCounts): void => {
  check(`typage opens ${String(typage)} of ours: X25519`, () => typageOpensOurs('x25519', typage))
  check(`we open ${String(typage)} of typage’s: X25519`, () => weOpenTypages('x25519', typage))
  check(`typage opens ${String(hybrid)} of ours: mlkem768x25519`, () => typageOpensOurs('hybrid', hybrid))
  check(`we open ${String(hybrid)} of typage’s: mlkem768x25519`, () => weOpenTypages('hybrid', hybrid))
  check(`${String(passphrase)} with typage, both ways: passphrase`, () => passphrasesWithTypage(passphrase))
  checkCommand(`age opens ${String(command)} of ours: X25519`, hasAge, (directory) =>
    ageOpensOurs('x25519', command, directory),
  )
  checkCommand(`we open ${String(command)} of age’s: X25519`, hasAge, () => weOpenAges('x25519', command))
  checkCommand(`age opens ${String(rsa)} of ours: ssh-rsa`, hasAge, (directory) =>
    ageOpensOurs('ssh-rsa', rsa, directory),
  )
  checkCommand(`we open ${String(rsa)} of age’s: ssh-rsa`, hasAge, () => weOpenAges('ssh-rsa', rsa))
  checkCommand(`${String(passphrase)} with age, both ways: passphrase`, hasAge && hasTerminal, (directory) =>
    passphrasesWithAge(passphrase, directory),
  )
}
