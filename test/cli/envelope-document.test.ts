import { spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { Place } from './envelopes.js'

const ROOT = new URL('../../../', import.meta.url)
const COMMAND = fileURLToPath(new URL('../../bin/keyrise.js', import.meta.url))

test('the commands of docs/envelope-files.md do what it says, one after the other', async (t) => {
  const place = await Place.make(t)
  const document = await readFile(new URL('docs/envelope-files.md', ROOT), 'utf8')
  const blocks = Array.from(document.matchAll(/```sh\n(.*?)```/gs), ([, block = '']) => block)
  t.true(blocks.length > 5)
  const plain = await place.random('model.bin', 200_000)
  await place.write('passphrase.txt', 'correct horse battery staple\n')
  const script = ['set -e', `keyrise() { '${process.execPath}' '${COMMAND}' "$@"; }`, ...blocks].join('\n')
  await writeFile(join(place.directory, 'script.sh'), script)
  const { status, stdout, stderr } = spawnSync('bash', ['-o', 'pipefail', 'script.sh'], {
    cwd: place.directory,
    encoding: 'utf8',
  })
  t.is(status, 0, stderr)
  t.is(stderr, '')
  t.regex(stdout, /^model\.bin$/m)
  for (const copy of ['copy.bin', 'secret.bin']) t.true((await place.read(copy)).equals(await readFile(plain)))
})
