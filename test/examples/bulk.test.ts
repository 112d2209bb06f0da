import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'

test('the example of a bulk read prints what its page says: one damaged payload fails alone', (t) => {
  const [, expected] = /<!-- output: bulk -->\s*```text\n([^]*?)```/.exec(readFileSync('docs/bulk.md', 'utf8')) ?? []
  const { stdout, stderr } = spawnSync(process.execPath, ['dist/examples/bulk/main.js'], { encoding: 'utf8' })
  t.is(stderr, '')
  t.is(stdout, expected ?? '')
})
