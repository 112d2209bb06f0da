import { join } from 'node:path'
import type { Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FileSystem, OpenFile } from '../protocol/ports.js'
import { publish, readWhole, storeError, syncFile, SyncFailure, writeAll } from '../storage/index.js'
import {
  decodeLog,
  encodeFrame,
  FRAME_BODY_SIZE_BYTES_MAX,
  FRAME_SIZE_BYTES_MAX,
  LOG_START,
  type LogEnd,
} from './log-frames.js'

/** Several fit one frame. */
const LOG_RECORD_SIZE_BYTES_MAX = 32 * 1024
/** A log is read whole at start; an append that would exceed this is refused. */
const LOG_SIZE_BYTES_MAX = 1024 * 1024 * 1024
/** Room for a record’s CBOR head, and the list’s. */
const RECORD_HEAD_BYTES_MAX = 16

interface Pending {
  readonly record: Uint8Array
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** An append-only file of records, in hash-chained frames (log-frames.ts). One process writes to it. */
export class AppendLog {
  readonly #file: OpenFile
  readonly #path: string
  #end: LogEnd
  readonly #pending: Pending[] = []
  #flushing: Promise<void> | undefined
  /** Set for good when the file’s content is no longer known. */
  #failure: KeyriseError | undefined

  private constructor(file: OpenFile, path: string, end: LogEnd) {
    this.#file = file
    this.#path = path
    this.#end = end
  }

  /** Writes a new log that holds `first`: one durable rename, so a log is never without it. Replaces a file of the name. */
  static async create(fs: FileSystem, directory: string, name: string, first: Uint8Array): Promise<void> {
    await publish(fs, directory, name, encodeFrame(LOG_START, [first]).frame)
  }

  /** The records of a log, verified; the file stays untouched. Undefined where there is none. @throws {KeyriseError} as `open`. */
  static async read(fs: FileSystem, directory: string, name: string): Promise<Bytes[] | undefined> {
    const bytes = await readWhole(fs, join(directory, name), LOG_SIZE_BYTES_MAX)
    return bytes && decodeLog(bytes).records
  }

  /**
   * Opens a log and verifies all of it. A last frame that a crash cut short, and that nobody was told is durable, is removed.
   * @returns undefined where there is no file. @throws {KeyriseError} ERR_LEDGER_DAMAGED, ERR_STORE_*.
   */
  static async open(
    fs: FileSystem,
    directory: string,
    name: string,
  ): Promise<{ log: AppendLog; records: Bytes[] } | undefined> {
    const path = join(directory, name)
    const bytes = await readWhole(fs, path, LOG_SIZE_BYTES_MAX)
    if (bytes === undefined) return undefined
    const { records, end } = decodeLog(bytes)
    try {
      const file = await fs.open(path, 'update')
      if (end.size < bytes.length) await file.truncate(end.size)
      // An fsync that failed in an earlier process leaves a last frame that can be read, and that no later fsync writes.
      const last = Math.max(0, end.size - FRAME_SIZE_BYTES_MAX)
      await writeAll(file, bytes.subarray(last, end.size), last)
      await syncFile(file)
      return { log: new AppendLog(file, path, end), records }
    } catch (error) {
      throw storeError(error, path)
    }
  }

  /**
   * Durable when it resolves; records of one moment share one write and one fsync, in order.
   * @throws {KeyriseError} ERR_STORE_FULL: nothing was written, a later append may succeed. ERR_STORE_IO,
   * ERR_LEDGER_DAMAGED: final, whether it was written is unknown until the log is opened anew.
   */
  append(record: Uint8Array): Promise<void> {
    if (record.length > LOG_RECORD_SIZE_BYTES_MAX)
      return Promise.reject(new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a ledger record' }))
    return new Promise((resolve, reject) => {
      this.#pending.push({ record, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  /** Resolves when no other process has written to the log since. @throws {KeyriseError} ERR_LEDGER_DAMAGED, ERR_STORE_IO. */
  async confirm(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    // A flush under way makes this check itself.
    if (this.#flushing === undefined) await this.#checkSize()
  }

  async close(): Promise<void> {
    await this.#flushing
    this.#failure ??= new KeyriseError('ERR_STORE_IO', { detail: 'the ledger is closed' })
    await this.#file.close()
  }

  async #flush(): Promise<void> {
    // One turn later, so that the records of this moment come along.
    await Promise.resolve()
    while (this.#pending.length > 0) {
      const batch = this.#takeBatch()
      try {
        await this.#write(batch)
        for (const { resolve } of batch) resolve()
      } catch (error) {
        // What waits was decided on what has now failed.
        for (const { reject } of [...batch, ...this.#pending.splice(0)]) reject(error)
      }
    }
    this.#flushing = undefined
  }

  /** As many of the waiting records as fit a frame; at least one. */
  #takeBatch(): Pending[] {
    let size = RECORD_HEAD_BYTES_MAX
    const count = this.#pending.findIndex(
      ({ record }) => (size += RECORD_HEAD_BYTES_MAX + record.length) > FRAME_BODY_SIZE_BYTES_MAX,
    )
    return this.#pending.splice(0, count === -1 ? this.#pending.length : count)
  }

  async #write(batch: readonly Pending[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    const { frame, end } = encodeFrame(
      this.#end,
      batch.map(({ record }) => record),
    )
    if (end.size > LOG_SIZE_BYTES_MAX)
      throw new KeyriseError('ERR_STORE_FULL', { detail: 'the ledger has reached its limit' })
    await this.#checkSize()
    try {
      await writeAll(this.#file, frame, this.#end.size)
      await syncFile(this.#file)
    } catch (error) {
      await this.#retreat(error)
      throw storeError(error, this.#path)
    }
    this.#end = end
  }

  /** After a failed write, back to the last durable end. Where that fails, or an fsync did, the content is unknown for good. */
  async #retreat(cause: unknown): Promise<void> {
    try {
      if (cause instanceof SyncFailure) throw cause
      await this.#file.truncate(this.#end.size)
      await syncFile(this.#file)
    } catch (error) {
      this.#failure = storeError(error, this.#path)
    }
  }

  /** Two processes on one log would each show states that the other has left behind: the older one stops here. */
  async #checkSize(): Promise<void> {
    let size: number
    try {
      size = await this.#file.size()
    } catch (error) {
      throw (this.#failure ??= storeError(error, this.#path))
    }
    if (size !== this.#end.size)
      throw (this.#failure ??= new KeyriseError('ERR_LEDGER_DAMAGED', { detail: 'another process has written to it' }))
  }
}
