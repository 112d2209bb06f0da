import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { makePlace } from '../kms/served.js'
import { run } from './command.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

interface Manifest {
  readonly name: string
  readonly version: string
  readonly scripts: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}
const manifestIn = (directory: string): Manifest =>
  JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest

/** Relative paths of the files in a directory. */
const filesIn = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((file) => statSync(join(directory, file)).isFile())
    .sort()

test('a new project has all of the template, its own name and this version', async (t) => {
  const { root } = await makePlace(t)
  const project = join(root, 'My Project')
  const { code, out } = await run(['init', project, '--json'])
  t.is(code, 0)
  const { directory, files, commands } = JSON.parse(out) as { directory: string; files: string[]; commands: string[] }
  t.is(directory, project)
  t.deepEqual([...files].sort(), filesIn(project))
  t.is(files.length, filesIn(join(ROOT, 'examples/starter')).length)
  t.deepEqual(commands, ['npm install && npm test', 'npm start'])
  const { name, dependencies, devDependencies } = manifestIn(project)
  const own = manifestIn(ROOT)
  t.is(name, 'my-project')
  t.is(dependencies['keyrise'], `^${own.version}`)
  for (const [dependency, range] of Object.entries({ ...dependencies, ...devDependencies }))
    if (dependency !== 'keyrise') t.is(own.devDependencies[dependency], range, dependency)
})

test('its tests pass, and its enclave survives a kill and a second start', async (t) => {
  const { root } = await makePlace(t)
  t.timeout(300_000)
  const project = join(root, 'project')
  t.is((await run(['init', project])).code, 0)
  // As npm install would lay them out.
  const modules = join(project, 'node_modules')
  mkdirSync(join(modules, '@types'), { recursive: true })
  symlinkSync(ROOT, join(modules, 'keyrise'))
  for (const name of ['valibot', 'typescript', '@types/node', 'undici-types', '.bin'])
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name))
  const { scripts } = manifestIn(project)
  const npmRun = (script: string): Promise<string> => runScript(project, scripts[script] ?? 'false')
  await npmRun('build')
  t.regex(await npmRun('test'), /pass 2\b/)
  t.is(await npmRun('start'), 'count: 1\ncount after the enclave was killed: 2\n')
  t.is(await npmRun('start'), 'count: 3\ncount after the enclave was killed: 4\n')
})

/** As npm does, without npm’s own second of start-up. */
const runScript = (project: string, script: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const PATH = `${join(project, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`
    // Not those of ava: a test runner within a test runner reports to it.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env
    execFile('sh', ['-c', script], { cwd: project, env: { ...env, PATH } }, (error, stdout) =>
      error === null ? resolve(stdout) : reject(new Error(`${script}\n${stdout}`, { cause: error })),
    )
  })

test('nothing is overwritten: where one file is there, none is written', async (t) => {
  const { root } = await makePlace(t)
  const project = join(root, 'project')
  mkdirSync(join(project, 'src'), { recursive: true })
  writeFileSync(join(project, 'src/main.ts'), 'mine')
  const { code, err } = await run(['init', project, '--json'])
  t.is(code, 1)
  t.like(JSON.parse(err), { error: { code: 'ERR_FILE_EXISTS' } })
  t.true(err.includes('src/main.ts'))
  t.deepEqual(filesIn(project), ['src/main.ts'])
  t.is(readFileSync(join(project, 'src/main.ts'), 'utf8'), 'mine')
})

test('a place that cannot be written is said by code', async (t) => {
  const { root } = await makePlace(t)
  writeFileSync(join(root, 'file'), '')
  const { code, err } = await run(['init', join(root, 'file/below'), '--json'])
  t.is(code, 1)
  t.like(JSON.parse(err), { error: { code: 'ERR_FILE_UNWRITABLE' } })
  t.false(existsSync(join(root, 'file/below')))
})
