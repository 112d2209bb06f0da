import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'

const CHUNK_SIZE_BYTES = 4 * 1024 * 1024

/**
 * Copies what a process can write to in its memory to a file, so that it can be searched once the key is known.
 * @param pid - or `self`. @throws {Error} EACCES or EPERM where the kernel denies it. @returns how many bytes there are.
 */
export const dumpMemory = (pid: number | 'self', path: string): number => {
  const maps = readFileSync(`/proc/${pid}/maps`, 'latin1')
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  const file = openSync(path, 'w')
  const chunk = Buffer.alloc(CHUNK_SIZE_BYTES)
  let sizeBytes = 0
  try {
    for (const line of maps.split('\n')) {
      const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line)
      const end = Number.parseInt(range?.[2] ?? '0', 16)
      for (let start = Number.parseInt(range?.[1] ?? '0', 16); start < end; start += CHUNK_SIZE_BYTES) {
        const count = tryRead(memory, chunk, Math.min(CHUNK_SIZE_BYTES, end - start), start)
        sizeBytes += writeSync(file, chunk, 0, count)
      }
    }
  } finally {
    closeSync(file)
    closeSync(memory)
  }
  if (sizeBytes === 0) throw Object.assign(new Error('nothing can be read'), { code: 'EACCES' })
  return sizeBytes
}

/** Some ranges are the kernel’s. */
const tryRead = (memory: number, chunk: Buffer, sizeBytes: number, position: number): number => {
  try {
    return readSync(memory, chunk, 0, sizeBytes, position)
  } catch {
    return 0
  }
}
