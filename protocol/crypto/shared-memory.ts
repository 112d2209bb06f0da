/**
 * Fills the start of `into` with `bytes`, one of them or both in shared memory. V8 copies to and from shared memory word by word,
 * each one atomic, which took a sixth of a pool thread’s time; Node copies as C does. Nobody may write to either meanwhile.
 */
export const copyInto = (into: Uint8Array, bytes: Uint8Array): void => {
  if (bytes.length === 0) return
  // `fill` would repeat what is shorter, and cut what is longer.
  const [target, source] = [viewOf(into.subarray(0, bytes.length)), viewOf(bytes)]
  if (target.length !== source.length) throw new RangeError('Size of the output')
  target.fill(source)
}

const viewOf = ({ buffer, byteOffset, length }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, length)

/** Enclaves have no shared memory. */
const { SharedArrayBuffer: Shared } = globalThis as Partial<typeof globalThis>

export const isShared = ({ buffer }: Uint8Array): boolean => Shared !== undefined && buffer instanceof Shared
