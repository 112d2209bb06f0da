import { open } from 'node:fs/promises'
import { BASE64_RUNS, DECIMAL_RUNS, HEX_RUNS, TextRuns, type Form } from './text-runs.js'

/**
 * Searches files for secrets, whole or in part, raw and in text forms. Text is decoded first and searched raw afterwards, so
 * that one table serves every form and every alignment.
 */

export interface KnownSecret {
  /** Public: it stands in the findings. */
  readonly name: string
  readonly bytes: Uint8Array
}

export interface Leak {
  readonly secret: string
  readonly path: string
  readonly form: Form
  /** Where in the file: of the copy if it is raw, near its end if it is text. */
  readonly offset: number
}

export interface ScanResult {
  /** One for each secret, file and form. */
  readonly leaks: readonly Leak[]
  readonly bytesScanned: number
  readonly filesScanned: number
  readonly secretsSearched: number
  /** Names of those that nothing tells from other data: shorter than a window, or monotonous throughout. */
  readonly unsearchable: readonly string[]
}

/** A find is one window of a secret. Windows overlap by half, so that any 23 bytes in a row hold a whole one. */
export const WINDOW_SIZE_BYTES = 16
const WINDOW_STEP_BYTES = 8
/** Zeros, or one number again and again, are everywhere. */
const DISTINCT_BYTES_MIN = 6
const CHUNK_SIZE_BYTES = 4 * 1024 * 1024

/**
 * @param paths - regular files.
 * @param secrets - borrowed; wipe them afterwards.
 */
export const scanForSecrets = async (
  paths: readonly string[],
  secrets: readonly KnownSecret[],
): Promise<ScanResult> => {
  const windows = new WindowTable()
  const unsearchable = secrets.filter((secret) => windows.add(secret) === 0).map(({ name }) => name)
  const leaks = new Map<string, Leak>()
  let bytesScanned = 0
  for (const path of paths) {
    bytesScanned += await scanFile(path, windows, (secret, form, offset) => {
      const key = [secret, path, form].join('\0')
      if (!leaks.has(key)) leaks.set(key, { secret, path, form, offset })
    })
  }
  const secretsSearched = secrets.length - unsearchable.length
  return { leaks: [...leaks.values()], bytesScanned, filesScanned: paths.length, secretsSearched, unsearchable }
}

type Found = (secret: string, form: Form, offset: number) => void

const scanFile = async (path: string, windows: WindowTable, found: Found): Promise<number> => {
  let position = 0
  const runs = [HEX_RUNS, BASE64_RUNS, DECIMAL_RUNS].map(
    (syntax) =>
      new TextRuns(syntax, (decoded) => {
        windows.search(decoded, (secret) => found(secret, syntax.form, position))
      }),
  )
  // A window that straddles two chunks: the end of one is kept in front of the next.
  const overlap = WINDOW_SIZE_BYTES - 1
  const buffer = new Uint8Array(overlap + CHUNK_SIZE_BYTES)
  let kept = 0
  await using file = await open(path, 'r')
  for (;;) {
    const { bytesRead } = await file.read(buffer, kept, CHUNK_SIZE_BYTES, position)
    if (bytesRead === 0) break
    const start = position - kept
    windows.search(buffer.subarray(0, kept + bytesRead), (secret, offset) => found(secret, 'raw', start + offset))
    position += bytesRead
    for (const run of runs) run.push(buffer.subarray(kept, kept + bytesRead))
    const end = kept + bytesRead
    kept = Math.min(overlap, end)
    buffer.copyWithin(0, end - kept, end)
  }
  for (const run of runs) run.end()
  return position
}

interface Window {
  readonly secret: string
  readonly bytes: Uint8Array
  /** Where in it the word is that it is found by. */
  readonly place: number
}

const WORD_SIZE_BYTES = 4
const PLACE_MIN = WINDOW_SIZE_BYTES - 2 * WORD_SIZE_BYTES + 1

/**
 * Finds parts of secrets in bytes. Of these only every fourth word is looked up: wherever a window lies, exactly one such word is
 * whole within its last seven bytes, and it is known by all four that this can be. A bitmap in front keeps the common case, no
 * such window, out of the map.
 */
export class WindowTable {
  readonly #bits = new Uint8Array(1 << 20)
  readonly #windows = new Map<number, Window[]>()

  /** @returns how many windows of the secret can be told from other data. */
  add({ name, bytes }: KnownSecret): number {
    let count = 0
    for (const offset of windowOffsets(bytes.length)) {
      const window = bytes.subarray(offset, offset + WINDOW_SIZE_BYTES)
      if (new Set(window).size < DISTINCT_BYTES_MIN) continue
      for (let place = PLACE_MIN; place < PLACE_MIN + WORD_SIZE_BYTES; place++)
        this.#index(wordAt(window, place), { secret: name, bytes: window, place })
      count++
    }
    return count
  }

  /** Calls `found` with the offset in `data` of each window that lies in it. */
  search(data: Uint8Array, found: (secret: string, offset: number) => void): void {
    const bits = this.#bits
    for (let position = 0; position + WORD_SIZE_BYTES <= data.length; position += WORD_SIZE_BYTES) {
      const word = wordAt(data, position)
      const slot = slotOf(word)
      if (((bits[slot >>> 3] as number) & (1 << (slot & 7))) === 0) continue
      for (const { secret, bytes, place } of this.#windows.get(word) ?? []) {
        const offset = position - place
        if (bytes.every((byte, at) => data[offset + at] === byte)) found(secret, offset)
      }
    }
  }

  #index(word: number, window: Window): void {
    const slot = slotOf(word)
    this.#bits[slot >>> 3] = (this.#bits[slot >>> 3] ?? 0) | (1 << (slot & 7))
    const known = this.#windows.get(word)
    if (known === undefined) this.#windows.set(word, [window])
    else known.push(window)
  }
}

const wordAt = (bytes: Uint8Array, offset: number): number =>
  ((bytes[offset] as number) << 24) |
  ((bytes[offset + 1] as number) << 16) |
  ((bytes[offset + 2] as number) << 8) |
  (bytes[offset + 3] as number)

/** A multiplicative hash to 23 bits (Knuth, vol. 3, §6.4). */
const slotOf = (word: number): number => Math.imul(word, 0x9e3779b1) >>> 9

/** Every step, and the last window even where it lies off the steps. */
const windowOffsets = (size: number): number[] => {
  const offsets: number[] = []
  for (let offset = 0; offset + WINDOW_SIZE_BYTES <= size; offset += WINDOW_STEP_BYTES) offsets.push(offset)
  const last = size - WINDOW_SIZE_BYTES
  if (last > 0 && last % WINDOW_STEP_BYTES !== 0) offsets.push(last)
  return offsets
}
