import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Instance, Platform } from '../platform/platform.js'
import type { KmsLink, Port, Store } from '../protocol/ports.js'
import { aroundKms, aroundStore, type Around } from './around.js'

/**
 * Spools every message that crosses a boundary into files, for a search for secrets afterwards: between host and enclave
 * (both directions), host and store, host and KMS. Byte arrays are written raw, with all of the buffer that they lie in,
 * since that is what the other side gets; strings as UTF-8; numbers in decimal, with commas between, as JSON has them.
 */
export class Recorder implements Disposable {
  readonly #directory: string
  readonly #files = new Map<string, number>()
  #messageCount = 0
  #sizeBytes = 0

  /** @param directory - made where it is missing; one file for each boundary appears in it. */
  constructor(directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    this.#directory = directory
  }

  get files(): readonly string[] {
    return [...this.#files.keys()]
  }

  get messageCount(): number {
    return this.#messageCount
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  platform(platform: Platform): Platform {
    return {
      publicKey: platform.publicKey,
      launch: (image, options) => {
        const instance: Instance = platform.launch(image, options)
        return {
          ecalls: this.#port('ecalls', instance.ecalls),
          ocalls: this.#port('ocalls', instance.ocalls),
          exited: instance.exited,
          terminate: () => instance.terminate(),
          kill: () => instance.kill(),
        }
      },
    }
  }

  store(store: Store): Store {
    return aroundStore(store, this.#around('store'))
  }

  kms(kms: KmsLink): KmsLink {
    return aroundKms(kms, this.#around('kms'))
  }

  /** Adds a message of another boundary, one's own transport say. */
  record(boundary: string, message: unknown): void {
    const path = join(this.#directory, `${boundary}.messages`)
    const file = this.#files.get(path) ?? openSync(path, 'a', 0o600)
    this.#files.set(path, file)
    this.#messageCount++
    for (const part of flatten(message)) this.#write(file, typeof part === 'string' ? Buffer.from(part) : part)
    this.#write(file, Buffer.from('\n'))
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) closeSync(file)
    this.#files.clear()
  }

  #write(file: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
    this.#sizeBytes += bytes.length
  }

  #around(boundary: string): Around {
    return async (call, work) => {
      this.record(`${boundary}-out`, call)
      const answer = await work()
      this.record(`${boundary}-in`, answer)
      return answer
    }
  }

  #port(boundary: string, port: Port): Port {
    return {
      post: (message, transfer) => {
        this.record(`${boundary}-to-enclave`, message)
        port.post(message, transfer)
      },
      onMessage: (listen) => {
        port.onMessage((message) => {
          this.record(`${boundary}-from-enclave`, message)
          listen(message)
        })
      },
      close: () => {
        port.close()
      },
    }
  }
}

/** A value's content, piece by piece. */
function* flatten(value: unknown): Generator<string | Uint8Array> {
  if (typeof value === 'string') yield value
  else if (ArrayBuffer.isView(value)) yield new Uint8Array(value.buffer)
  else if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) yield new Uint8Array(value)
  else if (Array.isArray(value)) for (const item of value) yield* separated(item)
  else if (value instanceof Map || value instanceof Set) for (const item of value) yield* separated(item)
  else if (value instanceof Error) yield* separated([value.message, value.stack, value.cause])
  else if (typeof value === 'object' && value !== null)
    for (const [key, item] of Object.entries(value)) {
      yield `${JSON.stringify(key)}:`
      yield* separated(item)
    }
  else yield String(value)
}

function* separated(item: unknown): Generator<string | Uint8Array> {
  yield* flatten(item)
  yield ','
}
