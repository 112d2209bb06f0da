import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'

/** What follows `<!-- kind: name -->` in a document, between its fences. */
const blocks = (kind: string, document = 'README.md'): [name: string, text: string][] =>
  [
    ...readFileSync(document, 'utf8').matchAll(
      new RegExp(`<!-- ${kind}: (\\S+) -->\\n+\`\`\`\\w+\\n([^]*?)\`\`\``, 'g'),
    ),
  ].map(([, name, text]) => [name ?? '', text ?? ''])

test('the code in the README is the code of the example', (t) => {
  const shown = blocks('file')
  t.is(shown.length, 2)
  for (const [file, text] of shown) t.is(text, readFileSync(file, 'utf8'), file)
})

test('the example prints what the README says', (t) => {
  const [name, expected] = blocks('output')[0] ?? ['', '']
  const { stdout, stderr, status } = spawnSync(process.execPath, [`dist/examples/${name}/main.js`], {
    encoding: 'utf8',
  })
  t.is(stderr, '')
  t.is(stdout, expected)
  t.is(status, 0)
})

test('the guide to calls shows the code of its example, and what that prints', (t) => {
  const shown = blocks('file', 'docs/ecalls.md')
  t.is(shown.length, 2)
  for (const [file, text] of shown) t.is(text, readFileSync(file, 'utf8'), file)
  const [name, expected] = blocks('output', 'docs/ecalls.md')[0] ?? ['', '']
  const { stdout, stderr, status } = spawnSync(process.execPath, [`dist/examples/${name}/main.js`], {
    encoding: 'utf8',
  })
  t.deepEqual({ stdout, stderr, status }, { stdout: expected, stderr: '', status: 0 })
})
