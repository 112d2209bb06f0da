/**
 * A disk as what it holds: nodes by number, as they are seen and as they are durable, and between the two the changes that no
 * fsync has settled. Nothing here is ever written in place, so that a moment of a disk costs no copy of its files.
 */

type NodeId = number
/** A file’s bytes, which are replaced and never written to; or a directory’s names. */
type Node = Uint8Array | ReadonlyMap<string, NodeId>
type Nodes = ReadonlyMap<NodeId, Node>

/** A change that fsync of its owner makes durable; a power cut keeps it or not, whatever becomes of the others. */
export type Change =
  | { readonly kind: 'link'; readonly owner: NodeId; readonly name: string; readonly node: NodeId }
  | { readonly kind: 'unlink'; readonly owner: NodeId; readonly name: string }
  | {
      readonly kind: 'move'
      /** The directory to which it goes. */
      readonly owner: NodeId
      readonly name: string
      readonly node: NodeId
      readonly from: NodeId
      readonly fromName: string
    }
  /** The file has at least, or exactly, so many bytes; new ones are zeros. */
  | { readonly kind: 'grow' | 'truncate'; readonly owner: NodeId; readonly sizeBytes: number }
  /** Within one page. */
  | { readonly kind: 'data'; readonly owner: NodeId; readonly offset: number; readonly bytes: Uint8Array }

/** All that a power cut at this moment could leave. */
export interface DiskMoment {
  readonly seen: Nodes
  readonly durable: Nodes
  readonly unsynced: readonly Change[]
}

/** What a disk holds, by absolute path: a file’s bytes, or null for a directory. Sorted by path. */
export type DiskImage = ReadonlyMap<string, Uint8Array | null>

export const PAGE_SIZE_BYTES = 4096
const ROOT: NodeId = 0

const systemError = (code: string, path: string): Error => Object.assign(new Error(`${code}: ${path}`), { code })
const segmentsOf = (path: string): string[] => path.split('/').filter((segment) => segment !== '' && segment !== '.')

const resized = (bytes: Uint8Array, sizeBytes: number): Uint8Array => {
  const next = new Uint8Array(sizeBytes)
  next.set(bytes.subarray(0, sizeBytes))
  return next
}
const overwritten = (bytes: Uint8Array, part: Uint8Array, offset: number): Uint8Array => {
  const next = resized(bytes, Math.max(bytes.length, offset + part.length))
  next.set(part, offset)
  return next
}

const fileOf = (nodes: Nodes, id: NodeId): Uint8Array => nodes.get(id) as Uint8Array
const directoryOf = (nodes: Nodes, id: NodeId): ReadonlyMap<string, NodeId> =>
  nodes.get(id) as ReadonlyMap<string, NodeId>

const apply = (change: Change, nodes: Map<NodeId, Node>): void => {
  const { owner } = change
  switch (change.kind) {
    case 'link':
      nodes.set(owner, new Map(directoryOf(nodes, owner)).set(change.name, change.node))
      return
    case 'unlink':
      nodes.set(owner, without(directoryOf(nodes, owner), change.name))
      return
    case 'move':
      nodes.set(change.from, without(directoryOf(nodes, change.from), change.fromName))
      nodes.set(owner, new Map(directoryOf(nodes, owner)).set(change.name, change.node))
      return
    case 'grow':
      nodes.set(owner, resized(fileOf(nodes, owner), Math.max(change.sizeBytes, fileOf(nodes, owner).length)))
      return
    case 'truncate':
      nodes.set(owner, resized(fileOf(nodes, owner), change.sizeBytes))
      return
    case 'data':
      nodes.set(owner, overwritten(fileOf(nodes, owner), change.bytes, change.offset))
  }
}

const without = (names: ReadonlyMap<string, NodeId>, name: string): ReadonlyMap<string, NodeId> => {
  const left = new Map(names)
  left.delete(name)
  return left
}

