import { access } from 'node:fs/promises'
import test from 'ava'
import { plant } from './fault.js'
import { FAULTS } from './registry.js'
import { findDrift, Workshop } from './workshop.js'

/** `.ci/run` plants the faults, by `npm run mutants`. */

test('every planted fault has its place, its tests and a name of its own, and there are at least 40', async (t) => {
  t.true(FAULTS.length >= 40)
  t.is(new Set(FAULTS.map(({ name }) => name)).size, FAULTS.length)
  t.deepEqual(await findDrift(FAULTS), [])
  for (const fault of FAULTS)
    await t.notThrowsAsync(access(new URL(`../${fault.test}.js`, import.meta.url)), fault.name)
})

test('a fault whose place has gone, or is there twice, is an error that names it', (t) => {
  const fault = { name: 'no check', file: 'a.ts', find: 'check( it )', put: '', test: 'a.test' }
  t.is(plant(fault, 'before\ncheck(\n  it )\nafter'), 'before\n\nafter')
  t.throws(() => plant(fault, 'chuck( it )'), { message: /"no check".*0 times/ })
  t.throws(() => plant(fault, 'check( it ) check( it )'), { message: /"no check".*2 times/ })
})

test('tests that are not over in time hang, which is said, and are ended', async (t) => {
  await using workshop = await Workshop.open(1)
  const fault = { name: 'none', file: 'a.ts', find: 'a', put: 'b', test: 'faults/trace.test' }
  t.deepEqual(await workshop.runSound(fault), { status: 'hung', detail: 'not over after 0.001 s' })
})
