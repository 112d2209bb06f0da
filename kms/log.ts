import { join } from 'node:path'
import type { Bytes } from '../protocol/bytes.js'
import { encodeCbor } from '../protocol/cbor.js'
import { KeyriseError } from '../protocol/errors.js'
import type { FileSystem, OpenFile } from '../protocol/ports.js'
import { linkAfter, type ReceiptLink } from '../protocol/receipts.js'
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
export const LOG_SIZE_BYTES_MAX = 1024 * 1024 * 1024
/** Room for a record’s CBOR head, and the list’s. */
const RECORD_HEAD_BYTES_MAX = 16

/**
 * Makes a receipt for its place in the chain, with its signature. A receipt that was not written after all is made again, or
 * another is in its place: so this is asked as it is written, perhaps more than once.
 */
export type MakeReceipt = (link: ReceiptLink) => Bytes

/** What is appended at once, in one frame. */
export interface Entry {
  readonly record?: Uint8Array | undefined
  /** Stands behind the record. */
  readonly receipt?: MakeReceipt | undefined
  /** Called while it is being synced: for work that need not wait. Must not throw. */
  readonly meanwhile?: (() => void) | undefined
}

interface Pending extends Entry {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** Records that go into one frame, and the place of the receipt after them. */
interface Batch {
  readonly entries: readonly Pending[]
  readonly records: readonly Uint8Array[]
  readonly link: ReceiptLink
}

/** A receipt as a record. */
export const encodeReceiptRecord = (receipt: Bytes): Bytes => encodeCbor(['receipt', receipt])

/** An append-only file of records, in hash-chained frames (log-frames.ts). One process writes to it. */
export class AppendLog {
  readonly #file: OpenFile
  readonly #path: string
  #end: LogEnd
  /** Where the next receipt stands. */
  #link: ReceiptLink
  readonly #pending: Pending[] = []
  #flushing: Promise<void> | undefined
  /** Set for good when the file’s content is no longer known. */
  #failure: KeyriseError | undefined

  private constructor(file: OpenFile, path: string, end: LogEnd, link: ReceiptLink) {
    this.#file = file
    this.#path = path
    this.#end = end
    this.#link = link
  }

  /** Writes a new log that holds `first`: one durable rename, so a log is never without it. Replaces a file of the name. */
  static async create(fs: FileSystem, directory: string, name: string, first: readonly Uint8Array[]): Promise<void> {
    await publish(fs, directory, name, encodeFrame(LOG_START, first).frame)
  }

  /** The records of a log, verified; the file stays untouched. Undefined where there is none. @throws {KeyriseError} as `open`. */
  static async read(fs: FileSystem, directory: string, name: string): Promise<Bytes[] | undefined> {
    const bytes = await readWhole(fs, join(directory, name), LOG_SIZE_BYTES_MAX)
    return bytes && decodeLog(bytes).records
  }

  /**
   * Opens a log and verifies all of it. A last frame that a crash cut short, and that nobody was told is durable, is removed.
   * @param read - what its records say, and where the next receipt stands. Nothing is written where it throws.
   * @returns undefined where there is no file. @throws {KeyriseError} ERR_LEDGER_DAMAGED, ERR_STORE_*.
   */
  static async open<T extends { readonly link: ReceiptLink }>(
    fs: FileSystem,
    directory: string,
    name: string,
    read: (records: readonly Bytes[]) => T,
  ): Promise<{ log: AppendLog; contents: T } | undefined> {
    const path = join(directory, name)
    const bytes = await readWhole(fs, path, LOG_SIZE_BYTES_MAX)
    if (bytes === undefined) return undefined
    const { records, end } = decodeLog(bytes)
    const contents = read(records)
    try {
      const file = await fs.open(path, 'update')
      if (end.size < bytes.length) await file.truncate(end.size)
      // An fsync that failed in an earlier process leaves a last frame that can be read, and that no later fsync writes.
      const last = Math.max(0, end.size - FRAME_SIZE_BYTES_MAX)
      await writeAll(file, bytes.subarray(last, end.size), last)
      await syncFile(file)
      return { log: new AppendLog(file, path, end, contents.link), contents }
    } catch (error) {
      throw storeError(error, path)
    }
  }

