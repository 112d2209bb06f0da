import { parseArgs } from 'node:util'
import { anyChanges, judge } from '../crypto/mutants.js'

/** `npm run fuzz -- --seconds N [--seed S]`: mutants until the time is up, or until one is not refused as it must be. */

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } } })
const seconds = Number(values.seconds)
if (!(seconds > 0)) throw new RangeError('--seconds must be a positive number')
const seed = values.seed ?? String(Date.now())

const end = performance.now() + seconds * 1000
let count = 0
let complaint: string | undefined
for (const mutant of anyChanges(seed, Infinity)) {
  complaint = judge(mutant)
  if (complaint !== undefined) {
    process.stderr.write(`${complaint}\n${Buffer.from(mutant.file).toString('base64')}\n`)
    process.exitCode = 1
    break
  }
  count++
  if (performance.now() > end) break
}
const outcome = complaint === undefined ? '' : ', then one was not'
process.stdout.write(`${String(count)} mutants refused, seed ${seed}${outcome}\n`)
