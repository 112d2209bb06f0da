import test from 'ava'
import { anyChanges, everyFlipAndCut, judge, type Mutant } from './mutants.js'

/** A part of what `npm run test:long` tries in full. */

const complaints = (mutants: Iterable<Mutant>): string[] => {
  const found: string[] = []
  for (const mutant of mutants) found.push(...[judge(mutant)].filter((each) => each !== undefined))
  return found
}

test('flipped bits and cuts of every kind of envelope are refused, whole and in pieces', (t) => {
  t.deepEqual(complaints(everyFlipAndCut(61)), [])
})

test('duplications, deletions, splices, swaps and noise are refused, whole and in pieces', (t) => {
  t.deepEqual(complaints(anyChanges('short', 1500)), [])
})
