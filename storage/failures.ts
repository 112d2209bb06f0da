import { KeyriseError, type ErrorCode } from '../protocol/errors.js'

/** What a failed call of a file system means to the one who stores. Anything else is the device's fault. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'ERR_STORE_FULL',
  EDQUOT: 'ERR_STORE_FULL',
  EACCES: 'ERR_STORE_UNWRITABLE',
  EPERM: 'ERR_STORE_UNWRITABLE',
  EROFS: 'ERR_STORE_UNWRITABLE',
  ENOENT: 'ERR_STORE_UNWRITABLE',
  ENOTDIR: 'ERR_STORE_UNWRITABLE',
  // A symbolic link, a directory or a pipe where a file of ours should stand.
  ELOOP: 'ERR_STORE_CONFLICT',
  EISDIR: 'ERR_STORE_CONFLICT',
  EEXIST: 'ERR_STORE_CONFLICT',
  EINVAL: 'ERR_STORE_CONFLICT',
  ENXIO: 'ERR_STORE_CONFLICT',
}

/** An fsync that failed: what it should have made durable is unknown for good, so whoever sees it stops. */
export class SyncFailure extends Error {
  constructor(cause: unknown) {
    super('fsync failed', { cause })
  }
}

/** The `code` of a file system's failure, as in `ENOSPC`. */
export const systemCode = (error: unknown): string | undefined => {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}

/** Turns a file system's failure at `where`, a path that the user gave, into one that says what to do. */
export const storeError = (error: unknown, where: string): KeyriseError => {
  if (error instanceof KeyriseError) return error
  const isSync = error instanceof SyncFailure
  const system = systemCode(isSync ? error.cause : error)
  const code = (system === undefined ? undefined : CODES[system]) ?? 'ERR_STORE_IO'
  const action = isSync ? 'fsync of ' : ''
  // An fsync has no names to get wrong: but for a lack of space, its failure is the device's.
  const isDevice = isSync && code !== 'ERR_STORE_FULL'
  return new KeyriseError(isDevice ? 'ERR_STORE_IO' : code, {
    detail: `${action}${where} (${system ?? 'unknown'})`,
    cause: error,
  })
}
