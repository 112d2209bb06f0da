import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { cutPower, fillDisk, Skipped } from './disks.js'
import { inject } from './injections.js'
import { killEnclaves, killHosts, killKms, type Result } from './kills.js'

const HELP = `npm run crash [-- options]

Real processes over real files: hosts, enclave processes and KMSs are killed at the moments before and after each of their
operations, system calls fail, a disk fills up, the power is cut. Whoever comes next must find what was acknowledged.
What needs root, strace or a file system that is not there is skipped, by name.

  --kills N    how many, of all three together (100)
  --cuts N     how many power cuts on each file system (5)
  --only TEXT  only what has this in its name
  --json FILE  also write what came of each
  --help

Exit code 1 where anything acknowledged was lost, torn or came from nowhere.
`

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '100' },
    cuts: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    json: { type: 'string' },
    help: { type: 'boolean' },
  },
})
if (values.help === true) {
  console.log(HELP)
  process.exit(0)
}
const kills = Number(values.kills)
if (!Number.isSafeInteger(kills) || kills < 3) throw new RangeError('--kills: at least 3')

const cuts = Number(values.cuts)
if (!Number.isSafeInteger(cuts) || cuts < 1) throw new RangeError('--cuts: at least 1')

/** How many operations of an enclave on its host are before and behind a recovery and a few rounds. */
const ENCLAVE_MOMENT_COUNT = 60

const progress = (text: string): void => console.error(text)
const campaigns: readonly (readonly [name: string, run: () => Promise<Result>])[] = [
  ['SIGKILL of the host', () => killHosts(kills - 2 * Math.floor(kills / 3), progress)],
  ['SIGKILL of the KMS', () => killKms(Math.floor(kills / 3), progress)],
  ['SIGKILL of the enclave process', () => killEnclaves(Math.floor(kills / 3), ENCLAVE_MOMENT_COUNT, progress)],
  ['system calls that fail (strace)', () => inject(progress)],
  ['a full disk (tmpfs)', () => fillDisk()],
  ['power cuts on ext4', () => cutPower('ext4', cuts, progress)],
  ['power cuts on xfs', () => cutPower('xfs', cuts, progress)],
]

/** Two at a time, as the smallest machine has processors. */
const queue = campaigns.filter(([name]) => name.includes(values.only)).values()
const results: Result[] = []
const skipped: string[] = []
await Promise.all(
  [1, 2].map(async () => {
    for (const [name, run] of queue) {
      try {
        results.push(await run())
      } catch (error) {
        if (!(error instanceof Skipped)) throw error
        skipped.push(`${name}: ${error.message}`)
      }
    }
  }),
)

for (const { name, count, covered, statesCompared, moments, violations } of results) {
  console.log(`${name}: ${count}, at ${covered} moments, ${statesCompared} states compared (${moments.join(', ')})`)
  for (const violation of violations) console.log(`VIOLATION: ${name}: ${violation}`)
}
for (const each of skipped) console.log(`skipped: ${each}`)
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results, skipped }, null, 2)}\n`)
const violationCount = results.reduce((sum, { violations }) => sum + violations.length, 0)
console.log(`${results.reduce((sum, { count }) => sum + count, 0)} deaths, ${violationCount} violations`)
process.exitCode = violationCount === 0 ? 0 : 1
