import { Buffer } from 'node:buffer'
import { WindowTable } from './scan.js'

/** Looks for secrets in what passes by: raw, in hex, in base64 at any alignment, and as the numbers of JSON. */
export class LeakWatch {
  readonly #windows = new WindowTable()
  readonly #found = new Set<string>()

  /** @param bytes - 16 or more; borrowed. */
  add(name: string, bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes)
    const hex = buffer.toString('hex')
    const texts = [hex, hex.toUpperCase(), JSON.stringify([...bytes]).slice(1, -1)]
    // Of each alignment what does not depend on what stands before and behind.
    for (const offset of [0, 1, 2]) {
      const aligned = buffer.subarray(offset, bytes.length - ((bytes.length - offset) % 3))
      texts.push(aligned.toString('base64'), aligned.toString('base64url'))
    }
    this.#windows.add({ name, bytes: buffer })
    for (const text of texts) this.#windows.add({ name, bytes: Buffer.from(text) })
  }

  search(where: string, bytes: Uint8Array): void {
    this.#windows.search(bytes, (secret) => this.#found.add(`${secret} in ${where}`))
  }

  /** What was found since it was asked last. */
  take(): string[] {
    const found = [...this.#found]
    this.#found.clear()
    return found
  }
}
