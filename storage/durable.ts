import { join } from 'node:path'
import { allocate, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FileSystem, OpenFile } from '../protocol/ports.js'
import { storeError, SyncFailure, systemCode } from './failures.js'

const ATTEMPT_COUNT_MAX = 8

/** Where `publish` writes before it renames. No published name starts with a dot, so these are told apart by it. */
const temporaryName = (name: string, writer: string | undefined): string =>
  writer === undefined ? `.${name}.tmp` : `.${name}.${writer}.tmp`
/** True for what a crash in `publish` may leave behind: never part of the state, safe to remove. */
export const isTemporaryName = (name: string): boolean => name.startsWith('.') && name.endsWith('.tmp')

/**
 * Replaces `directory/name` by `bytes`, whole or not at all: temporary file → write → fsync → rename → fsync(directory).
 * One writer for each name at a time, unless each has a name of its own, `writer`. Another process may sweep the directory meanwhile.
 * @throws {KeyriseError} ERR_STORE_FULL, ERR_STORE_UNWRITABLE, ERR_STORE_IO, ERR_STORE_CONFLICT. Where `cause` is a
 * SyncFailure, what is on the disk is unknown (old or new, never torn) and a repeat proves nothing: stop.
 * Crash: at any point, the old content or the new; perhaps a temporary file beside it.
 */
export const publish = async (
  fs: FileSystem,
  directory: string,
  name: string,
  bytes: Uint8Array,
  { writer, allowed = Promise.resolve() }: PublishOptions = {},
): Promise<void> => {
  const temporary = join(directory, temporaryName(name, writer))
  // Heard of below, or not at all where the write fails first.
  allowed.catch(() => undefined)
  try {
    await writeAndRename(fs, temporary, join(directory, name), bytes, allowed)
    await syncDirectory(fs, directory)
  } catch (error) {
    await Promise.allSettled([allowed, fs.unlink(temporary)])
    throw storeError(error, join(directory, name))
  }
}

interface PublishOptions {
  readonly writer?: string
  /** Found out while the file is written: nothing is renamed before it resolves, or where it rejects. */
  readonly allowed?: Promise<void>
}

/** Again where the temporary file is gone: another process takes it for what a crash left, once, when it opens the directory. */
const writeAndRename = async (
  fs: FileSystem,
  temporary: string,
  path: string,
  bytes: Uint8Array,
  allowed: Promise<void>,
): Promise<void> => {
  for (let attempt = 1; ; attempt++) {
    await writeNew(fs, temporary, bytes)
    await allowed
    try {
      await fs.rename(temporary, path)
      return
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' || attempt === ATTEMPT_COUNT_MAX) throw error
    }
  }
}

/**
 * Removes `directory/name`; fine where there is none. Not synced: a crash may bring it back, until something else is published in
 * the directory. @throws {KeyriseError} as `publish`.
 */
export const discard = async (fs: FileSystem, directory: string, name: string): Promise<void> => {
  try {
    await fs.unlink(join(directory, name))
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw storeError(error, join(directory, name))
  }
}

/**
 * The whole of a file, or undefined where there is none.
 * @param sizeBytesMax - checked before anything is allocated. @throws {KeyriseError} ERR_STORE_*, ERR_SIZE_LIMIT.
 */
export const readWhole = (fs: FileSystem, path: string, sizeBytesMax: number): Promise<Bytes | undefined> =>
  readOpened(fs, path, (size) => {
    if (size > sizeBytesMax) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: path })
    return { offset: 0, sizeBytes: size }
  })

/** A part of a file: fewer bytes at its end. @throws {KeyriseError} ERR_STORE_*. */
export const readRange = (fs: FileSystem, path: string, { offset, sizeBytes }: Range): Promise<Bytes | undefined> =>
  readOpened(fs, path, (size) => ({ offset, sizeBytes: Math.max(0, Math.min(sizeBytes, size - offset)) }))

interface Range {
  readonly offset: number
  readonly sizeBytes: number
}

/** @param choose - the range to read of a file of this size. */
const readOpened = async (
  fs: FileSystem,
  path: string,
  choose: (size: number) => Range,
): Promise<Bytes | undefined> => {
  try {
    const file = await fs.open(path, 'read')
    try {
      return await readAll(file, choose(await file.size()))
    } finally {
      await file.close()
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw storeError(error, path)
  }
}

/** Writes all of `bytes` at `position`: a write may take fewer bytes than it is given (a disk that fills up does). */
export const writeAll = async (file: OpenFile, bytes: Uint8Array, position: number): Promise<void> => {
  for (let done = 0; done < bytes.length;) {
    const count = await file.write(bytes.subarray(done), position + done)
    if (count <= 0) throw Object.assign(new Error('nothing was written'), { code: 'EIO' })
    done += count
  }
}

/** fsync of an open file; the failure is marked, since it is final. */
export const syncFile = (file: OpenFile): Promise<void> => marked(file.sync())

/** fsync of a directory; the failure is marked, since it is final. */
export const syncDirectory = (fs: FileSystem, path: string): Promise<void> => marked(fs.syncDirectory(path))

const marked = async (sync: Promise<void>): Promise<void> => {
  try {
    await sync
  } catch (error) {
    throw new SyncFailure(error)
  }
}

const writeNew = async (fs: FileSystem, path: string, bytes: Uint8Array): Promise<void> => {
  const file = await createFresh(fs, path)
  try {
    await writeAll(file, bytes, 0)
    await syncFile(file)
  } finally {
    await file.close()
  }
}

/** A file of our own: what a crash, or anyone else, left under the name goes first; a symbolic link goes unfollowed. */
const createFresh = async (fs: FileSystem, path: string): Promise<OpenFile> => {
  try {
    return await fs.open(path, 'create')
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
    await fs.unlink(path)
    return fs.open(path, 'create')
  }
}

const readAll = async (file: OpenFile, { offset, sizeBytes }: Range): Promise<Bytes> => {
  const bytes = allocate(sizeBytes)
  let done = 0
  while (done < sizeBytes) {
    const count = await file.read(bytes.subarray(done), offset + done)
    if (count === 0) break
    done += count
  }
  // Cut short meanwhile: whoever reads it verifies it, and finds it damaged.
  return done === sizeBytes ? bytes : bytes.slice(0, done)
}
