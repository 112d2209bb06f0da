import { readSync, writeSync, writevSync } from 'node:fs'

/** Reading and writing all of something by descriptor, on any thread. Failures are Node’s own, with `code`. */

/** A pipe that its other end made non-blocking says EAGAIN while it is full, or empty. */
const BUSY_MS = 5
const pause = new Int32Array(new SharedArrayBuffer(4))

/** Runs `call` until it does not say EAGAIN. */
const patiently = (call: () => number): number => {
  for (;;) {
    try {
      return call()
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error
      Atomics.wait(pause, 0, 0, BUSY_MS)
    }
  }
}

/** Fills `into` from `position`; less only at the end. @returns how many bytes. */
export const readAt = (descriptor: number, into: Uint8Array, position: number): number => {
  let done = 0
  while (done < into.length) {
    const count = readSync(descriptor, into, done, into.length - done, position + done)
    if (count === 0) break
    done += count
  }
  return done
}

/** @param position - undefined: behind what was written before, as pipes want it. */
export const writeAll = (descriptor: number, bytes: Uint8Array, position?: number): void => {
  for (let done = 0; done < bytes.length;) {
    const at = position === undefined ? null : position + done
    done += patiently(() => writeSync(descriptor, bytes, done, bytes.length - done, at))
  }
}

/** As `writeAll`, of pieces one behind the other: by one call, where the system takes all of them at once. */
export const writePieces = (descriptor: number, pieces: readonly Uint8Array[], position?: number): void => {
  let written = patiently(() => writevSync(descriptor, pieces, position))
  let offset = 0
  for (const piece of pieces) {
    const done = Math.min(written, piece.length)
    if (done < piece.length)
      writeAll(descriptor, piece.subarray(done), position === undefined ? undefined : position + offset + done)
    written -= done
    offset += piece.length
  }
}
