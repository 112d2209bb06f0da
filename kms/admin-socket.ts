import { chmod, lstat, mkdtemp, rename, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { KeyriseError } from '../protocol/errors.js'
import { closeServer, listen, type HttpServer } from './http-listener.js'

/** The admin surface’s socket in the KMS’s directory. */
const ADMIN_SOCKET_NAME = 'admin.sock'
/** What the smallest system takes, in bytes: macOS has 104 with the zero at the end, Linux 108. */
const PATH_SIZE_BYTES_MAX = 103

export const adminSocketPath = (directory: string): string => join(directory, ADMIN_SOCKET_NAME)

/**
 * Listens on a unix socket that only this user may connect to. It gets its name when its permissions are right; one that stands
 * there already, of a KMS that died or still runs, gives way, as its ledger does.
 * @returns how to stop.
 * @throws {KeyriseError} ERR_ADDRESS_REFUSED, naming the path.
 */
export const listenOnSocket = async (server: HttpServer, path: string): Promise<() => Promise<void>> => {
  if (Buffer.byteLength(path) > PATH_SIZE_BYTES_MAX)
    throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: `${path}: a socket’s path has at most 103 bytes` })
  const folder = await mkdtemp(join(dirname(path), `.${basename(path).slice(0, 1)}`)).catch((error: unknown) => {
    throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: path, cause: error })
  })
  try {
    const temporary = join(folder, 's')
    await listen(server, { path: temporary }, path)
    await chmod(temporary, 0o600)
    const { ino } = await lstat(temporary)
    await rename(temporary, path)
    return async () => {
      // Another KMS may have taken its place.
      const present = await lstat(path).catch(() => undefined)
      if (present?.ino === ino) await rm(path, { force: true })
      await closeServer(server)
    }
  } catch (error) {
    await closeServer(server)
    if (error instanceof KeyriseError) throw error
    throw new KeyriseError('ERR_ADDRESS_REFUSED', { detail: path, cause: error })
  } finally {
    await rmdir(folder).catch(() => undefined)
  }
}