  /**
   * Durable when it resolves; entries of one moment share one write and one fsync, in order.
   * @throws {KeyriseError} ERR_STORE_FULL: nothing was written, a later append may succeed. ERR_STORE_IO,
   * ERR_LEDGER_DAMAGED: final, whether it was written is unknown until the log is opened anew. What `receipt` throws.
   */
  append(entry: Entry): Promise<void> {
    if ((entry.record?.length ?? 0) > LOG_RECORD_SIZE_BYTES_MAX)
      return Promise.reject(new KeyriseError('ERR_SIZE_LIMIT', { detail: 'a ledger record' }))
    return new Promise((resolve, reject) => {
      this.#pending.push({ ...entry, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  /** Of what is durable. */
  get sizeBytes(): number {
    return this.#end.size
  }

  /** Receipts that are durable. */
  get receiptCount(): number {
    return this.#link.sequence - 1
  }

  /** Whether it takes no entry any more. */
  get hasFailed(): boolean {
    return this.#failure !== undefined
  }

  /** Resolves when no other process has written to the log since. @throws {KeyriseError} ERR_LEDGER_TAKEN, ERR_LEDGER_DAMAGED, ERR_STORE_IO. */
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
        for (const { resolve } of batch.entries) resolve()
      } catch (error) {
        // What waits was decided on what has now failed.
        for (const { reject } of [...batch.entries, ...this.#pending.splice(0)]) reject(error)
      }
    }
    this.#flushing = undefined
  }

  /** As many of the waiting entries as fit a frame; at least one, where its receipt can be made. */
  #takeBatch(): Batch {
    const entries: Pending[] = []
    const records: Uint8Array[] = []
    let [link, sizeBytes] = [this.#link, RECORD_HEAD_BYTES_MAX]
    for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
      const made = makeRecords(next, link)
      if (made !== undefined) {
        for (const record of made.records) sizeBytes += RECORD_HEAD_BYTES_MAX + record.length
        if (entries.length > 0 && sizeBytes > FRAME_BODY_SIZE_BYTES_MAX) break
        entries.push(next)
        records.push(...made.records)
        link = made.link
      }
      this.#pending.shift()
    }
    return { entries, records, link }
  }

  async #write({ entries, records, link }: Batch): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    if (records.length === 0) return
    const { frame, end } = encodeFrame(this.#end, records)
    if (end.size > LOG_SIZE_BYTES_MAX)
      throw new KeyriseError('ERR_STORE_FULL', { detail: 'the ledger has reached its limit' })
    await this.#checkSize()
    try {
      await writeAll(this.#file, frame, this.#end.size)
      const synced = syncFile(this.#file)
      for (const { meanwhile } of entries) meanwhile?.()
      await synced
    } catch (error) {
      await this.#retreat(error)
      throw storeError(error, this.#path)
    }
    this.#end = end
    this.#link = link
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
    if (size > this.#end.size) throw (this.#failure ??= new KeyriseError('ERR_LEDGER_TAKEN'))
    if (size < this.#end.size)
      throw (this.#failure ??= new KeyriseError('ERR_LEDGER_DAMAGED', { detail: 'its end is gone' }))
  }
}

/** The records of an entry, and the place of the receipt after it; undefined, and the entry rejected, where its receipt cannot be made. */
const makeRecords = (
  { record, receipt: make, reject }: Pending,
  link: ReceiptLink,
): { records: Uint8Array[]; link: ReceiptLink } | undefined => {
  const records = record === undefined ? [] : [record]
  if (make === undefined) return { records, link }
  try {
    const receipt = make(link)
    return { records: [...records, encodeReceiptRecord(receipt)], link: linkAfter(receipt, link) }
  } catch (error) {
    reject(error)
    return undefined
  }
}
