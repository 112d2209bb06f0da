import { copyBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { OpenKms } from '../kms/open-kms.js'
import type { LeakWatch } from './leak-watch.js'

/**
 * What becomes of a message. `replay`: an earlier one comes in its place. `late`: it comes after the next one. `never`: until its deadline has passed.
 */
export type MessageFault = 'lose' | 'double' | 'replay' | 'late' | 'damage' | 'never' | 'kms-stops'

/** A message between the host and the KMS, as its faults know it. */
export interface WireMessage {
  readonly on: 'request' | 'reply'
  readonly name: string
}

export interface WireOptions {
  /** The one that is on, if one is. */
  readonly kms: () => OpenKms | undefined
  readonly stopKms: () => void
  /** Told of each message as it is posted. */
  readonly onPosted: () => void
  /** Decides what becomes of it; the wire takes it for a fault of messages. */
  readonly fault?: ((message: WireMessage) => unknown) | undefined
  /** Told of each message that has arrived. */
  readonly onDone?: ((message: WireMessage) => void) | undefined
  readonly leaks?: LeakWatch | undefined
}

export const unreachable = (): KeyriseError => new KeyriseError('ERR_KMS_UNREACHABLE', { detail: 'the simulated wire' })

/** The way between the host and whatever KMS is on, on which messages suffer what they are told to. */
export class SimulatedWire {
  readonly #o: WireOptions
  /** The last request, for a replay; and requests that come after the next. */
  #earlier: Uint8Array | undefined
  readonly #late: Uint8Array[] = []

  constructor(options: WireOptions) {
    this.#o = options
  }

  /** @throws {KeyriseError} ERR_KMS_UNREACHABLE: no KMS is on, another has come meanwhile, or a message is lost. */
  async exchange(frame: Uint8Array): Promise<Uint8Array> {
    const { kms, onPosted, onDone, leaks } = this.#o
    onPosted()
    leaks?.search('a message to the KMS', frame)
    const request = await this.#suffer('request', frame)
    const asked = kms()
    if (asked === undefined) throw unreachable()
    onDone?.({ on: 'request', name: 'request' })
    const answer = await asked.exchange(request)
    for (const late of this.#late.splice(0)) await asked.exchange(late)
    if (kms() !== asked) throw unreachable()
    leaks?.search('a message of the KMS', answer)
    const reply = await this.#suffer('reply', answer)
    onDone?.({ on: 'reply', name: 'reply' })
    return reply
  }

  /** What arrives of a message. @throws {KeyriseError} ERR_KMS_UNREACHABLE: nothing does. */
  async #suffer(on: WireMessage['on'], message: Uint8Array): Promise<Uint8Array> {
    const { fault: decide, kms, stopKms } = this.#o
    const fault = decide?.({ on, name: on }) as MessageFault | undefined
    const earlier = this.#earlier
    if (on === 'request') this.#earlier = copyBytes(message)
    switch (fault) {
      case undefined:
        return message
      case 'never':
        return new Promise(() => undefined)
      case 'damage':
        return damaged(message)
      case 'replay':
        return earlier ?? message
      case 'double':
        await kms()?.exchange(copyBytes(message))
        return message
      case 'kms-stops':
        stopKms()
        throw unreachable()
      case 'late':
        this.#late.push(message)
        throw unreachable()
      case 'lose':
        throw unreachable()
    }
  }
}

/** One bit, in the middle. */
const damaged = (bytes: Uint8Array): Uint8Array => {
  const copy = copyBytes(bytes)
  const middle = copy.length >>> 1
  copy[middle] = (copy[middle] ?? 0) ^ 1
  return copy
}
