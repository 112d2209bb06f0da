import { cpSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

test('the commands in docs/images.md do what the page says', async (t) => {
  const page = readFileSync(join(ROOT, 'docs/images.md'), 'utf8')
  const [, block = ''] = /<!-- commands -->\s*```sh\n([^]*?)```/.exec(page) ?? []
  const commands = block.trim().split('\n')
  t.is(commands.length, 6)
  const { root } = await makePlace(t)
  symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  cpSync(join(ROOT, 'examples/quickstart/vault.enclave.ts'), join(root, 'vault.enclave.ts'))
  const outputs: string[] = []
  for (const command of commands) {
    // Files in the commands lie in this test's own directory.
    const words = command.replace(/^npx keyrise /, '').split(' ')
    const { code, out, err } = await run(words.map((word) => (/^[\w-]+\.\S+$/.test(word) ? join(root, word) : word)))
    t.is(code, 0, `${command}: ${err}`)
    outputs.push(out)
  }
  t.regex(outputs[1] ?? '', /signature +none/)
  t.like(JSON.parse(outputs[4] ?? ''), { name: 'vault', signature: 'valid', productId: 1, debug: false })
  t.regex(outputs[5] ?? '', /debug +YES/)
})
