import type { FileSystem, OpenFile } from '../protocol/ports.js'
import { Disk, type DiskImage, type DiskMoment } from './disk.js'

/**
 * A disk whose every failure can be chosen. Its model, from what real ones do: nothing is durable before fsync, a name not
 * before fsync of its directory; a power cut keeps any part of the rest, in pieces of 4 KiB, a size perhaps without its data;
 * rename is atomic; after a failed fsync the pages count as clean though they were never written.
 */

export type FileOperation = {
  readonly kind:
    'open' | 'read' | 'write' | 'truncate' | 'sync' | 'rename' | 'unlink' | 'makeDirectory' | 'list' | 'syncDirectory'
  readonly path: string
  /** How many operations came before. */
  readonly index: number
  /** What a write was given; borrowed. */
  readonly bytes?: Uint8Array
}

/**
 * What becomes of one operation: it fails with a code of the system; it takes only so many bytes; or the machine stops just
 * before or just after it.
 */
export type FileFault = { readonly fail: string } | { readonly countMax: number } | 'stop-before' | 'stop-after'

/** The machine is off: whatever ran on it is gone. `restart()` turns it on. */
export class MachineStopped extends Error {
  constructor() {
    super('the machine stopped')
  }
}

export interface MemoryFileSystemOptions {
  /** What the disk holds at first; nothing unless told. */
  readonly image?: DiskImage
  /** How long an operation takes: from the call until it happens. A microtask unless told. */
  readonly wait?: () => Promise<void>
  /** Called when an operation has happened, before anybody is told. */
  readonly onDone?: (operation: FileOperation) => void
}

const systemError = (code: string, path: string): Error => Object.assign(new Error(`${code}: ${path}`), { code })

export class MemoryFileSystem implements FileSystem {
  readonly #disk: Disk
  readonly #fault: (operation: FileOperation) => FileFault | undefined
  readonly #wait: () => Promise<void>
  readonly #onDone: (operation: FileOperation) => void
  #operationCount = 0
  #boot = 0
  #stopped = false

  /** @param fault - asked about each operation as it comes. */
  constructor(
    fault: (operation: FileOperation) => FileFault | undefined = () => undefined,
    { image, onDone, wait }: MemoryFileSystemOptions = {},
  ) {
    this.#fault = fault
    this.#disk = image === undefined ? new Disk() : Disk.of(image)
    this.#wait = wait ?? (() => Promise.resolve())
    this.#onDone = onDone ?? (() => undefined)
  }

  get operationCount(): number {
    return this.#operationCount
  }

  /** How many changes a power cut could keep or lose now, each by itself. */
  get unsyncedCount(): number {
    return this.#disk.unsyncedCount
  }

  /** What the disk holds now, and what a power cut could leave of it. */
  get moment(): DiskMoment {
    return this.#disk.moment
  }

  /** How often `restart` was called. */
  get bootCount(): number {
    return this.#boot
  }

  /** From here on no operation happens, until `restart`. */
  stop(): void {
    this.#stopped = true
  }

  /** Turns the machine off, and on again, with the synced changes and those unsynced ones that `survives` names by index. */
  restart(survives: (index: number) => boolean = () => false): void {
    this.#disk.restart(survives)
    this.#boot++
    this.#stopped = false
  }

  open(path: string, mode: 'read' | 'create' | 'update'): Promise<OpenFile> {
    return this.#run('open', path, () => {
      const present = this.#disk.find(path)
      if (present !== undefined && mode === 'create') throw systemError('EEXIST', path)
      if (present === undefined && mode === 'read') throw systemError('ENOENT', path)
      return this.#handle(path, present ?? this.#disk.create(path))
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.#run('rename', `${from} → ${to}`, () => this.#disk.rename(from, to))
  }

  unlink(path: string): Promise<void> {
    return this.#run('unlink', path, () => this.#disk.unlink(path))
  }

  makeDirectory(path: string): Promise<void> {
    return this.#run('makeDirectory', path, () => this.#disk.makeDirectory(path))
  }

  list(path: string): Promise<readonly { name: string; kind: 'file' | 'directory' | 'other' }[]> {
    return this.#run('list', path, () => this.#disk.list(path))
  }

  syncDirectory(path: string): Promise<void> {
    const onFailure = (): void => this.#disk.forget(this.#disk.directory(path))
    return this.#run('syncDirectory', path, () => this.#disk.sync(this.#disk.directory(path)), { onFailure })
  }

  /** Asks for a fault, then does the operation. `onFailure` runs where the fault lets it fail. */
  async #run<T>(
    kind: FileOperation['kind'],
    path: string,
    work: (countMax: number) => T,
    { onFailure, bytes }: { readonly onFailure?: () => void; readonly bytes?: Uint8Array } = {},
  ): Promise<T> {
    // Every real call answers later; what relies on an order finds out here too.
    await this.#wait()
    if (this.#stopped) throw new MachineStopped()
    const operation = { kind, path, index: this.#operationCount++, ...(bytes === undefined ? {} : { bytes }) }
    const fault = this.#fault(operation)
    if (fault === 'stop-before') return this.#end()
    if (typeof fault === 'object' && 'fail' in fault) {
      onFailure?.()
      throw systemError(fault.fail, path)
    }
    try {
      return work(typeof fault === 'object' ? fault.countMax : Infinity)
    } finally {
      this.#onDone(operation)
      // Whatever came of it, nobody hears: this throw replaces it.
      if (fault === 'stop-after') this.#end()
    }
  }

  #end(): never {
    this.stop()
    throw new MachineStopped()
  }

  #handle(path: string, file: number): OpenFile {
    const disk = this.#disk
    const boot = this.#boot
    const run = <T>(
      kind: FileOperation['kind'],
      work: (countMax: number) => T,
      options?: { readonly onFailure?: () => void; readonly bytes?: Uint8Array },
    ): Promise<T> => (boot === this.#boot ? this.#run(kind, path, work, options) : Promise.reject(new MachineStopped()))
    return {
      read: (into, position) =>
        run('read', (countMax) => {
          const part = disk.bytes(file).subarray(position, position + Math.min(into.length, countMax))
          into.set(part)
          return part.length
        }),
      write: (from, position) =>
        run(
          'write',
          (countMax) => {
            const bytes = from.slice(0, Math.min(from.length, countMax))
            disk.write(file, bytes, position)
            return bytes.length
          },
          { bytes: from },
        ),
      truncate: (sizeBytes) => run('truncate', () => disk.truncate(file, sizeBytes)),
      sync: () => run('sync', () => disk.sync(file), { onFailure: () => disk.forget(file) }),
      size: () => Promise.resolve(disk.bytes(file).length),
      close: () => Promise.resolve(),
    }
  }
}
