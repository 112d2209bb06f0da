import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import test from 'ava'
import { bundle, runtimeFile } from '../../platform/bundle.js'
import { buildImage, composeImage, imageModule, parseImage, readImage, writeImage } from '../../platform/image.js'
import { COMMAND } from '../cli/command.js'

const EMPTY = `import { defineEnclave } from 'keyrise/enclave'
export default defineEnclave({ name: 'empty', svn: 7, ecalls: {} })
`
const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

/** A project of its own: the module, and the packages it may import. */
const withModule = async <T>(source: string, use: (path: string, directory: string) => Promise<T>): Promise<T> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-image-'))
  try {
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    const path = join(directory, 'party.enclave.ts')
    await writeFile(path, source)
    return await use(path, directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

test('the measurement is the SHA-256 of the string, and the first line says what it is', async (t) => {
  await withModule(EMPTY, async (path) => {
    const image = await buildImage(path)
    t.deepEqual(image.manifest, {
      format: 'keyrise-image/2',
      name: 'empty',
      svn: 7,
      debug: false,
      ecalls: [],
      ocalls: [],
      refusals: [],
    })
    t.deepEqual(Buffer.from(image.measurement), createHash('sha256').update(image.source).digest())
    t.true(image.source.startsWith('//keyrise {"format":"keyrise-image/2","name":"empty","svn":7,'))
  })
})

test('the same source gives the same measurement wherever it lies, and no path is in it', async (t) => {
  const build = () => withModule(EMPTY, async (path) => buildImage(path))
  const [one, two] = [
    await build(),
    await withModule('', async (_, directory) => {
      await mkdir(join(directory, 'deeper/still'), { recursive: true })
      await writeFile(join(directory, 'deeper/still/other-name.mjs'), EMPTY)
      return buildImage(join(directory, 'deeper/still/other-name.mjs'))
    }),
  ]
  t.deepEqual(one.measurement, two.measurement)
  for (const path of [tmpdir() + '/', ROOT, 'node_modules', 'dist/', 'party.enclave'])
    t.false(one.source.includes(path), path)
})

test('another line, name or SVN is another measurement', async (t) => {
  const sources = [
    EMPTY,
    EMPTY.replace('svn: 7', 'svn: 8'),
    EMPTY.replace("'empty'", "'other'"),
    `${EMPTY}globalThis.x = 1\n`,
  ]
  const digests = new Set<string>()
  for (const source of sources)
    digests.add(
      await withModule(source, async (path) => Buffer.from((await buildImage(path)).measurement).toString('hex')),
    )
  t.is(digests.size, sources.length)
})

test('top-level await has a code of its own', async (t) => {
  await withModule(`await null\n${EMPTY}`, async (path) => {
    const error = await t.throwsAsync(buildImage(path), { code: 'ERR_IMAGE_TOP_LEVEL_AWAIT' })
    t.regex(error.message, /party\.enclave\.ts:1/)
  })
})

for (const [what, source] of Object.entries({
  'does not parse': 'export default {',
  'imports what is not there': `import 'no-such-package'\n${EMPTY}`,
  'has no default export': 'export const x = 1\n',
  'exports something else': 'export default 7\n',
  'throws when it is loaded': `${EMPTY}throw new Error('x')\n`,
  'imports native code': `import './addon.node'\n${EMPTY}`,
})) {
  test(`a module that ${what} is no image`, async (t) => {
    await withModule(source, async (path) => {
      await t.throwsAsync(buildImage(path), { code: 'ERR_IMAGE_BUILD' })
    })
  })
}

test('a definition with a name that is not one, or an OCALL that is not listed, is refused', async (t) => {
  const uses = `import { defineEnclave, ecall, ocall } from 'keyrise/enclave'
const any = { '~standard': { version: 1, vendor: 'x', validate: (value) => ({ value }) } }
const ask = ocall({ input: any, output: any })
export default defineEnclave({ name: 'x', svn: 1, debug: false, ecalls: { go: ecall({ input: any, output: any, ocalls: { ask } }, () => 1) } })`
  for (const source of [EMPTY.replace("'empty'", "'keyrise:x'"), EMPTY.replace('svn: 7', 'svn: -1'), uses]) {
    await withModule(source, async (path) => {
      await t.throwsAsync(buildImage(path), { code: 'ERR_IMAGE_BUILD' })
    })
  }
})

test('an image that was written and read is the same', async (t) => {
  await withModule(EMPTY, async (path, directory) => {
    const image = await buildImage(path)
    await t.throwsAsync(writeImage(join(directory, 'none', 'x'), image), {
      code: 'ERR_STORE_UNWRITABLE',
      message: /none/,
    })
    await writeImage(join(directory, 'x.image.js'), image)
    t.deepEqual(await readImage(join(directory, 'x.image.js')), image)
  })
})

test('what is not an image is refused', async (t) => {
  const image = composeImage(
    { format: 'keyrise-image/2', name: 'x', svn: 1, debug: false, ecalls: [], ocalls: [], refusals: [] },
    "'use strict'",
  )
  const [line = '', ...rest] = image.source.split('\n')
  for (const source of [
    '',
    'x',
    line,
    image.source.slice(1),
    line.replace('{', '{ ') + '\n',
    line.replace('"svn":1', '"svn":1,"more":true') + '\n',
    line.replace('"x"', '"x\u2028y"') + '\n',
    `${line}\r\n${rest.join('\n')}`,
  ]) {
    t.throws(() => parseImage(source), { code: 'ERR_IMAGE_INVALID' }, JSON.stringify(source))
  }
  await withModule('', async (_, directory) => {
    const path = join(directory, 'x.image.js')
    await t.throwsAsync(readImage(path), { code: 'ERR_IMAGE_INVALID' })
    await writeFile(path, Buffer.concat([Buffer.from(image.source), Buffer.from([0xff])]))
    await t.throwsAsync(readImage(path), { code: 'ERR_IMAGE_INVALID' })
    await writeFile(path, Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(image.source)]))
    await t.throwsAsync(readImage(path), { code: 'ERR_IMAGE_INVALID' })
  })
})

