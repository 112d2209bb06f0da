import { readFile } from 'node:fs/promises'
import test from 'ava'
import { matrixDocument } from './matrix.js'
import { ATTACKS } from './registry.js'

/** `.ci/run` tries the attacks themselves, by `npm run attack`. */

test('names are unique, and a bare worker never stops what ours stops', (t) => {
  t.is(new Set(ATTACKS.map(({ name }) => name)).size, ATTACKS.length)
  for (const { name, expected } of ATTACKS) t.is(expected.bare, 'leaks', name)
})

test('docs/attack-matrix.md is what the code says', async (t) => {
  t.is(await readFile(new URL('../../../docs/attack-matrix.md', import.meta.url), 'utf8'), matrixDocument(ATTACKS))
})
