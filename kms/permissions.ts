import { fileURLToPath } from 'node:url'
import { KeyriseError } from '../protocol/errors.js'

const NODE_MAJOR = Number(process.versions.node.split('.')[0])
const PERMISSION_FLAG = NODE_MAJOR >= 22 ? '--permission' : '--experimental-permission'

/** The folder of the compiled package: every module of ours is below it. */
const PACKAGE_FOLDER = fileURLToPath(new URL('..', import.meta.url))
/** Its package.json says that the modules are ES modules. */
const PACKAGE_MANIFEST = fileURLToPath(new URL('../../package.json', import.meta.url))

/** Everything up to the outermost `node_modules`, where a package’s dependencies may be, however they are laid out. */
const modulesFolder = (specifier: string): string => {
  const path = fileURLToPath(import.meta.resolve(specifier))
  return path.slice(0, path.indexOf('node_modules') + 'node_modules/'.length)
}

/**
 * Flags for a worker of our own: its own permission model, so no inspector, no child process, no addon, and only the files
 * that it needs. The network stays open to it: Node’s model does not cover it.
 * @param options.folders - where it may read and write. @param options.worker - whether it may start workers.
 */
export const permissionFlags = (
  options: { readonly folders?: readonly string[]; readonly worker?: boolean } = {},
): string[] => {
  const folders = options.folders ?? []
  const readable = [`${PACKAGE_FOLDER}*`, PACKAGE_MANIFEST, `${modulesFolder('piscina')}*`, ...folders.map(below)]
  return [
    PERMISSION_FLAG,
    ...readable.map((path) => `--allow-fs-read=${path}`),
    ...folders.map((folder) => `--allow-fs-write=${below(folder)}`),
    ...(options.worker === true ? ['--allow-worker'] : []),
    '--no-addons',
    '--no-warnings',
  ]
}

/** A comma or an asterisk in a path would be read as more than the path. */
const below = (folder: string): string => {
  if (/[*,]/.test(folder))
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'a directory whose name has a comma or an asterisk' })
  return `${folder.replace(/\/+$/, '')}/*`
}