test('two strings that UTF-8 would write alike cannot share a measurement', (t) => {
  const { source } = composeImage(
    { format: 'keyrise-image/2', name: 'x', svn: 1, debug: false, ecalls: [], ocalls: [], refusals: [] },
    "'\ufffd'",
  )
  t.deepEqual(parseImage(source).source, source)
  t.throws(() => parseImage(source.replace('\ufffd', '\ud800')), { code: 'ERR_IMAGE_INVALID' })
})

/** What an enclave trusts beside its author: these packages and rooms, whole, and nothing else. */
const TRUSTED_PACKAGES = [
  ...['@noble/ciphers', '@noble/curves', '@noble/hashes', '@noble/post-quantum', '@scure/base'],
  ...['cborg', 'comlink', 'hpke'],
]
const TRUSTED_ROOMS = ['dist/enclave/', 'dist/protocol/']

test('the trusted base of an empty enclave is the runtime, the protocol and eight packages', async (t) => {
  await withModule(EMPTY, async (path, directory) => {
    const { inputs } = await bundle(imageModule(path), directory)
    const real = inputs
      .filter((input) => input !== 'keyrise-image.js' && input !== 'party.enclave.ts')
      .map((input) => relative(ROOT, resolve(directory, input)))
    const foreign = real.filter(
      (file) =>
        !TRUSTED_ROOMS.some((room) => file.startsWith(room)) &&
        !TRUSTED_PACKAGES.some((name) => file.startsWith(`node_modules/${name}/`)),
    )
    t.deepEqual(foreign, [])
    t.true(real.includes(relative(ROOT, runtimeFile('boot'))))
  })
})

test('the realm is hardened before the author’s first line runs', async (t) => {
  const source = `import { isHardened } from './first.js'\n${EMPTY}if (!isHardened) throw new Error('too early')\n`
  await withModule(source, async (path, directory) => {
    await writeFile(
      join(directory, 'first.js'),
      "export const isHardened = !Object.isExtensible(Object.prototype) && process.binding === undefined && typeof globalThis.require === 'undefined'\n",
    )
    await t.notThrowsAsync(buildImage(path))
  })
})

test('an image in an older format is refused by its name', (t) => {
  const line = JSON.stringify({ format: 'keyrise-image/1', name: 'x', svn: 1, ecalls: [], ocalls: [], refusals: [] })
  t.throws(() => parseImage(`//keyrise ${line}\n'use strict'`), {
    code: 'ERR_IMAGE_INVALID',
    message: /keyrise-image\/1; this version reads keyrise-image\/2/,
  })
})

test('a module that cannot be loaded is described by its own line', async (t) => {
  const source = `${EMPTY}\nconsole.log('before')\nconst fail = () => { throw new TypeError('broken') }\nfail()\n`
  await withModule(source, async (path) => {
    const error = await t.throwsAsync(buildImage(path), { code: 'ERR_IMAGE_BUILD' })
    t.regex(
      error.message,
      /before\nTypeError: broken\n +at fail \(party\.enclave\.ts:5:28\)\n +at party\.enclave\.ts:6:1/,
    )
  })
})

