import { builtinModules } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type BuildFailure, type Message } from 'esbuild'
import { KeyriseError } from '../protocol/errors.js'

/** The runtime's own modules, found by their place beside this one: what they do is the enclave's affair. */
export const runtimeFile = (name: string): string => fileURLToPath(new URL(`../enclave/${name}.js`, import.meta.url))

export interface Bundle {
  /** One strict script without imports, but for Node's own modules. */
  readonly source: string
  /** Every file that is part of it, relative to `directory`, sorted. */
  readonly inputs: readonly string[]
}

/**
 * Bundles `contents`, a module in `directory`, into one script. The same files give the same bytes wherever they lie: names
 * are shortened and no path is kept.
 * @throws {KeyriseError} ERR_IMAGE_BUILD, ERR_IMAGE_TOP_LEVEL_AWAIT.
 */
export const bundle = async (contents: string, directory: string): Promise<Bundle> => {
  try {
    const { outputFiles, metafile } = await build({
      stdin: { contents, resolveDir: directory, sourcefile: 'keyrise-image.js', loader: 'js' },
      absWorkingDir: directory,
      bundle: true,
      write: false,
      metafile: true,
      format: 'iife',
      platform: 'node',
      mainFields: ['module', 'main'],
      target: 'node20',
      minify: true,
      legalComments: 'none',
      charset: 'utf8',
      sourcemap: false,
      treeShaking: true,
      logLevel: 'silent',
      alias: { 'keyrise/enclave': runtimeFile('index') },
      external: builtinModules.flatMap((name) => [name, `node:${name}`]),
      // A project's own compiler settings for tests or pages must not change what is measured.
      tsconfigRaw: {},
    })
    const script = outputFiles[0]?.text ?? ''
    return { source: enclose(script), inputs: Object.keys(metafile.inputs).sort() }
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
