import type { FileSystem, OpenFile } from '../protocol/ports.js'

/**
 * A file system where fsyncs of one directory that are asked for at once share one: those that come while one runs wait for the
 * next, which begins after it, and so after all that they are to make durable. Where one fails those that wait fail with it, since
 * after a failed fsync another proves nothing.
 */
export class SharedSyncs implements FileSystem {
  readonly #fs: FileSystem
  readonly #running = new Map<string, Promise<void>>()
  readonly #waiting = new Map<string, Promise<void>>()

  constructor(fs: FileSystem) {
    this.#fs = fs
  }

  syncDirectory(path: string): Promise<void> {
    const waiting = this.#waiting.get(path)
    if (waiting !== undefined) return waiting
    const running = this.#running.get(path)
    if (running === undefined) return this.#sync(path)
    const next = running.finally(() => this.#waiting.delete(path)).then(() => this.#sync(path))
    this.#waiting.set(path, next)
    return next
  }

  #sync(path: string): Promise<void> {
    const running = this.#fs.syncDirectory(path).finally(() => {
      if (this.#running.get(path) === running) this.#running.delete(path)
    })
    this.#running.set(path, running)
    return running
  }

  open(path: string, mode: 'read' | 'create' | 'update'): Promise<OpenFile> {
    return this.#fs.open(path, mode)
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
}
