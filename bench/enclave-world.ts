import { join } from 'node:path'
import {
  launch,
  MemoryStore,
  SimulatedPlatform,
  type EnclaveEvent,
  type EnclaveHandle,
  type Image,
  type LaunchOptions,
} from '../host/index.js'
import { KillablePlatform } from '../faults/index.js'
import { startKms, type EmbeddedKms } from '../kms/index.js'
import type { Isolation } from '../protocol/configuration.js'
import { asciiBytes } from '../protocol/bytes.js'
import { Scratch } from './scratch.js'

const PASSPHRASE = asciiBytes('correct horse battery staple')
const WORK_FACTOR = 10

/** What it takes to launch enclaves of some images: a platform, an embedded KMS whose policy lists them, and a store. */
export class EnclaveWorld implements AsyncDisposable {
  readonly #scratch: Scratch
  readonly #platform: KillablePlatform
  readonly #kms: EmbeddedKms
  #flowCount = 0

  private constructor(scratch: Scratch, platform: KillablePlatform, kms: EmbeddedKms) {
    this.#scratch = scratch
    this.#platform = platform
    this.#kms = kms
  }

  static async make(...images: readonly Image[]): Promise<EnclaveWorld> {
    const scratch = await Scratch.make()
    const platform = await SimulatedPlatform.open(join(scratch.path, 'machine'))
    const policy = {
      platforms: [platform.publicKey],
      images: images.map(({ manifest: { name }, measurement }) => ({ name, measurement })),
    }
    const directory = join(scratch.path, 'kms')
    const kms = await startKms({ directory, passphrase: PASSPHRASE, policy, workFactor: WORK_FACTOR })
    return new EnclaveWorld(scratch, new KillablePlatform(platform), kms)
  }

  /** A new flow each time, without state. */
  launch<Definition>(image: Image<Definition>, isolation: Isolation = 'worker'): Promise<EnclaveHandle<Definition>> {
    const options = {
      image,
      isolation,
      platform: this.#platform,
      kms: this.#kms,
      store: new MemoryStore(),
      flow: `bench-${this.#flowCount++}`,
    }
    return launch<Definition>(options as unknown as LaunchOptions<Definition>)
  }

  /** As `launch`, of an enclave that can be killed, with a spare or without. */
  async launchKillable<Definition>(
    image: Image<Definition>,
    { spare }: { readonly spare: boolean },
  ): Promise<KillableEnclave<Definition>> {
    const flow = `bench-${this.#flowCount++}`
    let [standing, announce] = announced()
    const options = {
      image,
      spare,
      flow,
      platform: this.#platform,
      kms: this.#kms,
      store: new MemoryStore(),
      onEvent: ({ type }: EnclaveEvent) => {
        if (type === 'spare') announce()
      },
    }
    const enclave = await launch<Definition>(options as unknown as LaunchOptions<Definition>)
    return {
      enclave,
      standsBy: async () => {
        if (spare) await standing
      },
      kill: async () => {
        ;[standing, announce] = announced()
        await this.#platform.kill(flow, 1)
      },
      [Symbol.asyncDispose]: () => enclave.close(),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#kms[Symbol.asyncDispose]()
    await this.#scratch[Symbol.asyncDispose]()
  }
}

/** An enclave, and what ends it as a crash would. */
export interface KillableEnclave<Definition> extends AsyncDisposable {
  readonly enclave: EnclaveHandle<Definition>
  /** Resolves when its spare, where it has one, waits to be needed. */
  standsBy(): Promise<void>
  /** Ends the one that serves, and leaves the spare. */
  kill(): Promise<void>
}

const announced = (): [came: Promise<void>, come: () => void] => {
  let come = (): void => undefined
  return [new Promise<void>((resolve) => (come = resolve)), () => come()]
}
