import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

const MODULE = fileURLToPath(new URL('../../../test/host/notebook.enclave.ts', import.meta.url))

test('image build bundles and measures; inspect says the same of the file', async (t) => {
  const { root } = await makePlace(t)
  const out = join(root, 'notebook.image')
  const built = await run(['image', 'build', MODULE, '--out', out, '--json'])
  t.deepEqual([built.code, built.err], [0, ''])
  const { measurement, name } = JSON.parse(built.out) as { measurement: string; name: string }
  t.is(
    measurement,
    createHash('sha256')
      .update(await readFile(out))
      .digest('hex'),
  )
  t.is((await run(['image', 'inspect', out, '--json'])).out, built.out)
  const lines = (await run(['image', 'inspect', out])).out
  t.true(lines.includes(measurement) && lines.includes(name))
})

test('what is no image, or no enclave module, is refused by code', async (t) => {
  const { root } = await makePlace(t)
  const file = join(root, 'file.js')
  await writeFile(file, 'export default 1')
  const failed = async (...flags: string[]) => JSON.parse((await run([...flags, '--json'])).err) as unknown
  t.like(await failed('image', 'inspect', file), { error: { code: 'ERR_IMAGE_INVALID' } })
  t.like(await failed('image', 'inspect', join(root, 'none')), { error: { code: 'ERR_IMAGE_INVALID' } })
  t.like(await failed('image', 'build', file, '--out', join(root, 'x')), { error: { code: 'ERR_IMAGE_BUILD' } })
})
