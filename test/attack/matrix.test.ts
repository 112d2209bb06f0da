import { readFile } from 'node:fs/promises'
import test from 'ava'
import { LEVELS } from './attack.js'
import { matrixDocument } from './matrix.js'
import { ATTACKS } from './registry.js'
import { Arena, runAll, type Row } from './run.js'

/** Every attack at every level, as `npm run attack` runs them; two at a time, since each has processes of its own. */

let rows: Promise<Row[]> | undefined
const allRows = (progress: (text: string) => void): Promise<Row[]> =>
  (rows ??= Arena.open().then(async (arena) => {
    await using _ = arena
    return await runAll(arena, ATTACKS, LEVELS, (row, done, total) =>
      progress(`${done}/${total} ${row.attack} ${row.level}`),
    )
  }))

test.before('all attacks are tried', async (t) => {
  t.timeout(600_000)
  // A line for each keeps the runner from thinking that nothing happens any more.
  await allRows((text) => t.log(text))
})

for (const { name } of ATTACKS) {
  test(`${name}: each level does what docs/attack-matrix.md says`, async (t) => {
    const mine = (await allRows(() => {})).filter(({ attack }) => attack === name)
    t.is(mine.length, LEVELS.length)
    for (const { level, expected, observed, ok, detail } of mine)
      t.true(ok, `${level}: expected “${expected}”, observed “${observed}”: ${detail}`)
  })
}

test('names are unique, and a bare worker never stops what ours stops', (t) => {
  t.is(new Set(ATTACKS.map(({ name }) => name)).size, ATTACKS.length)
  for (const { name, expected } of ATTACKS) t.is(expected.bare, 'leaks', name)
})

test('docs/attack-matrix.md is what the code says', async (t) => {
  t.is(await readFile(new URL('../../../docs/attack-matrix.md', import.meta.url), 'utf8'), matrixDocument(ATTACKS))
})
