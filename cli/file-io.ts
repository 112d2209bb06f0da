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

/** Writes behind what was written before. */
export const writeAll = (descriptor: number, bytes: Uint8Array): void => {
  for (let done = 0; done < bytes.length;)
    done += patiently(() => writeSync(descriptor, bytes, done, bytes.length - done))
}

/** As `writeAll`, of pieces one behind the other: by one call, where the system takes all of them at once. */
export const writePieces = (descriptor: number, pieces: readonly Uint8Array[]): void => {
  let written = patiently(() => writevSync(descriptor, pieces))
  for (const piece of pieces) {
    const done = Math.min(written, piece.length)
    writeAll(descriptor, piece.subarray(done))
    written -= done
  }
}
