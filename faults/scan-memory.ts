import { open, readFile, type FileHandle } from 'node:fs/promises'
import { WindowTable, WINDOW_SIZE_BYTES, type KnownSecret } from './scan.js'

/**
 * Searches the memory of a running process for secrets, whole or in part, from another process: Linux only, and for whoever may
 * trace that process (the same user where it is dumpable and Yama permits, or root).
 */

/** `reversed` is how an engine keeps the digits of a BigInt. */
const FORMS = {
  raw: (bytes: Buffer) => [bytes],
  reversed: (bytes: Buffer) => [Buffer.from(bytes).reverse()],
  hex: (bytes: Buffer) => [Buffer.from(bytes.toString('hex')), Buffer.from(bytes.toString('hex').toUpperCase())],
  // At each of the three places in a group that the first byte may have.
  base64: (bytes: Buffer) => [0, 1, 2].map((skipped) => Buffer.from(bytes.subarray(skipped).toString('base64'))),
}
type MemoryForm = keyof typeof FORMS

export interface MemoryLeak {
  readonly secret: string
  readonly form: MemoryForm
  /** How many windows of it were found, in all copies. */
  readonly count: number
  /** Of the first. */
  readonly address: number
  /** As /proc/PID/maps names it: `[heap]`, a file, or nothing. */
  readonly region: string
}

export interface MemoryScan {
  /** One for each secret and form. */
  readonly leaks: readonly MemoryLeak[]
  readonly bytesScanned: number
}

interface Region {
  readonly start: number
  readonly end: number
  readonly name: string
}

const CHUNK_SIZE_BYTES = 4 * 1024 * 1024
const PAGE_SIZE_BYTES = 4096
const PAGEMAP_ENTRY_SIZE_BYTES = 8
/** Bits 63 and 62 of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst): in memory, or swapped out. */
const TOUCHED_BITS = 0xc0

/**
 * Reads every page that the process has written or could have: what is mapped from a file and cannot be written is left out.
 * @param secrets - borrowed; wipe them afterwards.
 * @throws the error of the operating system: EACCES or EPERM where this process may not, ENOENT where there is none such.
 */
export const scanMemory = async (pid: number, secrets: readonly KnownSecret[]): Promise<MemoryScan> => {
  const table = new WindowTable()
  for (const { name, bytes } of secrets)
    for (const [form, make] of Object.entries(FORMS))
      for (const made of make(Buffer.from(bytes))) table.add({ name: JSON.stringify([name, form]), bytes: made })
  const leaks = new Map<string, MemoryLeak>()
  let bytesScanned = 0
  await using memory = await open(`/proc/${String(pid)}/mem`)
  await using pagemap = await open(`/proc/${String(pid)}/pagemap`)
  for (const region of await readRegions(pid)) {
    for (const [start, end] of await touchedRuns(pagemap, region)) {
      bytesScanned += await scanRun(memory, { ...region, start, end }, table, (key, address) => {
        const [secret, form] = JSON.parse(key) as [string, MemoryForm]
        const known = leaks.get(key)
        leaks.set(key, { address, region: region.name, ...known, secret, form, count: (known?.count ?? 0) + 1 })
      })
    }
  }
  return { leaks: [...leaks.values()], bytesScanned }
}

/** `7f00…-7f01… rw-p 00000000 00:00 0   name` */
const MAPS_LINE = /^([0-9a-f]+)-([0-9a-f]+) (r)(.)..\s+\S+\s+\S+\s+(\d+)\s*(.*)$/

const readRegions = async (pid: number): Promise<Region[]> => {
  const maps = await readFile(`/proc/${String(pid)}/maps`, 'utf8')
  return maps.split('\n').flatMap((line) => {
    const [, start, end, , write, inode, name = ''] = MAPS_LINE.exec(line) ?? []
    // The kernel’s own pages cannot be read so; their names start with [v.
    if (start === undefined || end === undefined || name.startsWith('[v')) return []
    if (write !== 'w' && inode !== '0') return []
    return [{ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), name }]
  })
}

/** The parts of a region that have pages: most of what an engine maps it never touches. */
const touchedRuns = async (pagemap: FileHandle, { start, end }: Region): Promise<[number, number][]> => {
  const count = (end - start) / PAGE_SIZE_BYTES
  const entries = Buffer.alloc(count * PAGEMAP_ENTRY_SIZE_BYTES)
  await pagemap.read(entries, 0, entries.length, (start / PAGE_SIZE_BYTES) * PAGEMAP_ENTRY_SIZE_BYTES)
  const runs: [number, number][] = []
  for (let page = 0; page < count; page++) {
    if (((entries[page * PAGEMAP_ENTRY_SIZE_BYTES + 7] as number) & TOUCHED_BITS) === 0) continue
    const address = start + page * PAGE_SIZE_BYTES
    const last = runs.at(-1)
    if (last?.[1] === address) last[1] += PAGE_SIZE_BYTES
    else runs.push([address, address + PAGE_SIZE_BYTES])
  }
  return runs
}

type Found = (secret: string, address: number) => void

/** @returns how many bytes could be read: a region may be unmapped meanwhile. */
const scanRun = async (
  memory: FileHandle,
  { start, end }: Region,
  table: WindowTable,
  found: Found,
): Promise<number> => {
  const overlap = WINDOW_SIZE_BYTES - 1
  const buffer = Buffer.alloc(Math.min(CHUNK_SIZE_BYTES, end - start) + overlap)
  let [position, kept] = [start, 0]
  while (position < end) {
    const size = Math.min(CHUNK_SIZE_BYTES, end - position)
    const bytesRead = await memory.read(buffer, kept, size, position).then(
      (read) => read.bytesRead,
      () => 0,
    )
    if (bytesRead === 0) break
    const origin = position - kept
    for (const [from, to] of nonZeroRuns(buffer.subarray(0, kept + bytesRead)))
      table.search(buffer.subarray(from, to), (secret, offset) => found(secret, origin + from + offset))
    position += bytesRead
    // A window that straddles two chunks: the end of one is kept in front of the next.
    const filled = kept + bytesRead
    kept = Math.min(overlap, filled)
    buffer.copyWithin(0, filled - kept, filled)
  }
  return position - start
}

const ZERO_PAGE = Buffer.alloc(PAGE_SIZE_BYTES)

/** The parts without pages of zeroes, of which there are many: what was wiped, and what was never used. */
const nonZeroRuns = (bytes: Buffer): [number, number][] => {
  const runs: [number, number][] = []
  for (let from = 0; from < bytes.length; from += PAGE_SIZE_BYTES) {
    const to = Math.min(bytes.length, from + PAGE_SIZE_BYTES)
    if (bytes.compare(ZERO_PAGE, 0, to - from, from, to) === 0) continue
    const last = runs.at(-1)
    if (last?.[1] === from) last[1] = to
    else runs.push([from, to])
  }
  return runs
}
