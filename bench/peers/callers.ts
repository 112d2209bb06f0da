import type { Bytes } from '../../protocol/bytes.js'
import { expectEqual, randomBytes } from './files.js'

/** Somebody who carries bytes to another thread or process and brings them back: the work is to return them. */
export interface Caller extends AsyncDisposable {
  readonly name: string
  /** Answers with the same bytes, in memory of their own. Any number of calls may be in flight. */
  readonly call: (bytes: Bytes) => Promise<Uint8Array>
}

/** Settles promises by the number of their call: what every caller over a bare port keeps. */
export class PendingCalls {
  readonly #resolvers = new Map<number, (bytes: Uint8Array) => void>()
  #count = 0

  /** @param post - sends the call under its number. */
  make(post: (id: number) => void): Promise<Uint8Array> {
    return new Promise((resolve) => {
      const id = this.#count++
      this.#resolvers.set(id, resolve)
      post(id)
    })
  }

  settle(id: number, bytes: Uint8Array): void {
    const resolve = this.#resolvers.get(id)
    this.#resolvers.delete(id)
    resolve?.(bytes)
  }
}

/** @throws {Error} when an answer differs from what was sent: a fast answer that is wrong counts nothing. */
export const verifyCaller = async ({ name, call }: Caller, sizeBytes: number): Promise<void> => {
  const sent = Array.from({ length: 4 }, () => randomBytes(sizeBytes))
  const answers = await Promise.all(sent.map((bytes) => call(bytes)))
  for (const [index, bytes] of sent.entries()) expectEqual(name, answers[index] ?? new Uint8Array(0), bytes)
}
