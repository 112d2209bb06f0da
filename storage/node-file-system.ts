import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import type { FileSystem, OpenFile } from '../protocol/ports.js'

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

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#handle.truncate(sizeBytes)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

const notRegular = (path: string): Error => Object.assign(new Error(`not a regular file: ${path}`), { code: 'EINVAL' })

/** The operating system's files. */
export const nodeFileSystem: FileSystem = {
  async open(path, mode) {
    const handle = await fs.open(path, FLAGS[mode], FILE_MODE)
    try {
      if (!(await handle.stat()).isFile()) throw notRegular(path)
    } catch (error) {
      await handle.close()
      throw error
    }
    return new NodeFile(handle)
  },

  rename: (from, to) => fs.rename(from, to),

  unlink: (path) => fs.unlink(path),

  async makeDirectory(path) {
    await fs.mkdir(path, { recursive: true, mode: DIRECTORY_MODE })
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
