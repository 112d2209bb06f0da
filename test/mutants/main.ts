import { writeFile } from 'node:fs/promises'
import { parseArgs, styleText } from 'node:util'
import type { PlantedFault } from './fault.js'
import { FAULTS } from './registry.js'
import { findDrift, Workshop } from './workshop.js'

const HELP = `npm run mutants [-- options]

Plants one fault after the other in a copy of the built product, and runs the tests that must fail for it: so that a check
which is removed is missed. Tests that hang have noticed too; they are ended, with all that they started. The copy lies in
a temporary directory; nothing here is changed.

  --json FILE  also write planted, caught, missed
  --only TEXT  only the faults with this in their names, or in the names of their sources
  --help

Exit code 1 when a fault was missed, 2 when one cannot be planted or its tests fail without it.
`

/** As many copies at work as the smallest machine has processors. */
const LANE_COUNT = 2

const { values } = parseArgs({
  options: { json: { type: 'string' }, only: { type: 'string' }, help: { type: 'boolean' } },
})
if (values.help === true) {
  console.log(HELP)
  process.exit(0)
}

// The tests that run have groups of processes of their own, which end as this one exits.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

const isColoured = process.stderr.isTTY && (process.env['NO_COLOR'] ?? '') === ''
const paint = (colour: 'red' | 'dim', text: string): string => (isColoured ? styleText(colour, text) : text)

/** Does `work` with each of `items`, in lanes. */
const inLanes = async <T>(
  lanes: readonly Workshop[],
  items: readonly T[],
  work: (lane: Workshop, item: T) => Promise<void>,
) => {
  const queue = items.values()
  await Promise.all(
    lanes.map(async (lane) => {
      for (const item of queue) await work(lane, item)
    }),
  )
}

const faults = FAULTS.filter(({ name, file }) => `${name} ${file}`.includes(values.only ?? ''))
const drifted = await findDrift(faults)
if (drifted.length > 0) {
  console.error(paint('red', drifted.join('\n')))
  process.exit(2)
}
const lanes = await Promise.all(Array.from({ length: LANE_COUNT }, () => Workshop.open()))
const broken: string[] = []
const caught: { readonly name: string; readonly by: string }[] = []
const missed: string[] = []

const tellBroken = (text: string, detail: string): void => {
  broken.push(text)
  console.error(paint('red', `${text}\n${detail}`))
}

try {
  const runs = new Map<string, PlantedFault>(
    faults.map((fault) => [`${fault.test} ${fault.title ?? ''}`.trim(), fault]),
  )
  console.error(`${faults.length} faults, ${runs.size} files of tests, first without any fault`)
  await inLanes(lanes, [...runs], async (lane, [name, fault]) => {
    const { status, detail } = await lane.runSound(fault)
    if (status !== 'passed') tellBroken(`${name} fails without a fault`, detail)
  })
  let done = 0
  await inLanes(lanes, broken.length === 0 ? faults : [], async (lane, fault) => {
    const { status, detail } = await lane.runPlanted(fault)
    const count = `[${++done}/${faults.length}]`
    if (status === 'failed' || status === 'hung') {
      const by = `${fault.test}: ${status === 'hung' ? `hangs, ${detail}` : detail}`
      caught.push({ name: fault.name, by })
      console.error(paint('dim', `${count} caught: ${fault.name}, by ${by}`))
    } else if (status === 'passed') {
      missed.push(fault.name)
      console.error(paint('red', `${count} missed: ${fault.name} (${fault.file}; ${fault.test})`))
    } else tellBroken(`${count} "${fault.name}": its tests did not run`, detail)
  })
} finally {
  await Promise.all(lanes.map((lane) => lane[Symbol.asyncDispose]()))
}

if (values.json !== undefined) {
  const report = {
    planted: faults.length,
    caught: caught.length,
    missed,
    broken,
    by: Object.fromEntries(caught.map(({ name, by }) => [name, by])),
  }
  await writeFile(values.json, `${JSON.stringify(report, null, 2)}\n`)
}
console.log(`${faults.length} planted, ${caught.length} caught, ${missed.length} missed`)
for (const name of missed) console.log(`missed: ${name}`)
process.exitCode = broken.length > 0 ? 2 : missed.length > 0 ? 1 : 0
