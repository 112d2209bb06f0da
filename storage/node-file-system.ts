import { constants, fstatSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { dirname } from 'node:path'
import type { FileSystem, OpenFile } from '../protocol/ports.js'
import { systemCode } from './failures.js'

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants

/** A symbolic link is never followed, and a planted pipe never blocks the open. */
const PLANTED = O_NOFOLLOW | O_NONBLOCK
const FLAGS = {
  read: O_RDONLY | PLANTED,
  create: O_RDWR | O_CREAT | O_EXCL | PLANTED,
  update: O_RDWR | O_CREAT | PLANTED,
}
const FILE_MODE = 0o600
const DIRECTORY_MODE = 0o700

class NodeFile implements OpenFile {
  readonly #handle: fs.FileHandle

  constructor(handle: fs.FileHandle) {
    this.#handle = handle
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return (await this.#handle.read(into, 0, into.length, position)).bytesRead
  }

  async write(from: Uint8Array, position: number): Promise<number> {
    return (await this.#handle.write(from, 0, from.length, position)).bytesWritten
  }

  sync(): Promise<void> {
    return this.#handle.sync()
  }

  /** At once, since the kernel knows it of an open file: the way to another thread and back takes far longer. */
  size(): Promise<number> {
    return new Promise((resolve) => resolve(fstatSync(this.#handle.fd).size))
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#handle.truncate(sizeBytes)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

const notRegular = (path: string): Error => Object.assign(new Error(`not a regular file: ${path}`), { code: 'EINVAL' })

/** @returns the error where a parent is missing; undefined once the directory is there. */
const makeLevel = async (path: string): Promise<Error | undefined> => {
  try {
    await fs.mkdir(path, { mode: DIRECTORY_MODE })
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return error as Error
    if (systemCode(error) !== 'EEXIST' || !(await fs.stat(path)).isDirectory()) throw error
  }
  return undefined
}

/** The operating system's files. */
export const nodeFileSystem: FileSystem = {
  async open(path, mode) {
    const handle = await fs.open(path, FLAGS[mode], FILE_MODE)
    try {
      if (!fstatSync(handle.fd).isFile()) throw notRegular(path)
    } catch (error) {
      await handle.close()
      throw error
    }
    return new NodeFile(handle)
  },

  rename: (from, to) => fs.rename(from, to),

  unlink: (path) => fs.unlink(path),

  async makeDirectory(path) {
    // Level by level: `recursive` never ends where the kernel says ENOENT although the parent is there, as in /proc.
    const missing = await makeLevel(path)
    if (missing === undefined) return
    if (dirname(path) === path) throw missing
    await this.makeDirectory(dirname(path))
    const refused = await makeLevel(path)
    if (refused !== undefined) throw refused
  },

  async list(path) {
    const entries = await fs.readdir(path, { withFileTypes: true })
    return entries.map((entry) => ({
      name: entry.name,
      kind: entry.isFile() ? 'file' : entry.isDirectory() ? 'directory' : 'other',
    }))
  },

  async syncDirectory(path) {
    const handle = await fs.open(path, O_RDONLY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
}
