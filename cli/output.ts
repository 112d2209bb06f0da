import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { KeyriseError } from '../protocol/errors.js'
import { systemCode } from '../storage/failures.js'
import { writeAll } from './file-io.js'
import { STANDARD, type Input } from './input.js'
import { BrokenPipe, ENDING_SIGNALS, isBrokenPipe } from './terminal.js'

/**
 * Where a command writes to. A regular file appears whole or not at all: everything goes to a temporary file beside it, which
 * is renamed at the end, and removed at a failure or a signal. Pipes, devices and standard output take bytes as they come.
 */

const BUSY_MS = 5
/** Of 255 bytes; a character has four at most. */
const NAMED_LENGTH = 32
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, O_WRONLY } = fs.constants
/** What file systems say that have no hard links. */
const NO_LINKS: readonly (string | undefined)[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']

const writePiece = promisify(fs.write)

export interface OutputOptions {
  /** `-` or undefined for standard output. */
  readonly path: string | undefined
  /** An existing file is replaced. */
  readonly isForced: boolean
  readonly input?: Input
  /** The output takes the place of the input itself, with its owner and permissions. */
  readonly isInPlace?: boolean
  /** Permissions of a new file, before the umask. */
  readonly mode: number
}

interface NewFile {
  readonly temporary: string
  readonly path: string
  readonly isReplacing: boolean
  /** What is replaced, and only if it still is that. */
  readonly expected?: fs.Stats | undefined
}

const isSameFile = (a: fs.Stats, b: fs.Stats): boolean => a.isFile() && b.isFile() && a.dev === b.dev && a.ino === b.ino
const isUnchanged = (now: fs.Stats, before: fs.Stats): boolean =>
  isSameFile(now, before) && now.size === before.size && now.mtimeMs === before.mtimeMs

/**
 * Nothing is created or replaced under the output’s own name before `commit`.
 * @throws {KeyriseError} ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE.
 */
export const openOutput = (options: OutputOptions): Output => {
  const { path, input, isForced, isInPlace = false, mode } = options
  const isStandard = path === undefined || path === STANDARD
  const name = isStandard ? 'standard output' : path
  try {
    const stats = isStandard ? fs.fstatSync(1) : fs.statSync(path, { throwIfNoEntry: false })
    if (stats !== undefined && input !== undefined && isSameFile(stats, input.stats) && !isInPlace)
      throw new KeyriseError('ERR_FILE_EXISTS', { detail: `${name} is the input` })
    if (isStandard) return new Output(1, name)
    if (stats === undefined) return newFile({ path, isReplacing: false, mode })
    if (!stats.isFile()) return new Output(fs.openSync(path, O_WRONLY), name)
    if (!isForced && !isInPlace) throw new KeyriseError('ERR_FILE_EXISTS', { detail: name })
    // What a symbolic link points to is replaced, and not the link.
    const expected = isInPlace && !isForced ? input?.stats : undefined
    const output = newFile({ path: fs.realpathSync(path), isReplacing: true, mode, expected })
    if (isInPlace) keepOwner(output.descriptor, stats)
    return output
  } catch (error) {
    throw outputFailure(name, error)
  }
}

const newFile = ({ mode, ...file }: Omit<NewFile, 'temporary'> & { readonly mode: number }): Output => {
  const { path } = file
  // A name may be as long as the file system takes: the temporary one has only its beginning.
  const temporary = join(
    dirname(path),
    `.${Array.from(basename(path)).slice(0, NAMED_LENGTH).join('')}.${randomBytes(6).toString('hex')}.tmp`,
  )
  const descriptor = fs.openSync(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode)
  return new Output(descriptor, path, { ...file, temporary })
}

const keepOwner = (descriptor: number, { mode, uid, gid }: fs.Stats): void => {
  try {
    fs.fchownSync(descriptor, uid, gid)
  } catch {
    // Only root may give a file away; whoever may replace it owns the new one then.
  }
  fs.fchmodSync(descriptor, mode & 0o777)
}

/** What to tell of a call that failed on `name`. */
export const outputFailure = (name: string, error: unknown): Error => {
  if (error instanceof KeyriseError) return error
  const code = systemCode(error)
  if (code === undefined) return error as Error
  return isBrokenPipe(code)
    ? new BrokenPipe()
    : new KeyriseError('ERR_FILE_UNWRITABLE', { detail: `${name} (${code})` })
}

export class Output implements Disposable {
  readonly descriptor: number
  readonly name: string
  readonly #file: NewFile | undefined
  #isOpen = true
  #isNamed = false

  constructor(descriptor: number, name: string, file?: NewFile) {
    this.descriptor = descriptor
    this.name = name
    this.#file = file
    if (file !== undefined) for (const signal of ENDING_SIGNALS) process.on(signal, this.#onSignal)
  }

  /** It takes bytes one behind the other only, and what it took is gone. */
  get isOrdered(): boolean {
    return this.#file === undefined
  }

  get isStandard(): boolean {
    return this.descriptor === 1
  }

  get isTerminal(): boolean {
    return this.isStandard && process.stdout.isTTY
  }

  /** Appends. @throws {KeyriseError} ERR_FILE_UNWRITABLE. @throws {BrokenPipe} */
  async write(bytes: Uint8Array): Promise<void> {
    if (!this.isOrdered) {
      this.#append(bytes)
      return
    }
    for (let done = 0; done < bytes.length;) {
      try {
        done += (await writePiece(this.descriptor, bytes, done, bytes.length - done)).bytesWritten
      } catch (error) {
        if (systemCode(error) !== 'EAGAIN') throw outputFailure(this.name, error)
        await setTimeout(BUSY_MS)
      }
    }
  }

  /** A file of ours never makes us wait. */
  #append(bytes: Uint8Array): void {
    try {
      writeAll(this.descriptor, bytes)
    } catch (error) {
      throw outputFailure(this.name, error)
    }
  }

  /** What was written to a file, to be read. */
  written(): Input {
    const stats = fs.fstatSync(this.descriptor)
    const { descriptor, name } = this
    return { descriptor, name, path: undefined, sizeBytes: stats.size, stats, [Symbol.dispose]: () => undefined }
  }

  /**
   * Gives a file its name: only now is there one.
   * @param isDurable - it survives a crash of the machine from here on.
   * @throws {KeyriseError} ERR_FILE_EXISTS: somebody else has made one meanwhile, or changed it; ERR_FILE_UNWRITABLE.
   */
  commit({ isDurable }: { readonly isDurable: boolean }): void {
    if (this.#file === undefined) return
    try {
      if (isDurable) fs.fsyncSync(this.descriptor)
      moveInto(this.#file)
      this.#isNamed = true
      if (isDurable) syncDirectory(dirname(this.#file.path))
    } catch (error) {
      throw outputFailure(this.name, error)
    }
  }

  /** Without `commit`, nothing is left of a file. */
  [Symbol.dispose](): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    for (const signal of ENDING_SIGNALS) process.off(signal, this.#onSignal)
    if (this.#file !== undefined && !this.#isNamed) fs.rmSync(this.#file.temporary, { force: true })
    if (!this.isStandard) fs.closeSync(this.descriptor)
  }

  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this[Symbol.dispose]()
    // With the handler gone it ends the process, as whoever sent it expects.
    process.kill(process.pid, signal)
  }
}

/** Never over a file that came or changed meanwhile, unless it is to be replaced whatever it is. */
const moveInto = ({ temporary, path, isReplacing, expected }: NewFile): void => {
  const present = expected && fs.statSync(path, { throwIfNoEntry: false })
  if (expected !== undefined && (present === undefined || !isUnchanged(present, expected)))
    throw new KeyriseError('ERR_FILE_EXISTS', { detail: `${path} was changed meanwhile, and is kept as it is` })
  if (!isReplacing) {
    try {
      fs.linkSync(temporary, path)
      fs.unlinkSync(temporary)
      return
    } catch (error) {
      if (systemCode(error) === 'EEXIST') throw new KeyriseError('ERR_FILE_EXISTS', { detail: path })
      if (!NO_LINKS.includes(systemCode(error))) throw error
    }
  }
  fs.renameSync(temporary, path)
}

const syncDirectory = (path: string): void => {
  const descriptor = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(descriptor)
  } finally {
    fs.closeSync(descriptor)
  }
}
