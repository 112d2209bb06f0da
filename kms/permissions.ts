import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KeyriseError } from '../protocol/errors.js'

const NODE_MAJOR = Number(process.versions.node.split('.')[0])
const PERMISSION_FLAG = NODE_MAJOR >= 22 ? '--permission' : '--experimental-permission'

const pathOf = (relative: string): string => resolve(fileURLToPath(new URL(relative, import.meta.url)))

/** Everything up to the outermost `node_modules`, where a package’s dependencies may be, however they are laid out. */
const modulesFolder = (specifier: string): string => {
  const path = fileURLToPath(import.meta.resolve(specifier))
  return path.slice(0, path.indexOf('node_modules') + 'node_modules'.length)
}

/** The compiled package, and its dependencies: where they are, and where the loader looks first, be it a link. */
const CODE_FOLDERS = [pathOf('..'), pathOf('../../node_modules'), modulesFolder('piscina')]
/** Says that the modules are ES modules. */
const MANIFEST = pathOf('../../package.json')

/**
 * Flags for a worker of our own: its own permission model, so no inspector, no child process, no addon, and only the files
 * that it needs. The network stays open to it: Node’s model does not cover it.
 * @param options.folders - absolute; where it may read and write. @param options.worker - whether it may start workers.
 * @throws {KeyriseError} ERR_CONFIG_INVALID.
 */
export const permissionFlags = (
  options: { readonly folders?: readonly string[]; readonly worker?: boolean } = {},
): string[] => {
  const folders = options.folders ?? []
  // A comma or an asterisk in a path would be read as more than the path.
  if (folders.some((folder) => /[*,]/.test(folder)))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'a directory whose name has a comma or an asterisk' })
  return [
    PERMISSION_FLAG,
    ...outermost([...CODE_FOLDERS, MANIFEST, ...folders]).map(
      (path) => `--allow-fs-read=${path === MANIFEST ? path : `${path}/*`}`,
    ),
    ...outermost(folders).map((folder) => `--allow-fs-write=${folder}/*`),
    ...(options.worker === true ? ['--allow-worker'] : []),
    '--no-addons',
    '--no-warnings',
  ]
}

/** Without those that another holds: Node 20 aborts when it is given one path twice. */
const outermost = (paths: readonly string[]): string[] =>
  [...new Set(paths)].filter((path) => !paths.some((other) => path.startsWith(`${other}/`)))
