import {
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'

/**
 * Linux lets nobody read a process, dump it or attach to it, its own user included, that was made from a file which that
 * user may execute and not read (execve(2), prctl(2) PR_SET_DUMPABLE). Any program is started by the dynamic loader, which is
 * a small program of its own: a copy of it with mode 0111 that starts `node` makes such a process.
 */
export class LoaderFile {
  readonly #path: string
  readonly #interpreter: string
  #copied = ''

  private constructor(directory: string, interpreter: string) {
    this.#path = join(directory, 'loader')
    this.#interpreter = interpreter
  }

  /** Undefined where it cannot be had: `program` has no loader, or files in `directory` cannot be executed. */
  static in(directory: string, program: string): LoaderFile | undefined {
    try {
      const interpreter = interpreterOf(program)
      if (interpreter === undefined) return undefined
      const loader = new LoaderFile(directory, interpreter)
      return spawnSync(loader.path(), ['--version'], { stdio: 'ignore' }).error === undefined ? loader : undefined
    } catch {
      return undefined
    }
  }

  /** The copy, made again where the system's own has changed since: an older loader does not start newer libraries. */
  path(): string {
    const { ino, mtimeMs, size } = statSync(this.#interpreter)
    const identity = [ino, mtimeMs, size].join()
    if (this.#copied !== identity) this.#copy()
    this.#copied = identity
    return this.#path
  }

  #copy(): void {
    const temporary = `${this.#path}.${randomUUID()}.tmp`
    try {
      writeFileSync(temporary, readFileSync(this.#interpreter), { mode: 0o700, flag: 'wx' })
      chmodSync(temporary, 0o111)
      renameSync(temporary, this.#path)
    } finally {
      rmSync(temporary, { force: true })
    }
  }
}

/** ELF-64 and ELF-32, both byte orders: offsets of what is read here. System V ABI, "ELF header" and "Program header". */
const LAYOUTS = {
  64: { tableOffset: 0x20, entrySize: 0x36, entryCount: 0x38, segmentOffset: 0x08, segmentSize: 0x20 },
  32: { tableOffset: 0x1c, entrySize: 0x2a, entryCount: 0x2c, segmentOffset: 0x04, segmentSize: 0x10 },
} as const
const SEGMENT_TYPE_INTERPRETER = 3
const HEADER_SIZE_BYTES = 4096

/** The path of the loader that an executable names; undefined where it names none, or is no ELF file. */
const interpreterOf = (program: string): string | undefined => {
  const header = new DataView(new ArrayBuffer(HEADER_SIZE_BYTES))
  const file = openSync(program, 'r')
  try {
    readSync(file, header, 0, HEADER_SIZE_BYTES, 0)
  } finally {
    closeSync(file)
  }
  if (header.getUint32(0) !== 0x7f454c46) return undefined
  const isWide = header.getUint8(4) === 2
  const isLittle = header.getUint8(5) === 1
  const layout = LAYOUTS[isWide ? 64 : 32]
  const word = (at: number): number =>
    isWide ? Number(header.getBigUint64(at, isLittle)) : header.getUint32(at, isLittle)
  const entrySize = header.getUint16(layout.entrySize, isLittle)
  for (let index = 0; index < header.getUint16(layout.entryCount, isLittle); index++) {
    const at = word(layout.tableOffset) + index * entrySize
    if (header.getUint32(at, isLittle) !== SEGMENT_TYPE_INTERPRETER) continue
    const [offset, size] = [word(at + layout.segmentOffset), word(at + layout.segmentSize)]
    return Buffer.from(header.buffer, offset, size - 1).toString()
  }
  return undefined
}
