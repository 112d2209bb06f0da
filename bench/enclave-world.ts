import { join } from 'node:path'
import {
  launch,
  MemoryStore,
  SimulatedPlatform,
  type EnclaveHandle,
  type Image,
  type LaunchOptions,
} from '../host/index.js'
import { startKms, type EmbeddedKms } from '../kms/index.js'
import type { Isolation } from '../protocol/configuration.js'
import { asciiBytes } from '../protocol/bytes.js'
import { Scratch } from './scratch.js'

const PASSPHRASE = asciiBytes('correct horse battery staple')
const WORK_FACTOR = 10

/** What it takes to launch enclaves of some images: a platform, an embedded KMS whose policy lists them, and a store. */
export class EnclaveWorld implements AsyncDisposable {
  readonly #scratch: Scratch
  readonly #platform: SimulatedPlatform
  readonly #kms: EmbeddedKms
  #flowCount = 0

  private constructor(scratch: Scratch, platform: SimulatedPlatform, kms: EmbeddedKms) {
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
    return new EnclaveWorld(scratch, platform, kms)
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#kms[Symbol.asyncDispose]()
    await this.#scratch[Symbol.asyncDispose]()
  }
}
