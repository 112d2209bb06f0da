import path from 'node:path'
import test from 'ava'
import { ESLint } from 'eslint'
import ts from 'typescript'
import { importPath, MAY_IMPORT, ROOMS, ROOT } from './rooms.js'

/**
 * One compilation per trust domain (docs/adr/0001-composite-projects.md): for each ordered pair of rooms, a file of the one
 * that imports a file of the other compiles if and only if the table in rooms.ts allows it. The files are virtual; the
 * tsconfigs, and so the list of references, are the real ones.
 */

const PROBE = 'boundary-probe'
const FORBIDDEN_CODES = new Set([
  2307, // Cannot find module
  2591, // Cannot find name 'node:…', install type definitions for node
  6059, // File is not under rootDir
  6307, // File is not listed within the file list of the project
])

/** The disk, with a few files more. Writes go nowhere. */
const overlay = (files: ReadonlyMap<string, string>): ts.System => ({
  ...ts.sys,
  fileExists: (name) => files.has(name) || ts.sys.fileExists(name),
  readFile: (name, encoding) => files.get(name) ?? ts.sys.readFile(name, encoding),
  readDirectory: (directory, extensions, exclude, include, depth) => [
    ...ts.sys.readDirectory(directory, extensions, exclude, include, depth),
    ...[...files.keys()].filter((name) => path.dirname(name) === directory),
  ],
  getModifiedTime: (name) => (files.has(name) ? new Date() : ts.sys.getModifiedTime?.(name)),
  writeFile: () => undefined,
  deleteFile: () => undefined,
  createDirectory: () => undefined,
})

const parsed = (system: ts.System, configFile: string): ts.ParsedCommandLine => {
  const host: ts.ParseConfigFileHost = { ...system, onUnRecoverableConfigFileDiagnostic: () => undefined }
  const commandLine = ts.getParsedCommandLineOfConfigFile(configFile, undefined, host)
  if (commandLine === undefined) throw new Error(`${configFile} cannot be read`)
  return commandLine
}

const sources = new Map<string, ts.SourceFile | undefined>()

/** Diagnostic codes of `code` as a file of `room`, compiled alone or `among` the room's files. */
const compile = (
  room: string,
  code: string,
  more: ReadonlyMap<string, string> = new Map(),
  among = false,
): number[] => {
  const probe = path.join(ROOT, room, `${PROBE}.ts`)
  const files = new Map([...more, [probe, code]])
  const system = overlay(files)
  const project = parsed(system, path.join(ROOT, room, 'tsconfig.json'))
  if (!project.fileNames.includes(probe)) throw new Error(`${room}/tsconfig.json does not include its own files`)
  const host = ts.createCompilerHost(project.options)
  const readSource = host.getSourceFile.bind(host)
  Object.assign(host, {
    fileExists: (name: string) => system.fileExists(name),
    readFile: (name: string) => system.readFile(name),
    getParsedCommandLine: (name: string) => parsed(system, name),
    getSourceFile: (name: string, options: ts.ScriptTarget | ts.CreateSourceFileOptions) => {
      const text = files.get(name)
      if (text !== undefined) return ts.createSourceFile(name, text, options)
      if (!sources.has(name)) sources.set(name, readSource(name, options))
      return sources.get(name)
    },
  } satisfies Partial<ts.CompilerHost>)
  const program = ts.createProgram({
    rootNames: among ? project.fileNames : [probe],
    options: project.options,
    projectReferences: project.projectReferences ?? [],
    host,
  })
  const source = program.getSourceFile(probe)
  return [...program.getOptionsDiagnostics(), ...program.getSemanticDiagnostics(source)].map(({ code }) => code)
}

/** Room `to` with one file, and with what its compilation would make of it. */
const target = (to: string): ReadonlyMap<string, string> =>
  new Map([
    [path.join(ROOT, to, 'boundary-target.ts'), 'export const target = 1\n'],
    [path.join(ROOT, 'dist', to, 'boundary-target.d.ts'), 'export declare const target = 1;\n'],
  ])

const importTarget = (from: string, to: string): string =>
  `export { target } from '${importPath(from, to, 'boundary-target.js')}'\n`

