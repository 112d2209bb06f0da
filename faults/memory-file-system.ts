import { dirname, basename } from 'node:path'
import type { FileSystem, OpenFile } from '../protocol/ports.js'

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

interface FileNode {
  readonly kind: 'file'
  seen: Uint8Array
  durable: Uint8Array
}
interface DirectoryNode {
  readonly kind: 'directory'
  seen: Map<string, Node>
  durable: Map<string, Node>
}
type Node = FileNode | DirectoryNode

/** A change that its owner's fsync makes durable; a power cut keeps it or not. */
interface Unsynced {
  readonly owner: Node
  readonly settle: () => void
}

const PAGE_SIZE_BYTES = 4096

const systemError = (code: string, path: string): Error => Object.assign(new Error(`${code}: ${path}`), { code })
const newDirectory = (): DirectoryNode => ({ kind: 'directory', seen: new Map(), durable: new Map() })

const resized = (bytes: Uint8Array, size: number): Uint8Array => {
  const next = new Uint8Array(size)
  next.set(bytes.subarray(0, size))
  return next
}
const overwritten = (bytes: Uint8Array, part: Uint8Array, position: number): Uint8Array => {
  const next = resized(bytes, Math.max(bytes.length, position + part.length))
  next.set(part, position)
  return next
}

export class MemoryFileSystem implements FileSystem {
  readonly #root = newDirectory()
  readonly #fault: (operation: FileOperation) => FileFault | undefined
  #unsynced: Unsynced[] = []
  #operationCount = 0
  #boot = 0
  #stopped = false

  /** @param fault - asked about each operation as it comes. */
  constructor(fault: (operation: FileOperation) => FileFault | undefined = () => undefined) {
    this.#fault = fault
  }

  get operationCount(): number {
    return this.#operationCount
  }

  /** How many changes a power cut could keep or lose now, each by itself. */
  get unsyncedCount(): number {
    return this.#unsynced.length
  }

