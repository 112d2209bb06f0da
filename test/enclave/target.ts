import { fileURLToPath } from 'node:url'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { encodeConfiguration, type Isolation } from '../../protocol/configuration.js'
import { claimedId, encodeCall, encodeRefusal } from '../../protocol/calls.js'
import { parseFlowId } from '../../protocol/names.js'
import { bundle, directoryOf, runtimeFile } from '../../platform/bundle.js'
import { composeImage, describeModule, imageModule, type Image } from '../../platform/image.js'
import type { Instance } from '../../platform/platform.js'
import { SimulatedPlatform } from '../../platform/simulated.js'
import type target from './target.enclave.js'

/** An image of a module beside this file, as `buildImage` makes it but for the flow: the stub takes its place. */
export const buildStubImage = async <Definition>(name: string): Promise<Image<Definition>> => {
  const path = fileURLToPath(new URL(`./${name}.js`, import.meta.url))
  const stub = fileURLToPath(new URL('./stub-flow.js', import.meta.url))
  const contents = imageModule(path).replace(JSON.stringify(runtimeFile('flow')), JSON.stringify(stub))
  const { source } = await bundle(contents, directoryOf(path))
  return composeImage(await describeModule(path), source)
}

export const buildTarget = (): Promise<Image<typeof target>> => buildStubImage('target.enclave')

export const configurationFor = (isolation: Isolation): Bytes =>
  encodeConfiguration({ kmsIdentity: allocate(32), messageSizeBytesMax: 64 * 1024, isolation })
export const CONFIGURATION = configurationFor('worker')

export const withPlatform = async <T>(
  use: (platform: SimulatedPlatform, directory: string) => Promise<T>,
): Promise<T> => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-platform-'))
  try {
    return await use(await SimulatedPlatform.open(directory), directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

export const launchTarget = (
  platform: SimulatedPlatform,
  image: Image,
  { flow = 'flow', isolation = 'worker' }: { readonly flow?: string; readonly isolation?: Isolation } = {},
): Instance =>
  platform.launch(image, {
    configuration: configurationFor(isolation),
    flow: parseFlowId(flow),
    task: parseFlowId('task'),
    isolation,
  })

/** A host as an attacker writes one: posts anything, and sees every message. */
export class Host {
  readonly seen: unknown[] = []
  readonly ocalls: unknown[] = []
  readonly #waiting: (() => void)[] = []
  #count = 0

  constructor(readonly instance: Instance) {
    instance.ecalls.onMessage((message) => this.#see(this.seen, message))
    instance.ocalls.onMessage((message) => this.#see(this.ocalls, message))
    void instance.exited.then(() => this.#wake())
  }

  #see(list: unknown[], message: unknown): void {
    list.push(message)
    this.#wake()
  }
  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** The first message in `list` that `wanted` takes, whenever it comes. */
  async find<T>(list: unknown[], wanted: (message: unknown) => T | undefined): Promise<T> {
    const end = { reached: false }
    void this.instance.exited.then(() =>
      setImmediate(() => {
        end.reached = true
        this.#wake()
      }),
    )
    for (;;) {
      const found = list.map(wanted).find((result) => result !== undefined)
      if (found !== undefined) return found
      if (end.reached) throw new Error('The enclave ended first')
      await new Promise<void>((wake) => this.#waiting.push(wake))
    }
  }

  ready(): Promise<unknown> {
    return this.find(this.seen, (message) => (field(message, 'type') === 'READY' ? message : undefined))
  }

  /** Posts a message as it is. What the port cannot even carry is refused as the gate would refuse it. */
  post(message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    try {
      this.instance.ecalls.post(message, transfer)
    } catch (error) {
      this.#see(this.seen, encodeRefusal(claimedId(message), error).message)
    }
  }

  /** Posts a message as it is, under a fresh id, and waits for its answer. */
  raw(message: Record<string, unknown>, transfer: readonly ArrayBuffer[] = []): Promise<unknown> {
    const id = `h${++this.#count}`
    this.post({ id, ...message }, transfer)
    return this.find(this.seen, (answer) => (field(answer, 'id') === id ? answer : undefined))
  }

  /** A call by our own wire: the value, or the code. */
  async call(name: string, argument?: unknown): Promise<unknown> {
    const id = `h${++this.#count}`
    const { message, transfer } = encodeCall(id, name, argument)
    this.instance.ecalls.post(message, transfer)
    return outcome(await this.find(this.seen, (answer) => (field(answer, 'id') === id ? answer : undefined)))
  }

  /** Answers an OCALL that the enclave has made or makes. */
  async answer(name: string, reply: (id: string) => readonly unknown[]): Promise<void> {
    const id = await this.find(this.ocalls, (message) => {
      const path = field(message, 'path')
      return Array.isArray(path) && path[0] === name ? (field(message, 'id') as string) : undefined
    })
    this.ocalls.length = 0
    for (const message of reply(id)) this.instance.ocalls.post(message)
  }
}

const field = (claimed: unknown, key: string): unknown =>
  typeof claimed === 'object' && claimed !== null ? (claimed as Record<string, unknown>)[key] : undefined

/** The value of an answer, or the code of a refusal. */
export const outcome = (answer: unknown): unknown =>
  field(answer, 'type') === 'RAW' ? field(answer, 'value') : field(field(field(answer, 'value'), 'value'), 'code')
