import type { Socket } from 'node:net'

/** Descriptors that the platform gives to an enclave in a process of its own; 0 to 2 lead nowhere once the script is read. */
const DESCRIPTORS = { ecalls: 3, ocalls: 4, platform: 5, switchless: 6 } as const

/** What an enclave in a process of its own starts with. */
export interface ProcessStart {
  readonly isolation: 'process'
  /** What enclave/launched.ts reads. */
  readonly start: Uint8Array
  readonly ecalls: Socket
  readonly ocalls: Socket
  readonly platform: Socket
  /** ECALLs whose caller blocks its thread. */
  readonly switchless: Socket
}

/**
 * Reads the platform’s first words (`encodeStart`, in platform/process.ts), closes what else the process inherited, and opens the sockets, while there is still a way to Node’s modules: an image for both
 * levels must not make a worker load what only a process needs.
 */
export const startInProcess = (): ProcessStart => {
  const { closeSync, readSync } = process.getBuiltinModule('node:fs')
  const { Socket } = process.getBuiltinModule('node:net')
  const read = (sizeBytes: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(new ArrayBuffer(sizeBytes))
    for (let filled = 0; filled < sizeBytes;) {
      const count = readSync(DESCRIPTORS.platform, bytes, filled, sizeBytes - filled, null)
      // The platform is gone before it said what is to be done.
      if (count === 0) process.exit(0)
      filled += count
    }
    return bytes
  }
  const readNumbers = (count: number): number[] => {
    const bytes = new DataView(read(2 * count).buffer)
    return Array.from({ length: count }, (_, index) => bytes.getUint16(2 * index))
  }
  const [foreignCount = 0, sizeBytes = 0] = readNumbers(2)
  for (const descriptor of readNumbers(foreignCount)) closeSync(descriptor)
  const start = read(sizeBytes)
  const open = (fd: number): Socket => new Socket({ fd, readable: true, writable: true })
  return {
    isolation: 'process',
    start,
    ecalls: open(DESCRIPTORS.ecalls),
    ocalls: open(DESCRIPTORS.ocalls),
    platform: open(DESCRIPTORS.platform),
    switchless: open(DESCRIPTORS.switchless),
  }
}