  /** Turns the machine off, and on again, with the synced changes and those unsynced ones that `survives` names by index. */
  restart(survives: (index: number) => boolean = () => false): void {
    this.#unsynced
      .filter((_change, index) => survives(index))
      .forEach(({ settle }) => {
        settle()
      })
    this.#unsynced = []
    this.#boot++
    this.#stopped = false
    reread(this.#root)
  }

  open(path: string, mode: 'read' | 'create' | 'update'): Promise<OpenFile> {
    return this.#run('open', path, () => {
      const directory = this.#directory(dirname(path))
      const present = directory.seen.get(basename(path))
      if (present?.kind === 'directory') throw systemError('EISDIR', path)
      if (present !== undefined && mode === 'create') throw systemError('EEXIST', path)
      if (present === undefined && mode === 'read') throw systemError('ENOENT', path)
      return this.#handle(path, present ?? this.#newFile(directory, basename(path)))
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.#run('rename', `${from} → ${to}`, () => {
      const source = this.#directory(dirname(from))
      const target = this.#directory(dirname(to))
      const node = source.seen.get(basename(from))
      if (node === undefined) throw systemError('ENOENT', from)
      if (target.seen.get(basename(to))?.kind === 'directory') throw systemError('EISDIR', to)
      const move = (side: 'seen' | 'durable'): void => {
        source[side].delete(basename(from))
        target[side].set(basename(to), node)
      }
      this.#change(target, move)
    })
  }

  unlink(path: string): Promise<void> {
    return this.#run('unlink', path, () => {
      const directory = this.#directory(dirname(path))
      const node = directory.seen.get(basename(path))
      if (node === undefined) throw systemError('ENOENT', path)
      if (node.kind === 'directory') throw systemError('EISDIR', path)
      this.#change(directory, (side) => directory[side].delete(basename(path)))
    })
  }

  makeDirectory(path: string): Promise<void> {
    return this.#run('makeDirectory', path, () => {
      let directory = this.#root
      for (const segment of segmentsOf(path)) {
        const next = directory.seen.get(segment) ?? newDirectory()
        if (next.kind !== 'directory') throw systemError('EEXIST', path)
        const parent = directory
        if (!parent.seen.has(segment)) this.#change(parent, (side) => parent[side].set(segment, next))
        directory = next
      }
    })
  }

  list(path: string): Promise<readonly { name: string; kind: 'file' | 'directory' | 'other' }[]> {
    return this.#run('list', path, () => [...this.#directory(path).seen].map(([name, { kind }]) => ({ name, kind })))
  }

  syncDirectory(path: string): Promise<void> {
    return this.#run(
      'syncDirectory',
      path,
      () => {
        this.#sync(this.#directory(path))
      },
      () => {
        this.#forget(this.#directory(path))
      },
    )
  }

  /** Asks for a fault, then does the operation. `onFailure` runs where the fault lets it fail. */
  async #run<T>(
    kind: FileOperation['kind'],
    path: string,
    work: (countMax: number) => T,
    onFailure?: () => void,
  ): Promise<T> {
    // Every real call answers later; what relies on an order finds out here too.
    await Promise.resolve()
    if (this.#stopped) throw new MachineStopped()
    const fault = this.#fault({ kind, path, index: this.#operationCount++ })
    if (fault === 'stop-before') return this.#stop()
    if (typeof fault === 'object' && 'fail' in fault) {
      onFailure?.()
      throw systemError(fault.fail, path)
    }
    try {
      return work(typeof fault === 'object' ? fault.countMax : Infinity)
    } finally {
      // Whatever came of it, nobody hears: this throw replaces it.
      if (fault === 'stop-after') this.#stop()
    }
  }

  #stop(): never {
    this.#stopped = true
    throw new MachineStopped()
  }

  /** Makes a change that is seen at once and durable after fsync of `owner`. */
  #change(owner: Node, apply: (side: 'seen' | 'durable') => void): void {
    apply('seen')
    this.#unsynced.push({
      owner,
      settle: () => {
        apply('durable')
      },
    })
  }

  #sync(owner: Node): void {
    for (const change of this.#unsynced) if (change.owner === owner) change.settle()
    this.#forget(owner)
  }

  #forget(owner: Node): void {
    this.#unsynced = this.#unsynced.filter((change) => change.owner !== owner)
  }

  #directory(path: string): DirectoryNode {
    let node: Node = this.#root
    for (const segment of segmentsOf(path)) {
      const next: Node | undefined = node.kind === 'directory' ? node.seen.get(segment) : undefined
      if (next === undefined) throw systemError('ENOENT', path)
      node = next
    }
    if (node.kind !== 'directory') throw systemError('ENOTDIR', path)
    return node
  }

  #newFile(directory: DirectoryNode, name: string): FileNode {
    const node: FileNode = { kind: 'file', seen: new Uint8Array(), durable: new Uint8Array() }
    this.#change(directory, (side) => directory[side].set(name, node))
    return node
  }

  #handle(path: string, node: FileNode): OpenFile {
    const boot = this.#boot
    const run = <T>(kind: FileOperation['kind'], work: (countMax: number) => T, onFailure?: () => void): Promise<T> =>
      boot === this.#boot ? this.#run(kind, path, work, onFailure) : Promise.reject(new MachineStopped())
    return {
      read: (into, position) =>
        run('read', (countMax) => {
          const part = node.seen.subarray(position, position + Math.min(into.length, countMax))
          into.set(part)
          return part.length
        }),
      write: (from, position) =>
        run('write', (countMax) => this.#write(node, from.slice(0, Math.min(from.length, countMax)), position)),
      truncate: (size) =>
        run('truncate', () => {
          this.#change(node, (side) => (node[side] = resized(node[side], size)))
        }),
      sync: () =>
        run(
          'sync',
          () => {
            this.#sync(node)
          },
          () => {
            this.#forget(node)
          },
        ),
      size: () => Promise.resolve(node.seen.length),
      close: () => Promise.resolve(),
    }
  }

  /** The new size is one change, each page of data another. */
  #write(node: FileNode, bytes: Uint8Array, position: number): number {
    const end = position + bytes.length
    if (end > node.seen.length)
      this.#change(node, (side) => (node[side] = resized(node[side], Math.max(end, node[side].length))))
    for (let at = position; at < end;) {
      const next = Math.min(end, (Math.floor(at / PAGE_SIZE_BYTES) + 1) * PAGE_SIZE_BYTES)
      const start = at
      const page = bytes.subarray(start - position, next - position)
      this.#change(node, (side) => (node[side] = overwritten(node[side], page, start)))
      at = next
    }
    return bytes.length
  }
}

const segmentsOf = (path: string): string[] => path.split('/').filter((segment) => segment !== '' && segment !== '.')

/** After a restart, what is seen is what was durable. */
const reread = (node: Node): void => {
  if (node.kind === 'file') {
    node.seen = node.durable.slice()
    return
  }
  node.seen = new Map(node.durable)
  for (const child of node.seen.values()) reread(child)
}
