import type { Bytes } from '../protocol/bytes.js'
import type { Image } from '../platform/image.js'
import type { Instance, LaunchOptions, Platform } from '../platform/platform.js'

/** A platform whose enclaves can be killed at any moment, as a power cut would: nothing is wiped, nobody is asked. */
export class KillablePlatform implements Platform {
  readonly #platform: Platform
  readonly #live = new Map<string, Set<Instance>>()
  #killCount = 0

  constructor(platform: Platform) {
    this.#platform = platform
  }

  get publicKey(): Bytes {
    return this.#platform.publicKey
  }

  /** How many enclaves `kill` has ended. */
  get killCount(): number {
    return this.#killCount
  }

  launch(image: Image, options: LaunchOptions): Instance {
    const instance = this.#platform.launch(image, options)
    const live = this.#live.get(options.flow) ?? new Set()
    this.#live.set(options.flow, live.add(instance))
    void instance.exited.then(() => live.delete(instance))
    return instance
  }

  /**
   * Ends the live instances of `flow`. Resolves, when they are gone, to how many there were.
   * @param countMax - the oldest of them alone: 1 leaves a spare of the one that serves. All, unless told.
   */
  async kill(flow: string, countMax = Infinity): Promise<number> {
    const live = this.#live.get(flow)
    const doomed = [...(live ?? [])].slice(0, countMax)
    for (const instance of doomed) live?.delete(instance)
    this.#killCount += doomed.length
    await Promise.all(doomed.map((instance) => instance.kill()))
    // And when whoever watches them knows: a call made from now on is not made to a dead one.
    await Promise.all(doomed.map((instance) => instance.exited))
    return doomed.length
  }
}
