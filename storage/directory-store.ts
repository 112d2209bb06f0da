import { basename, dirname, join, resolve } from 'node:path'
import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { CHECKPOINT_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { parsePath } from '../protocol/names.js'
import type { FileSystem, Store } from '../protocol/ports.js'
import { discard, isTemporaryName, publish, readRange, readWhole, syncDirectory } from './durable.js'
import { storeError, SyncFailure, systemCode } from './failures.js'
import { nodeFileSystem } from './node-file-system.js'
import { SharedSyncs } from './shared-syncs.js'

/** An epoch file is a checkpoint and its index. */
export const OBJECT_SIZE_BYTES_MAX = CHECKPOINT_SIZE_BYTES_MAX + 64 * 1024 * 1024
/** A file system takes 255 bytes, and the temporary file needs a few of them. */
const SEGMENT_LENGTH_MAX = 200
const PROBE = '.keyrise-probe'
let storeCount = 0

/**
 * A store in a directory: one file for each name, `/` in a name being a directory. One process writes a flow at a time.
 *
 * The directory is made where its parent exists: a mistyped path or a disk that isn't mounted is said, not filled. Symbolic
 * links in it are never followed. After a failed fsync the store stops, because nothing that it then said could be trusted;
 * open it anew once the device is sound.
 */
export class DirectoryStore implements Store {
  readonly #root: string
  /** Two rewraps at once may write one name: each has a temporary file of its own. */
  readonly #writer = `${process.pid}-${++storeCount}`
  readonly #fs: FileSystem
  /** Directories being made, or known to be ours, no links, durable, and swept of what a crash left. */
  readonly #prepared = new Map<string, Promise<void>>()
  /** The last operation of each name: those of one name run one after the other. */
  readonly #busy = new Map<string, Promise<unknown>>()
  #stopped: KeyriseError | undefined

  /** Touches nothing yet: the first operation says whether the directory can be used. */
  constructor(directory: string, fileSystem: FileSystem = nodeFileSystem) {
    this.#root = resolve(directory)
    this.#fs = new SharedSyncs(fileSystem)
  }

  put(claimedName: string, bytes: Uint8Array): Promise<void> {
    return this.#inTurn(claimedName, async (directory, file) => {
      await this.#prepare(directory)
      const allowed = this.#refuseOther(join(directory, file), bytes, claimedName)
      // The same bytes are published again: that they can be read doesn't prove that they are durable.
      await publish(this.#fs, directory, file, bytes, { writer: this.#writer, allowed })
    })
  }

  get(claimedName: string): Promise<Bytes | undefined> {
    return this.#inTurn(claimedName, async (directory, file) => {
      if (!(await this.#isDirectory(directory))) return undefined
      return readWhole(this.#fs, join(directory, file), OBJECT_SIZE_BYTES_MAX)
    })
  }

  read(claimedName: string, offset: number, sizeBytes: number): Promise<Bytes | undefined> {
    return this.#inTurn(claimedName, async (directory, file) => {
      if (!(await this.#isDirectory(directory))) return undefined
      return readRange(this.#fs, join(directory, file), { offset, sizeBytes })
    })
  }

  delete(claimedName: string): Promise<void> {
    return this.#inTurn(claimedName, async (directory, file) => {
      if (await this.#isDirectory(directory)) await discard(this.#fs, directory, file)
    })
  }

  async list(prefix: string): Promise<string[]> {
    const cut = prefix.lastIndexOf('/')
    const within = cut < 0 ? '' : parsePath(prefix.slice(0, cut))
    try {
      this.#assertRunning()
      if (!(await this.#isDirectory(join(this.#root, within)))) return []
      const names = await this.#walk(within)
      return names.filter((name) => name.startsWith(prefix)).sort()
    } catch (error) {
      throw this.#failure(error)
    }
  }

  async #refuseOther(path: string, bytes: Uint8Array, claimedName: string): Promise<void> {
    const present = await readWhole(this.#fs, path, OBJECT_SIZE_BYTES_MAX)
    if (present !== undefined && !equalPublicBytes(present, bytes))
      throw new KeyriseError('ERR_STORE_CONFLICT', { detail: claimedName })
  }

  async #walk(within: string): Promise<string[]> {
    const names: string[] = []
    for (const { name, kind } of await this.#fs.list(join(this.#root, within))) {
      if (name.startsWith('.')) continue
      const path = within === '' ? name : `${within}/${name}`
      if (kind === 'file') names.push(path)
      else if (kind === 'directory') names.push(...(await this.#walk(path)))
    }
    return names
  }

  async #inTurn<T>(claimedName: string, work: (directory: string, file: string) => Promise<T>): Promise<T> {
    const segments = parsePath(claimedName).split('/')
    if (segments.some((segment) => segment.length > SEGMENT_LENGTH_MAX)) {
      throw new KeyriseError('ERR_NAME_INVALID', { detail: `${String(SEGMENT_LENGTH_MAX)} characters between slashes` })
    }
    const path = join(this.#root, ...segments)
    const earlier = this.#busy.get(path) ?? Promise.resolve()
    const turn = earlier
      .then(() => {
        this.#assertRunning()
        return work(dirname(path), segments.at(-1) as string)
      })
      .catch((error: unknown) => {
        throw this.#failure(error)
      })
    const settled = turn.then(
      () => undefined,
      () => undefined,
    )
    this.#busy.set(path, settled)
    try {
      return await turn
    } finally {
      if (this.#busy.get(path) === settled) this.#busy.delete(path)
    }
  }

  #assertRunning(): void {
    if (this.#stopped !== undefined) throw this.#stopped
  }

  #failure(error: unknown): KeyriseError {
    const failure = storeError(error, this.#root)
    // A full disk is no broken one: that file was thrown away, and the next is judged by its own fsync.
    if (failure.cause instanceof SyncFailure && failure.code !== 'ERR_STORE_FULL') this.#stopped = failure
    return failure
  }

  /** Makes `directory` and those above it, up to the root, durable and checked; once, unless it fails. */
  #prepare(directory: string): Promise<void> {
    const known = this.#prepared.get(directory)
    if (known !== undefined) return known
    const preparing = directory === this.#root ? this.#prepareRoot() : this.#prepareWithin(directory)
    this.#prepared.set(directory, preparing)
    preparing.catch(() => this.#prepared.delete(directory))
    return preparing
  }

  async #prepareRoot(): Promise<void> {
    const root = this.#root
    try {
      await this.#fs.list(root)
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error
      // Not `makeDirectory` alone, which would make the parents too.
      await this.#fs.list(dirname(root))
      await this.#fs.makeDirectory(root)
      await syncDirectory(this.#fs, dirname(root))
    }
    await this.#probe(root)
    await this.#sweep(root)
  }

  async #prepareWithin(directory: string): Promise<void> {
    const parent = dirname(directory)
    await this.#prepare(parent)
    if (!(await this.#isListed(directory))) await this.#fs.makeDirectory(directory)
    // Also where it was there: the crash that left it may have come before this.
    await syncDirectory(this.#fs, parent)
    await this.#sweep(directory)
  }

  async #isDirectory(directory: string): Promise<boolean> {
    if (directory === this.#root || this.#prepared.has(directory)) {
      await this.#prepare(directory)
      return true
    }
    return (await this.#isDirectory(dirname(directory))) && this.#isListed(directory)
  }

  /** True where its parent lists it as a directory. @throws {KeyriseError} where a symbolic link, say, stands in its place. */
  async #isListed(directory: string): Promise<boolean> {
    const entry = (await this.#fs.list(dirname(directory))).find(({ name }) => name === basename(directory))
    if (entry?.kind === 'other')
      throw new KeyriseError('ERR_STORE_CONFLICT', { detail: `${directory} is no directory` })
    return entry?.kind === 'directory'
  }

  /** A directory that cannot be written is said at the first operation, not at the first checkpoint. */
  async #probe(directory: string): Promise<void> {
    try {
      const file = await this.#fs.open(join(directory, PROBE), 'update')
      await file.close()
      await this.#fs.unlink(join(directory, PROBE))
    } catch (error) {
      // ENOENT: another store's probe. A full disk can still be read; `put` says it.
      if (!['ENOENT', 'ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')) throw error
    }
  }

  async #sweep(directory: string): Promise<void> {
    for (const { name } of await this.#fs.list(directory)) {
      if (isTemporaryName(name)) await this.#fs.unlink(join(directory, name)).catch(() => undefined)
    }
  }
}
