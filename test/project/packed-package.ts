import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { ROOT } from './rooms.js'

/**
 * `npm run check:package`: packs the package, lints the archive (publint, attw), installs it in an empty folder as a newcomer
 * would, and there imports every documented path, type-checks and runs two examples, and runs the command.
 */

interface Manifest {
  readonly exports: Readonly<Record<string, unknown>>
  readonly devDependencies: Readonly<Record<string, string>>
}
const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as Manifest

const LARGE_SIZE_BYTES = 40 * 1024 * 1024

const folder = mkdtempSync(path.join(tmpdir(), 'keyrise-package-'))

const run = (command: string, args: readonly string[], cwd = folder): string => {
  const { status, stdout } = spawnSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed\n${stdout}`)
  return stdout
}

const expect = (what: string, output: string, pattern: RegExp): void => {
  if (!pattern.test(output)) throw new Error(`${what}: expected ${String(pattern)} in\n${output}`)
  console.log(`package: ${what}`)
}

try {
  const packed = run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], ROOT)
  const [tarball] = JSON.parse(packed) as { filename: string; files: { path: string }[] }[]
  if (tarball === undefined) throw new Error('npm pack made nothing')
  const strays = tarball.files.map((file) => file.path).filter((file) => /^dist\/(test|bench|examples)\//.test(file))
  if (strays.length > 0) throw new Error(`the package ships ${strays.join(', ')}`)

  const archive = path.join(folder, tarball.filename)
  for (const [tool, ...args] of [
    ['publint', 'run', '--strict'],
    ['attw', '--profile', 'esm-only'],
  ] as const) {
    run('npx', [tool, ...args, archive], ROOT)
    console.log(`package: ${tool}`)
  }

  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ type: 'module', private: true }))
  const beside = ['typescript', 'valibot', '@types/node'].map(
    (name) => `${name}@${manifest.devDependencies[name] ?? ''}`,
  )
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', archive, ...beside])

  const paths = Object.keys(manifest.exports).filter((name) => name !== './package.json')
  const specifiers = paths.map((name) => path.posix.join('keyrise', name))
  const load = specifiers
    .map((name) => `console.log('${name}', Object.keys(await import('${name}')).length)`)
    .join('\n')
  const counts = run(process.execPath, ['--input-type=module', '--eval', load])
  for (const name of specifiers) expect(`import '${name}'`, counts, new RegExp(`^${name} [1-9]`, 'm'))

  for (const example of ['examples/quickstart', 'examples/envelope'])
    cpSync(path.join(ROOT, example), path.join(folder, example), { recursive: true })
  // Without skipLibCheck: the declarations that we ship are checked too.
  const options = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--lib', 'es2023,esnext.disposable']
  run('npx', [
    'tsc',
    ...options,
    '--types',
    'node',
    '--rootDir',
    '.',
    '--outDir',
    'built',
    'examples/quickstart/main.ts',
    'examples/envelope/main.ts',
  ])
  const output = run(process.execPath, ['built/examples/quickstart/main.js'])
  expect('the quickstart recovers its secret', output, /recovered: still here/)

  const envelope = run(process.execPath, ['built/examples/envelope/main.js'])
  expect('an envelope is sealed, opened and resealed', envelope, /with the new key: 5 bytes/)

  expect('keyrise --help', run('npx', ['keyrise', '--help']), /Usage: keyrise/)
  // The one file and its worker: two threads open a file of this size.
  writeFileSync(path.join(folder, 'plain'), new Uint8Array(LARGE_SIZE_BYTES))
  run('npx', ['keyrise', 'envelope', 'keygen', '-o', 'key.txt'])
  const recipient = /age1\w+/.exec(readFileSync(path.join(folder, 'key.txt'), 'utf8'))?.[0] ?? ''
  run('npx', ['keyrise', 'envelope', 'seal', '-r', recipient, '-o', 'sealed.age', 'plain'])
  const opened = run('npx', ['keyrise', 'envelope', 'open', '-i', 'key.txt', '-o', 'opened', '--json', 'sealed.age'])
  expect('keyrise envelope seals and opens', opened, new RegExp(`"sizeBytes":${LARGE_SIZE_BYTES}\\b`))

  const project = path.join(folder, 'counter')
  expect('keyrise init', run('npx', ['keyrise', 'init', project]), /npm start/)
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', archive], project)
  expect('the tests of a new project pass', run('npm', ['test'], project), /pass 2\b/)
  expect('its enclave survives a kill', run('npm', ['start'], project), /^count: 1\n.*killed: 2$/m)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
