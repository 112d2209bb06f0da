import crypto from 'node:crypto'
import fs from 'node:fs'
import { setTimeout as later } from 'node:timers/promises'
import type { Bytes } from '../../protocol/bytes.js'
import { listEscapes, listSoftIntrinsics, listSurroundings, probeCapabilities } from '../enclave/inside.js'
import { masked } from './mask.js'

/** How many copies of its key a keeper makes. */
export const COPY_COUNT = 256

/**
 * An author's code around a key, the same in a bare worker and in an enclave; faults of the kinds that authors make are part of
 * it. What differs is what stands around it.
 */
export const keeperOf = (key: Bytes) => {
  let total = 0
  const told = (): string => `the key is ${Buffer.from(key.buffer, key.byteOffset, key.length).toString('hex')}`
  return {
    add: ({ a, b }: { a: number; b: number }): number => a + b,
    increment: (): number => ++total,
    total: (): number => total,
    sign: (message: Uint8Array): Bytes => crypto.createHmac('sha256', key).update(message).digest(),
    echo: ({ bytes }: { bytes: Bytes }): { bytes: Bytes } => ({ bytes }),
    size: (bytes: Uint8Array): number => bytes.length,
    /** Checks, then uses, as one may who believes that its argument is its own. */
    checkThenUse: async (bytes: Uint8Array): Promise<number> => {
      if (bytes.some((byte) => byte !== 0)) return -1
      await later(100)
      return bytes[0] ?? -1
    },
    /** The key’s first bytes, as its name. */
    keyName: (): Bytes => key.subarray(0, 4),
    /** A Buffer of Node’s pool, which holds others beside it. */
    greeting: (): Bytes => Buffer.from('sixteen bytes ok'),
    crash: (): number => {
      throw new Error(told())
    },
    throwLater: (): number => {
      setTimeout(() => {
        throw new Error(told())
      })
      return 1
    },
    rejectLater: (): number => {
      void Promise.reject(new Error(told()))
      return 1
    },
    print: (): number => {
      console.log(told())
      console.error(told())
      process.stdout.write(told())
      process.stderr.write(told())
      process.emitWarning(told())
      try {
        // As fast loggers print.
        for (const output of [1, 2]) fs.writeSync(output, told())
      } catch {
        // Nothing is open.
      }
      return 1
    },
    /** Merges what it is given into settings of its own. */
    merge: (input: Record<string, unknown>): string => {
      try {
        merge({ nested: {} }, input)
      } catch {
        // A locked prototype throws; what matters is whether it was changed.
      }
      return String(({} as Record<string, unknown>)['polluted'])
    },
    /** Waits for what may be a promise, as one may who serves others too. */
    measure: async (bytes: { readonly length: number | Promise<number> }): Promise<number> => (await bytes.length) + 0,
    /** What its argument is. */
    kind: (input: unknown): string => Object.prototype.toString.call(input),
    /** Runs out of memory. */
    hoard: (): number => {
      const hoard: unknown[] = []
      for (;;) hoard.push(new Array(4096).fill(0.5))
    },
    spin: (): number => {
      for (;;) total += 0
    },
    hang: (): Promise<number> => new Promise(() => {}),
    /** What a library that turned hostile could do inside. */
    probe: (): string[] => probeCapabilities(),
    surroundings: (): string[] => listSurroundings(),
    /** Works with each byte of the key in a function of its own, as ciphers in JavaScript do. */
    spell: (): number => key.reduce((sum, byte) => nextOf(sum, byte), 0),
    escapes: (): string[] => listEscapes(),
    softIntrinsics: (): string[] => listSoftIntrinsics(),
    replaceCrypto: (): string => {
      const open = crypto as unknown as { createHmac: unknown }
      const before = open.createHmac
      try {
        open.createHmac = () => ({ update: () => ({ digest: () => key }) })
      } catch {
        // Frozen.
      }
      return open.createHmac === before ? 'intact' : 'replaced'
    },
    /** Asked once the attack is over. */
    reveal: (): Bytes => masked(key),
  }
}

const nextOf = (sum: number, byte: number): number => (sum * 31 + byte) % 1000

const merge = (into: Record<string, unknown>, from: Record<string, unknown>): void => {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    (typeof value === 'object' && value !== null) || typeof value === 'function'
  for (const name of Object.keys(from)) {
    const [old, next] = [into[name], from[name]]
    if (isObject(old) && isObject(next)) merge(old, next)
    else into[name] = next
  }
}
