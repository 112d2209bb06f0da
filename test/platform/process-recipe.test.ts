import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { LoaderFile } from '../../platform/loader-file.js'
import { findTools, nodeFlags, ProcessRecipe } from '../../platform/process-recipe.js'

const withDirectory = async (use: (directory: string) => Promise<void> | void): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-recipe-'))
  try {
    await use(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const linux = process.platform === 'linux' ? test : test.skip

for (const [version, permission, closesSignal] of [
  ['20.19.0', '--experimental-permission', false],
  ['22.13.1', '--permission', false],
  ['22.14.0', '--permission', true],
  ['23.6.1', '--permission', false],
  ['23.7.0', '--permission', true],
  ['24.0.0', '--permission', true],
  ['26.1.0', '--permission', true],
] as const) {
  test(`Node ${version} has the flags that it knows`, (t) => {
    const flags = nodeFlags(version)
    t.deepEqual(
      flags.filter((flag) => flag.includes('permission')),
      [permission],
    )
    t.is(flags.includes('--disable-sigusr1'), closesSignal)
    t.true(flags.includes('--no-addons'))
    t.false(flags.some((flag) => /allow|inspect/.test(flag)))
  })
}

test('what is missing where it is required is said by name', async (t) => {
  await withDirectory((directory) => {
    const tools = { ...findTools(), setpriv: undefined }
    t.false(new ProcessRecipe(directory, { tools }).measures.includes('ends-with-host'))
    t.throws(
      () => new ProcessRecipe(directory, { tools, required: ['no-core', 'ends-with-host', 'no-new-privileges'] }),
      {
        code: 'ERR_ISOLATION_UNAVAILABLE',
        message: /: ends-with-host, no-new-privileges$/,
      },
    )
    t.throws(() => new ProcessRecipe(directory, { tools: { ...tools, sh: undefined } }), {
      code: 'ERR_ISOLATION_UNAVAILABLE',
      message: /shell/,
    })
  })
})

linux('the loader’s copy can be executed and not read, and is made anew where it was changed', async (t) => {
  await withDirectory(async (directory) => {
    const loader = LoaderFile.in(directory, process.execPath)
    t.is((await stat(loader?.path() ?? '')).mode & 0o777, 0o111)
    t.is(loader?.path(), join(directory, 'loader'))
    t.is(LoaderFile.in(join(directory, 'missing'), process.execPath), undefined)
    const script = join(directory, 'script')
    await writeFile(script, '#!/bin/sh\n')
    t.is(LoaderFile.in(directory, script), undefined)
  })
})
