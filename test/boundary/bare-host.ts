import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads'
import { encodeMessage } from '../../protocol/message-codec.js'
import { createRing, RingWriter } from '../../protocol/ring.js'
import { RING_SIZE_BYTES, RingPort } from '../../protocol/ring-port.js'
import type { Image } from '../../platform/image.js'
import { CONFIGURATION } from '../enclave/target.js'

/** Turns of the event loop in which a ring that is read gets room. */
const TRY_COUNT_MAX = 10_000

/**
 * A host without our host’s code: it holds the ports and the shared memory of an enclave, and puts anything into them. The
 * enclave is the image as it is; the platform’s part is played as little as it can be.
 */
export class BareHost {
  /** Answers by id, for as long as nobody has taken them. */
  readonly answers = new Map<unknown, unknown>()
  /** Ids of OCALLs that were made and not taken. */
  readonly asked: string[] = []
  readonly ecalls: MessagePort
  readonly ocalls: MessagePort
  readonly rings: { into: SharedArrayBuffer; outOf: SharedArrayBuffer } | undefined
  readonly exited: Promise<number>
  hasExited = false
  readonly #writer: RingWriter | undefined
  readonly #worker: Worker
  readonly #ends: MessagePort[]
  readonly #waiting: (() => void)[] = []
  #count = 0

  constructor(image: Image, { isRinged = false } = {}) {
    const [ecalls, ocalls, platform] = [new MessageChannel(), new MessageChannel(), new MessageChannel()]
    this.ecalls = ecalls.port1
    this.ocalls = ocalls.port1
    this.#ends = [ecalls.port1, ocalls.port1, platform.port1]
    this.rings = isRinged ? { into: createRing(RING_SIZE_BYTES), outOf: createRing(RING_SIZE_BYTES) } : undefined
    this.#writer = this.rings && new RingWriter(this.rings.into)
    const ports = { ecalls: ecalls.port2, ocalls: ocalls.port2, platform: platform.port2 }
    const start = { configuration: CONFIGURATION, measurement: image.measurement, flow: 'flow', task: 'task' }
    this.#worker = new Worker(image.source, {
      eval: true,
      env: {},
      argv: [],
      stdout: true,
      stderr: true,
      workerData: { ...ports, ...start, ...(this.rings === undefined ? {} : { rings: this.rings }) },
      transferList: Object.values(ports),
    })
    this.exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    void this.exited.then(() => {
      this.hasExited = true
      this.#wake()
    })
    const see = (message: unknown): void => this.#see(message)
    // Of the rings it only reads; what it posts, it writes itself.
    if (this.rings === undefined) this.ecalls.on('message', see)
    else
      new RingPort({
        beside: this.ecalls,
        incoming: this.rings.outOf,
        outgoing: createRing(RING_SIZE_BYTES),
        defer: setImmediate,
        heedsBackpressure: false,
      }).onMessage(see)
    this.ocalls.on('message', ({ id }: { id: string }) => {
      this.asked.push(id)
      this.#wake()
    })
  }

  #see(message: unknown): void {
    const { id, type } = message as { id?: unknown; type?: unknown }
    this.answers.set(id ?? type, message)
    this.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Waits until `found` gives something. @throws where the enclave has ended. */
  async until<T>(found: () => T | undefined): Promise<T> {
    for (;;) {
      const result = found()
      if (result !== undefined) return result
      if (this.hasExited) throw new Error('The enclave has ended')
      await new Promise<void>((wake) => this.#waiting.push(wake))
    }
  }

  /** Posts as it is; false for what structured cloning does not pass. */
  post(port: MessagePort, message: unknown): boolean {
    try {
      port.postMessage(message)
      return true
    } catch {
      return false
    }
  }

  /** Puts bytes into the ring, whatever they are; waits a while for room. False where there is none: the ring is broken. */
  async writeFrame(bytes: Uint8Array): Promise<boolean> {
    const words = new Int32Array(Math.ceil(bytes.length / 4))
    new Uint8Array(words.buffer).set(bytes)
    for (let tries = 0; this.#writer?.write(words, bytes.length) === false; tries++) {
      if (this.#writer.error !== undefined || tries > TRY_COUNT_MAX) return false
      await new Promise((resolve) => setImmediate(resolve))
    }
    return true
  }

  /** A right call: its value, or the code that it was refused with. */
  async call(name: string, argument?: unknown, way: 'port' | 'ring' = 'port'): Promise<unknown> {
    const id = way === 'ring' ? 3_000_000_000 + this.#count++ : `right${String(this.#count++)}`
    const argumentList = argument === undefined ? [] : [{ type: 'RAW', value: argument }]
    const message = { id, type: 'APPLY', path: [name], argumentList }
    if (way === 'ring') await this.writeFrame(encodeMessage(message))
    else this.ecalls.postMessage(message)
    return outcomeOf(await this.take(id))
  }

  /** The answer to `id`, once. */
  async take(id: unknown): Promise<unknown> {
    const answer = await this.until(() => this.answers.get(id))
    this.answers.delete(id)
    return answer
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
    for (const port of this.#ends) port.close()
  }
}

/** The value of an answer, or the code of a refusal. */
export const outcomeOf = (answer: unknown): unknown => {
  const { type, value } = answer as { type: string; value?: { value?: { code?: unknown } } }
  return type === 'RAW' ? value : value?.value?.code
}