test('a built image cannot be changed', async (t) => {
  await withModule(EMPTY, async (path) => {
    const image = await buildImage(path)
    for (const part of [image, image.manifest, image.manifest.ecalls]) t.true(Object.isFrozen(part))
  })
})

/** A project in a directory, with a library of its own in two files and one of npm’s, as an author lays it out. */
const layProject = async (directory: string): Promise<string> => {
  await mkdir(join(directory, 'source/lib'), { recursive: true })
  await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
  await writeFile(
    join(directory, 'source/lib/first.ts'),
    "import { second } from './second.js'\nexport const first = () => second()\n",
  )
  await writeFile(
    join(directory, 'source/lib/second.ts'),
    'export enum Colour { red = 1 }\nexport const second = () => Colour.red\n',
  )
  await writeFile(
    join(directory, 'source/party.enclave.ts'),
    `import { defineEnclave, ecall } from 'keyrise/enclave'
import * as v from 'valibot'
import { first } from './lib/first.js'
export default defineEnclave({
  name: 'party',
  svn: 1,
  ecalls: { go: ecall({ input: v.undefined(), output: v.number() }, () => first()) },
})
`,
  )
  return join(directory, 'source/party.enclave.ts')
}

const measured = ({ measurement }: { measurement: Uint8Array }): string => Buffer.from(measurement).toString('hex')

for (const debug of [false, true]) {
  test(`a project has one measurement, from any directory, through a link, in any environment${debug ? ', for debugging too' : ''}`, async (t) => {
    const places = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'keyrise-place-')))
    t.teardown(() => {
      for (const place of places) rmSync(place, { recursive: true })
    })
    const [here = '', there = ''] = await Promise.all(places.map(layProject))
    const link = join(places[1] ?? '', 'link.ts')
    await symlink(there, link)
    await mkdir(join(places[0] ?? '', 'planted/valibot'), { recursive: true })
    await writeFile(join(places[0] ?? '', 'planted/valibot/index.js'), 'throw new Error("planted")')
    await writeFile(join(places[0] ?? '', 'planted/only-there.js'), '')
    const expected = measured(await buildImage(here, { debug }))
    t.is(measured(await buildImage(there, { debug })), expected, 'another directory')
    t.is(measured(await buildImage(link, { debug })), expected, 'a link')
    t.is(measured(await buildImage(pathToFileURL(there), { debug })), expected, 'a URL')
    const flags = ['image', 'build', '--json', ...(debug ? ['--debug'] : [])]
    const built = (cwd: string, module: string, env: NodeJS.ProcessEnv): string => {
      const args = [COMMAND, ...flags, module, '--out', join(cwd, 'x.image')]
      const out = execFileSync(process.execPath, args, { cwd, env: { ...process.env, ...env }, encoding: 'utf8' })
      return (JSON.parse(out) as { measurement: string }).measurement
    }
    t.is(built(tmpdir(), relative(tmpdir(), there), {}), expected, 'another working directory')
    const planted = {
      NODE_PATH: join(places[0] ?? '', 'planted'),
      NODE_ENV: 'production',
      TZ: 'Asia/Tokyo',
      LANG: 'tr_TR',
    }
    t.is(built(places[1] ?? '', there, planted), expected, 'another environment')
    await writeFile(there, "import 'only-there'\n")
    t.throws(
      () => built(places[1] ?? '', there, planted),
      { message: /ERR_IMAGE_BUILD/ },
      'a module that only NODE_PATH finds',
    )
  })
}

test('a project’s compiler settings and a planted package do not change what is measured', async (t) => {
  const source = `${EMPTY}class Field { value = 1 }\nglobalThis.kept = Field\n`
  const plain = await withModule(source, async (path) => buildImage(path))
  const planted = await withModule(source, async (path, directory) => {
    const paths = { 'keyrise/enclave': ['./evil.js'], comlink: ['./evil.js'] }
    const settings = { compilerOptions: { baseUrl: '.', paths, useDefineForClassFields: false, target: 'ES2020' } }
    await writeFile(join(directory, 'tsconfig.json'), JSON.stringify(settings))
    await writeFile(
      join(directory, 'evil.js'),
      'export const expose = () => {}\nexport const defineEnclave = (x) => ({ ...x, svn: 99 })',
    )
    await writeFile(join(directory, 'package.json'), '{"name": "keyrise", "exports": {"./enclave": "./evil.js"}}')
    return buildImage(path)
  })
  t.deepEqual(plain.measurement, planted.measurement)
})
