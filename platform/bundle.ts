import { builtinModules } from 'node:module'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type BuildFailure, type Message } from 'esbuild'
import { KeyriseError } from '../protocol/errors.js'

/** The runtime's own modules, found by their place beside this one: what they do is the enclave's affair. */
export const runtimeFile = (name: string): string => fileURLToPath(new URL(`../enclave/${name}.js`, import.meta.url))

export interface BundleOptions {
  /** Names stay as they are, and the script has its own source map. */
  readonly debug: boolean
}

export interface Bundle {
  /** One strict script without imports, but for Node's own modules. */
  readonly source: string
  /** Every file that is part of it, relative to `directory`, sorted. */
  readonly inputs: readonly string[]
}

/**
 * Bundles `contents`, a module in `directory`, into one script. The same files give the same bytes wherever they lie: names
 * are shortened and no path is kept; for debugging, paths from that directory on.
 * @throws {KeyriseError} ERR_IMAGE_BUILD, ERR_IMAGE_TOP_LEVEL_AWAIT.
 */
export const bundle = async (
  contents: string,
  directory: string,
  { debug }: BundleOptions = { debug: false },
): Promise<Bundle> => {
  try {
    const { outputFiles, metafile } = await build({
      stdin: { contents, resolveDir: directory, sourcefile: 'keyrise-image.js', loader: 'js' },
      absWorkingDir: directory,
      outfile: join(directory, 'keyrise-bundle.js'),
      bundle: true,
      write: false,
      metafile: true,
      format: 'iife',
      platform: 'node',
      mainFields: ['module', 'main'],
      target: 'node20',
      minifyWhitespace: true,
      minifyIdentifiers: !debug,
      minifySyntax: !debug,
      legalComments: 'none',
      charset: 'utf8',
      sourcemap: debug ? 'external' : false,
      sourcesContent: false,
      treeShaking: true,
      logLevel: 'silent',
      alias: { 'keyrise/enclave': runtimeFile('index') },
      external: builtinModules.flatMap((name) => [name, `node:${name}`]),
      // A project's own compiler settings for tests or pages must not change what is measured.
      tsconfigRaw: {},
    })
    const text = (end: string): string => outputFiles.find(({ path }) => path.endsWith(end))?.text ?? ''
    const source = debug ? encloseMapped(text('.js'), mapWithin(text('.js.map'), directory)) : enclose(text('.js'))
    return { source, inputs: Object.keys(metafile.inputs).sort() }
  } catch (error) {
    throw asImageError(error)
  }
}

/**
 * `require` and `Function` become the script's own, so that boot can take them from everybody else: libraries compiled to
 * WebAssembly make their glue with `new Function`, and what reaches a function from outside must not find it.
 */
const enclose = (script: string): string =>
  `'use strict';((require,Function)=>{${script.trimEnd()}\n})(require,Function);\n`

/** The same, with the script’s own source map as a third name. The script begins on a line of its own, as enclave/debug.ts expects. */
const encloseMapped = (script: string, map: string): string =>
  `'use strict';((require,Function,keyriseSourceMap)=>{\n${script.trimEnd()}\n})(require,Function,${JSON.stringify(map)});\n`

/** A source map whose paths are the same wherever the project and this package lie. */
const mapWithin = (json: string, directory: string): string => {
  const map = JSON.parse(json) as { sources: string[]; names: string[]; mappings: string }
  const sources = map.sources.map((source) => pathWithin(resolve(directory, source), directory))
  return JSON.stringify({ version: 3, sources, names: map.names, mappings: map.mappings })
}

const PACKAGE = fileURLToPath(new URL('../..', import.meta.url))
const INSTALLED = `${sep}node_modules${sep}`

const pathWithin = (path: string, directory: string): string => {
  const installed = path.lastIndexOf(INSTALLED)
  if (installed !== -1 && !directory.startsWith(path.slice(0, installed + INSTALLED.length)))
    return path.slice(installed + 1)
  const isAuthors = path.startsWith(directory + sep) || !path.startsWith(PACKAGE)
  return isAuthors ? relative(directory, path) : join('keyrise', relative(PACKAGE, path))
}

const isBuildFailure = (error: unknown): error is BuildFailure =>
  error instanceof Error && Array.isArray((error as Partial<BuildFailure>).errors)

const asImageError = (error: unknown): KeyriseError => {
  if (!isBuildFailure(error)) return new KeyriseError('ERR_IMAGE_BUILD', { cause: error })
  const code = error.errors.some(({ text }) => text.startsWith('Top-level await'))
    ? 'ERR_IMAGE_TOP_LEVEL_AWAIT'
    : 'ERR_IMAGE_BUILD'
  return new KeyriseError(code, { detail: error.errors.map(describe).join('; '), cause: error })
}

const describe = ({ text, location }: Message): string =>
  location === null ? text : `${location.file}:${location.line}: ${text}`

/** The directory of a module, for `bundle`. */
export const directoryOf = (entry: string | URL): string => dirname(pathOf(entry))
export const pathOf = (entry: string | URL): string =>
  entry instanceof URL || entry.startsWith('file:') ? fileURLToPath(entry) : entry
