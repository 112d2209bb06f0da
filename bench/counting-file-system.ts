import type { FileSystem, OpenFile } from '../protocol/ports.js'

/** A file system that counts the bytes that are written through it, journals and temporary files included. */
export class CountingFileSystem implements FileSystem {
  writtenSizeBytes = 0
  readonly #fs: FileSystem

  constructor(fs: FileSystem) {
    this.#fs = fs
  }

  async open(path: string, mode: 'read' | 'create' | 'update'): Promise<OpenFile> {
    const file = await this.#fs.open(path, mode)
    return {
      read: (into, position) => file.read(into, position),
      write: async (from, position) => {
        const sizeBytes = await file.write(from, position)
        this.writtenSizeBytes += sizeBytes
        return sizeBytes
      },
      sync: () => file.sync(),
      size: () => file.size(),
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      close: () => file.close(),
    }
  }

  rename(from: string, to: string): Promise<void> {
    return this.#fs.rename(from, to)
  }

  unlink(path: string): Promise<void> {
    return this.#fs.unlink(path)
  }

  makeDirectory(path: string): Promise<void> {
    return this.#fs.makeDirectory(path)
  }

  list(path: string): ReturnType<FileSystem['list']> {
    return this.#fs.list(path)
  }

  syncDirectory(path: string): Promise<void> {
    return this.#fs.syncDirectory(path)
  }
}