/** What each path is: a directory, or what `file` makes of a file. Sorted by path. */
const treeOf = <T>(nodes: Nodes, file: (id: NodeId, bytes: Uint8Array) => T): ReadonlyMap<string, T | null> => {
  const found: [string, T | null][] = []
  const walk = (id: NodeId, path: string): void => {
    const node = nodes.get(id) as Node
    if (node instanceof Uint8Array) {
      found.push([path, file(id, node)])
      return
    }
    if (path !== '') found.push([path, null])
    for (const [name, child] of node) walk(child, `${path}/${name}`)
  }
  walk(ROOT, '')
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A change of a file’s bytes, or of their number. */
export type FileChange = Extract<Change, { readonly kind: 'grow' | 'truncate' | 'data' }>

const isOfFile = (change: Change): change is FileChange =>
  change.kind === 'grow' || change.kind === 'truncate' || change.kind === 'data'

/** The bytes of a file after `changes`, in order. */
export const changedFile = (bytes: Uint8Array, changes: readonly FileChange[]): Uint8Array => {
  const nodes = new Map<NodeId, Node>()
  return changes.reduce((before, change) => {
    apply(change, nodes.set(change.owner, before))
    return fileOf(nodes, change.owner)
  }, bytes)
}

/** How large a file is after `changes`, and which of them touch which of its pages, in order: a change of the size those from there on. */
export const pagesOf = (
  bytes: Uint8Array,
  changes: readonly FileChange[],
): { readonly sizeBytes: number; readonly changesOf: ReadonlyMap<number, readonly FileChange[]> } => {
  let sizeBytes = bytes.length
  let reached = sizeBytes
  const changesOf = new Map<number, FileChange[]>()
  for (const change of changes) {
    const end = change.kind === 'data' ? change.offset + change.bytes.length : change.sizeBytes
    sizeBytes = change.kind === 'truncate' ? end : Math.max(sizeBytes, end)
    reached = Math.max(reached, end)
    if (change.kind === 'grow') continue
    const first = Math.floor((change.kind === 'data' ? change.offset : end) / PAGE_SIZE_BYTES)
    const last = change.kind === 'data' ? first : Math.floor(reached / PAGE_SIZE_BYTES)
    for (let page = first; page <= last; page++)
      if (changesOf.get(page)?.push(change) === undefined) changesOf.set(page, [change])
  }
  return { sizeBytes, changesOf }
}

/** A page after those of `pagesOf` that touch it; what lies beyond the file’s end is zeros. */
export const changedPage = (bytes: Uint8Array, page: number, changes: readonly FileChange[]): Uint8Array => {
  const start = page * PAGE_SIZE_BYTES
  const content = resized(bytes.subarray(start, start + PAGE_SIZE_BYTES), PAGE_SIZE_BYTES)
  for (const change of changes)
    if (change.kind === 'data') content.set(change.bytes, change.offset - start)
    else content.fill(0, Math.max(0, change.sizeBytes - start))
  return content
}

/** What the disk holds while it runs, each file as what `file` makes of it. */
export const seenTree = <T>({ seen }: DiskMoment, file: (bytes: Uint8Array, changes: readonly FileChange[]) => T) =>
  treeOf(seen, (_id, bytes) => file(bytes, []))

/**
 * What a power cut at this moment leaves where it keeps the unsynced changes of those indexes. A file is what `file` makes of its
 * durable bytes and of the changes to them that are kept: who has seen the two before need not make the bytes.
 */
export const crashTree = <T>(
  { durable, unsynced }: DiskMoment,
  kept: readonly number[],
  file: (bytes: Uint8Array, changes: readonly FileChange[]) => T,
): ReadonlyMap<string, T | null> => {
  const nodes = new Map(durable)
  const changes = new Map<NodeId, FileChange[]>()
  for (const index of kept) {
    const change = unsynced[index] as Change
    if (!isOfFile(change)) apply(change, nodes)
    else if (changes.get(change.owner)?.push(change) === undefined) changes.set(change.owner, [change])
  }
  return treeOf(nodes, (id, bytes) => file(bytes, changes.get(id) ?? []))
}

export class Disk {
  #seen = new Map<NodeId, Node>([[ROOT, new Map<string, NodeId>()]])
  readonly #durable = new Map<NodeId, Node>(this.#seen)
  #unsynced: Change[] = []
  #nodeCount = 1

  /** A disk that holds `image`, all of it durable. */
  static of(image: DiskImage): Disk {
    const disk = new Disk()
    for (const [path, bytes] of image) {
      if (bytes === null) disk.makeDirectory(path)
      else disk.write(disk.create(path), bytes, 0)
    }
    disk.restart(() => true)
    return disk
  }

  /** Neither this nor what it holds is changed by anything that follows. */
  get moment(): DiskMoment {
    return { seen: new Map(this.#seen), durable: new Map(this.#durable), unsynced: [...this.#unsynced] }
  }

  get unsyncedCount(): number {
    return this.#unsynced.length
  }

  restart(kept: (index: number) => boolean): void {
    this.#unsynced.forEach((change, index) => {
      if (kept(index)) apply(change, this.#durable)
    })
    this.#unsynced = []
    this.#seen = new Map(this.#durable)
  }

  /** @throws as open(2) with O_EXCL. */
  create(path: string): NodeId {
    const [directory, name] = this.#parent(path)
    if (directoryOf(this.#seen, directory).has(name)) throw systemError('EEXIST', path)
    const node = this.#add(new Uint8Array())
    this.#change({ kind: 'link', owner: directory, name, node })
    return node
  }

  /** The file; undefined where there is none. @throws EISDIR, ENOENT for what is above it. */
  find(path: string): NodeId | undefined {
    const [directory, name] = this.#parent(path)
    const node = directoryOf(this.#seen, directory).get(name)
    if (node !== undefined && !(this.#seen.get(node) instanceof Uint8Array)) throw systemError('EISDIR', path)
    return node
  }

  rename(from: string, to: string): void {
    const [source, fromName] = this.#parent(from)
    const [owner, name] = this.#parent(to)
    const node = directoryOf(this.#seen, source).get(fromName)
    if (node === undefined) throw systemError('ENOENT', from)
    this.find(to)
    this.#change({ kind: 'move', owner, name, node, from: source, fromName })
  }

  unlink(path: string): void {
    const [owner, name] = this.#parent(path)
    if (this.find(path) === undefined) throw systemError('ENOENT', path)
    this.#change({ kind: 'unlink', owner, name })
  }

  /** With those above it; fine where they are there. */
  makeDirectory(path: string): void {
    let directory = ROOT
    for (const name of segmentsOf(path)) {
      let next = directoryOf(this.#seen, directory).get(name)
      if (next === undefined) {
        next = this.#add(new Map())
        this.#change({ kind: 'link', owner: directory, name, node: next })
      }
      if (this.#seen.get(next) instanceof Uint8Array) throw systemError('EEXIST', path)
      directory = next
    }
  }

  list(path: string): { name: string; kind: 'file' | 'directory' }[] {
    return [...directoryOf(this.#seen, this.directory(path))].map(([name, node]) => ({
      name,
      kind: this.#seen.get(node) instanceof Uint8Array ? 'file' : 'directory',
    }))
  }

  /** @throws ENOENT, ENOTDIR. */
  directory(path: string): NodeId {
    let directory = ROOT
    for (const name of segmentsOf(path)) {
      const next = directoryOf(this.#seen, directory).get(name)
      if (next === undefined) throw systemError('ENOENT', path)
      if (this.#seen.get(next) instanceof Uint8Array) throw systemError('ENOTDIR', path)
      directory = next
    }
    return directory
  }

  bytes(file: NodeId): Uint8Array {
    return fileOf(this.#seen, file)
  }

  /** The new size is one change, each page of data another. */
  write(file: NodeId, bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length
    if (end > this.bytes(file).length) this.#change({ kind: 'grow', owner: file, sizeBytes: end })
    for (let at = offset; at < end;) {
      const next = Math.min(end, (Math.floor(at / PAGE_SIZE_BYTES) + 1) * PAGE_SIZE_BYTES)
      this.#change({ kind: 'data', owner: file, offset: at, bytes: bytes.subarray(at - offset, next - offset) })
      at = next
    }
  }

  truncate(file: NodeId, sizeBytes: number): void {
    this.#change({ kind: 'truncate', owner: file, sizeBytes })
  }

  /** fsync. */
  sync(owner: NodeId): void {
    for (const change of this.#unsynced) if (change.owner === owner) apply(change, this.#durable)
    this.forget(owner)
  }

  /** A failed fsync: the pages count as clean though they were never written. */
  forget(owner: NodeId): void {
    this.#unsynced = this.#unsynced.filter((change) => change.owner !== owner)
  }

  #add(node: Node): NodeId {
    const id = this.#nodeCount++
    this.#seen.set(id, node)
    this.#durable.set(id, node)
    return id
  }

  #change(change: Change): void {
    apply(change, this.#seen)
    this.#unsynced.push(change)
  }

  #parent(path: string): [directory: NodeId, name: string] {
    const segments = segmentsOf(path)
    return [this.directory(segments.slice(0, -1).join('/')), segments.at(-1) ?? '']
  }
}
