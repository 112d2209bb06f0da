import { spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'

/** Commands of the machine, not of the package: a test that needs one is skipped, by name, where it is missing. */

const has = (command: string, flag: string): boolean =>
  spawnSync(command, [flag], { stdio: 'ignore' }).error === undefined
const hasAge = has('age', '--version')
/** Lends a command a terminal. */
const hasScript = has('script', '--version')

export const withAge = hasAge ? test : test.skip
export const withTerminal = hasScript ? test : test.skip
export const withAgeAndTerminal = hasAge && hasScript ? test : test.skip
export const withAgeAndSshKeygen = hasAge && has('ssh-keygen', '-?') ? test : test.skip

/** A test of what does not throw in a directory of its own. */
export const inDirectory =
  (work: (directory: string) => Promise<void> | void) =>
  async (t: ExecutionContext): Promise<void> => {
    const directory = await mkdtemp(join(tmpdir(), 'keyrise-age-'))
    t.teardown(() => rm(directory, { recursive: true }))
    await t.notThrowsAsync(async () => work(directory))
  }
