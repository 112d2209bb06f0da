import { closeSync, constants, fstatSync, openSync, read, type Stats } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { allocate } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { systemCode } from '../storage/failures.js'

/** Where a command reads from: a file, or standard input, which may be a pipe. */

export const STANDARD = '-'
const PIECE_SIZE = 1024 * 1024
const BUSY_MS = 5

const readPiece = promisify(read)

export interface Input extends Disposable {
  readonly descriptor: number
  /** As messages name it. */
  readonly name: string
  /** Undefined for standard input. */
  readonly path: string | undefined
  /** Undefined where it can only be read from its start to its end: a pipe, a terminal, standard input. */
  readonly sizeBytes: number | undefined
  readonly stats: Stats
}

/** @throws {KeyriseError} ERR_FILE_UNREADABLE. */
export const unreadable = (name: string, error: unknown): KeyriseError =>
  new KeyriseError('ERR_FILE_UNREADABLE', { detail: `${name} (${systemCode(error) ?? 'unknown'})`, cause: error })

/** @param path - `-` or undefined for standard input. @throws {KeyriseError} ERR_FILE_UNREADABLE. */
export const openInput = (path: string | undefined): Input => {
  const isStandard = path === undefined || path === STANDARD
  const name = isStandard ? 'standard input' : path
  try {
    const descriptor = isStandard ? 0 : openSync(path, constants.O_RDONLY)
    const stats = fstatSync(descriptor)
    // Node could open a directory, and would fail later.
    if (stats.isDirectory()) throw Object.assign(new Error(name), { code: 'EISDIR' })
    return {
      descriptor,
      name,
      path: isStandard ? undefined : path,
      // Standard input may be a file that is not at its start.
      sizeBytes: !isStandard && stats.isFile() ? stats.size : undefined,
      stats,
      [Symbol.dispose]: () => (isStandard ? undefined : closeSync(descriptor)),
    }
  } catch (error) {
    throw unreadable(name, error)
  }
}

/**
 * The input’s bytes from its start to its end; a file can be read again. A piece is valid until the next one is asked for, and
 * wiped at the end.
 * @throws {KeyriseError} ERR_FILE_UNREADABLE.
 */
export async function* piecesOf({ descriptor, name, sizeBytes }: Input): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = allocate(PIECE_SIZE)
  let position = 0
  try {
    for (;;) {
      const size = await readSome(descriptor, buffer, sizeBytes === undefined ? null : position).catch(
        (error: unknown) => {
          throw unreadable(name, error)
        },
      )
      if (size === 0) return
      yield buffer.subarray(0, size)
      position += size
    }
  } finally {
    buffer.fill(0)
  }
}

/**
 * Reads once, and waits for a pipe that does not block while it is empty.
 * @param position - null: where the last read ended.
 * @returns how many bytes; 0 at the end.
 * @throws Node’s own error, with `code`.
 */
export const readSome = async (descriptor: number, into: Uint8Array, position: number | null): Promise<number> => {
  for (;;) {
    try {
      return (await readPiece(descriptor, into, 0, into.length, position)).bytesRead
    } catch (error) {
      const code = systemCode(error)
      if (code === 'EOF') return 0
      if (code !== 'EAGAIN') throw error
      await setTimeout(BUSY_MS)
    }
  }
}
