import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { KeyriseError } from '../protocol/errors.js'
import { systemCode } from '../storage/failures.js'
import { printResult, table } from './terminal.js'

/** An example that is compiled and run by this package’s own tests; the package ships it as it is. */
const TEMPLATE = new URL('../../examples/starter/', import.meta.url)
const PACKAGE = new URL('../../package.json', import.meta.url)

/** Template → project. Some names would mean something where the template lies. */
const FILES: ReadonlyMap<string, string> = new Map([
  ['_package.json', 'package.json'],
  ['_tsconfig.json', 'tsconfig.json'],
  ['_gitignore', '.gitignore'],
  ['README.md', 'README.md'],
  ['src/counter.enclave.ts', 'src/counter.enclave.ts'],
  ['src/counter.test.ts', 'src/counter.test.ts'],
  ['src/counter.scenario.ts', 'src/counter.scenario.ts'],
  ['src/main.ts', 'src/main.ts'],
])

const COMMANDS = ['npm install && npm test', 'npm start'] as const

/** `keyrise init [DIR]` */
export const addInitCommand = (init: Command): void => {
  init
    .argument('[directory]', 'where to; made where it is missing', '.')
    .option('--json', 'print one JSON object')
    .action(async (directory: string, { json }: { json?: boolean }) => {
      const files = await writeProject(resolve(directory))
      const enter = relative('.', directory)
      const [first, ...others] = enter === '' ? COMMANDS : [`cd ${enter}`, ...COMMANDS]
      printResult(
        json === true,
        { directory: resolve(directory), files, commands: COMMANDS },
        table([
          ...files.map((file) => ['wrote', join(directory, file)] as const),
          ['next', first],
          ...others.map((command) => ['', command] as const),
        ]),
      )
    })
}

/**
 * Writes an enclave module, a host and a test to start from. Nothing is replaced: where one of the files is there, none is written.
 * @returns their paths, relative to `directory`.
 * @throws {KeyriseError} ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE.
 */
const writeProject = async (directory: string): Promise<string[]> => {
  const files = [...FILES.values()]
  const present = files.filter((file) => existsSync(join(directory, file)))
  if (present.length > 0) throw new KeyriseError('ERR_FILE_EXISTS', { detail: present.join(', ') })
  for (const [template, file] of FILES) {
    const text = await readFile(new URL(template, TEMPLATE), 'utf8')
    await writeNew(join(directory, file), file === 'package.json' ? await named(text, directory) : text)
  }
  return files
}

const writeNew = async (path: string, text: string): Promise<void> => {
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text, { flag: 'wx' })
  } catch (error) {
    const code = systemCode(error) ?? 'unknown'
    throw new KeyriseError(code === 'EEXIST' ? 'ERR_FILE_EXISTS' : 'ERR_FILE_UNWRITABLE', {
      detail: `${path} (${code})`,
      cause: error,
    })
  }
}

/** The project has the name of its directory, and needs this version or a later one. */
const named = async (text: string, directory: string): Promise<string> => {
  const { version } = JSON.parse(await readFile(fileURLToPath(PACKAGE), 'utf8')) as { version: string }
  const project = JSON.parse(text) as { name: string; dependencies: Record<string, string> }
  const name = basename(directory)
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
  if (name !== '') project.name = name
  project.dependencies['keyrise'] = `^${version}`
  return `${JSON.stringify(project, undefined, 2)}\n`
}