for (const from of ROOMS.filter((room) => room !== 'examples')) {
  for (const to of ROOMS.filter((room) => room !== from)) {
    const allowed = MAY_IMPORT[from]?.includes(to) ?? false
    test(`${from}/ ${allowed ? 'may' : 'may not'} import ${to}/`, (t) => {
      const codes = compile(from, importTarget(from, to), target(to))
      if (allowed) t.deepEqual(codes, [])
      else
        t.true(codes.length > 0 && codes.every((code) => FORBIDDEN_CODES.has(code)), `diagnostics: ${codes.join(', ')}`)
    })
  }
}

test('each room is compiled by `npm run build`', (t) => {
  const { projectReferences } = parsed(ts.sys, path.join(ROOT, 'tsconfig.json'))
  const built = projectReferences?.map((reference) => path.relative(ROOT, reference.path)) ?? []
  for (const room of [...ROOMS, 'test']) t.true(built.includes(room), room)
  // A browser runs what is in kms/console: it has the DOM, and references no room.
  for (const folder of built) t.true(ROOMS.includes(folder) || ['kms/console', 'test'].includes(folder), folder)
})

test('protocol/ has no input or output: no Node types reach it, not even through a dependency', (t) => {
  const codes = compile(
    'protocol',
    `import { readFileSync } from 'node:fs'\nexport default readFileSync\n`,
    undefined,
    true,
  )
  t.true(
    codes.some((code) => FORBIDDEN_CODES.has(code)),
    `diagnostics: ${codes.join(', ')}`,
  )
  t.not(compile('protocol', 'export default process.env\n', undefined, true).length, 0)
})

for (const [from, to] of [
  ['host', 'protocol/crypto'],
  ['enclave', 'host'],
] as const) {
  test(`tsc -b fails when ${from}/ imports ${to}/`, (t) => {
    const probe = path.join(ROOT, from, `${PROBE}.ts`)
    const system = overlay(new Map([...target(to), [probe, importTarget(from, to)]]))
    const diagnostics: ts.Diagnostic[] = []
    const host = ts.createSolutionBuilderHost(system, undefined, (diagnostic) => diagnostics.push(diagnostic))
    const builder = ts.createSolutionBuilder(host, [path.join(ROOT, from)], {})
    t.not(builder.build(), ts.ExitStatus.Success)
    t.true(diagnostics.some(({ code, file }) => FORBIDDEN_CODES.has(code) && file?.fileName === probe))
  })
}

// What references cannot refuse, lint does. Only these two rules run, so that no type information is needed.
const eslint = new ESLint({
  cwd: ROOT,
  overrideConfig: { languageOptions: { parserOptions: { projectService: false } } },
  ruleFilter: ({ ruleId }) => ruleId.startsWith('no-restricted-'),
})

const lint = async (file: string, code: string): Promise<number> => {
  const [result] = await eslint.lintText(code, { filePath: path.join(ROOT, file) })
  if (result === undefined || result.fatalErrorCount > 0) throw new Error(`${file} was not linted`)
  return result.errorCount
}

const forms = (specifier: string): string[] => [
  `import '${specifier}'\n`,
  `export * from '${specifier}'\n`,
  `export const loaded = import('${specifier}')\n`,
]

for (const room of ROOMS.filter((name) => name !== 'examples')) {
  test(`lint: ${room}/ may not import the package by its own name, nor build output`, async (t) => {
    const back = path.posix.relative(room, '.')
    for (const specifier of ['keyrise', 'keyrise/kms', `${back}/dist/kms/index.js`])
      for (const code of forms(specifier)) t.is(await lint(`${room}/probe.ts`, code), 1, code)
    t.is(await lint(`${room}/probe.ts`, `import './other.js'\n`), 0)
  })
}

test('lint: protocol/ may not import Node, with the prefix or without', async (t) => {
  for (const code of [...forms('node:fs'), ...forms('fs/promises')])
    t.is(await lint('protocol/probe.ts', code), 1, code)
  t.is(await lint('protocol/crypto/probe.ts', `import 'node:crypto'\n`), 0)
})

test('lint: examples/ may import the public API only', async (t) => {
  for (const room of ROOMS.filter((name) => name !== 'examples'))
    for (const code of forms(importPath('examples/federated-learning', room, 'index.js')))
      t.is(await lint('examples/federated-learning/probe.ts', code), 1, code)
  for (const specifier of [
    'keyrise',
    'keyrise/enclave',
    'keyrise/envelope',
    'keyrise/kms',
    'keyrise/faults',
    '../split.js',
  ])
    t.is(await lint('examples/federated-learning/probe.ts', `import '${specifier}'\n`), 0, specifier)
})
