import type { FileSystem } from '../../protocol/ports.js'
import { changedFile, seenTree, type DiskImage } from '../../faults/disk.js'
import { MemoryFileSystem, type FileFault, type FileOperation } from '../../faults/index.js'

type FaultOf = (operation: FileOperation) => FileFault | undefined

export interface FaultyDisk {
  readonly fs: MemoryFileSystem
  readonly setFault: (next: FaultOf) => void
}

/** A disk in memory, sound until a fault is set. @param image - what it holds, durably. */
export const makeFaultyDisk = (image?: DiskImage): FaultyDisk => {
  let fault: FaultOf = () => undefined
  return {
    fs: new MemoryFileSystem((operation) => fault(operation), image && { image }),
    setFault: (next) => (fault = next),
  }
}

/** What a disk holds now. */
export const imageOf = ({ moment }: MemoryFileSystem): DiskImage => seenTree(moment, changedFile)

/** One way in which a machine can stop during some work. */
export interface Stop {
  readonly step: number
  readonly fault: 'stop-before' | 'stop-after'
  /** Whether what was not synced survives. */
  readonly isKept: boolean
}

/** Every such way, of work that takes `count` operations, one after the other: before the first of them, and after each. */
export const stopsWithin = (count: number): Stop[] => {
  const steps = Array.from({ length: count }, (_, step) => ({ step, fault: 'stop-after' as const }))
  return [{ step: 0, fault: 'stop-before' as const }, ...steps].flatMap((stop) =>
    [false, true].map((isKept) => ({ ...stop, isKept })),
  )
}

/** How many operations `work` takes on `fs`. */
export const countOperations = async (fs: MemoryFileSystem, work: () => Promise<unknown>): Promise<number> => {
  const before = fs.operationCount
  await work()
  return fs.operationCount - before
}

/** What `work` gives on a machine that stops in its course and starts again; undefined where it came to no end. */
export const stopAndRestart = async <T>(
  { fs, setFault }: FaultyDisk,
  { step, fault, isKept }: Stop,
  work: () => Promise<T>,
): Promise<T | undefined> => {
  const at = fs.operationCount + step
  setFault(({ index }) => (index === at ? fault : undefined))
  const made = await work().catch(() => undefined)
  setFault(() => undefined)
  fs.restart(() => isKept)
  return made
}

/** `fs`, in which `run` happens once, right before the `count`-th opening of `path`. */
export const interrupted = (fs: FileSystem, path: string, count: number, run: () => Promise<unknown>): FileSystem => ({
  open: async (opened, mode) => {
    if (opened === path && --count === 0) await run()
    return fs.open(opened, mode)
  },
  rename: (from, to) => fs.rename(from, to),
  unlink: (name) => fs.unlink(name),
  makeDirectory: (name) => fs.makeDirectory(name),
  list: (name) => fs.list(name),
  syncDirectory: (name) => fs.syncDirectory(name),
})
