import { join, resolve } from 'node:path'
import type { Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { parsePath } from '../protocol/names.js'
import type { FileSystem, Store } from '../protocol/ports.js'
import { readRange, readWhole } from './durable.js'
import { OBJECT_SIZE_BYTES_MAX } from './directory-store.js'
import { storeError, systemCode } from './failures.js'
import { nodeFileSystem } from './node-file-system.js'

/** A `DirectoryStore`’s directory, to read and nothing else: nothing in it is made, probed or swept, so others may use it meanwhile. */
export class DirectoryReader implements Store {
  readonly #root: string
  readonly #fs: FileSystem
  /** Directories that were seen to be ours, and no links. */
  readonly #known = new Set<string>()

  constructor(directory: string, fileSystem: FileSystem = nodeFileSystem) {
    this.#root = resolve(directory)
    this.#fs = fileSystem
  }

  get(claimedName: string): Promise<Bytes | undefined> {
    return this.#reading(claimedName, (path) => readWhole(this.#fs, path, OBJECT_SIZE_BYTES_MAX))
  }

  read(claimedName: string, offset: number, sizeBytes: number): Promise<Bytes | undefined> {
    return this.#reading(claimedName, (path) => readRange(this.#fs, path, { offset, sizeBytes }))
  }

  /** @throws {KeyriseError} ERR_STORE_UNWRITABLE: there is no such directory. */
  async list(prefix: string): Promise<string[]> {
    const cut = prefix.lastIndexOf('/')
    const within = cut < 0 ? '' : parsePath(prefix.slice(0, cut))
    try {
      await this.#fs.list(this.#root)
      if (within !== '' && !(await this.#isDirectory(within.split('/')))) return []
      return (await this.#walk(within)).filter((name) => name.startsWith(prefix)).sort()
    } catch (error) {
      throw storeError(error, this.#root)
    }
  }

  put(name: string): Promise<never> {
    return Promise.reject(new KeyriseError('ERR_STORE_UNWRITABLE', { detail: `${name} is only read here` }))
  }

  delete(name: string): Promise<never> {
    return this.put(name)
  }

  async #reading(claimedName: string, work: (path: string) => Promise<Bytes | undefined>): Promise<Bytes | undefined> {
    const segments = parsePath(claimedName).split('/')
    try {
      return (await this.#isDirectory(segments.slice(0, -1))) ? await work(join(this.#root, ...segments)) : undefined
    } catch (error) {
      throw storeError(error, this.#root)
    }
  }

  /** @throws {KeyriseError} ERR_STORE_CONFLICT: a symbolic link, say, stands in its place. */
  async #isDirectory(segments: readonly string[]): Promise<boolean> {
    const path = join(this.#root, ...segments)
    if (segments.length === 0 || this.#known.has(path)) return true
    const above = segments.slice(0, -1)
    if (!(await this.#isDirectory(above))) return false
    const entry = (await this.#fs.list(join(this.#root, ...above))).find(({ name }) => name === segments.at(-1))
    if (entry?.kind === 'other') throw new KeyriseError('ERR_STORE_CONFLICT', { detail: `${path} is no directory` })
    if (entry?.kind !== 'directory') return false
    this.#known.add(path)
    return true
  }

  async #walk(within: string): Promise<string[]> {
    const names: string[] = []
    for (const { name, kind } of await this.#listIfThere(join(this.#root, within))) {
      if (name.startsWith('.')) continue
      const path = within === '' ? name : `${within}/${name}`
      if (kind === 'file') names.push(path)
      else if (kind === 'directory') names.push(...(await this.#walk(path)))
    }
    return names
  }

  /** A directory that went meanwhile held nothing that counts any more. */
  async #listIfThere(path: string): ReturnType<FileSystem['list']> {
    try {
      return await this.#fs.list(path)
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return []
      throw error
    }
  }
}
