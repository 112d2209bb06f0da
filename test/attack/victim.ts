import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { Image } from '../../platform/image.js'
import type { Instance } from '../../platform/platform.js'
import type { SimulatedPlatform } from '../../platform/simulated.js'
import type { Port } from '../../protocol/ports.js'
import { Host, launchTarget } from '../enclave/target.js'
import type { Level } from './attack.js'
import { masked } from './mask.js'

/** What is attacked, as a host has it: it may post anything and sees every message. */
export class Victim extends Host {
  constructor(
    instance: Instance,
    /** A bare worker’s, which its host simply has. */
    readonly worker?: Worker,
  ) {
    super(instance)
  }

  /** The key, masked: to be asked before the victim ends, and unmasked once the attack is over. */
  async maskedCanary(): Promise<Uint8Array> {
    const answer = await this.call('reveal')
    if (!(answer instanceof Uint8Array)) throw new Error('The victim does not tell its key')
    return answer
  }

  /** The key. Asked once the attack is over, to tell whether it was found. */
  async canary(): Promise<Uint8Array> {
    return masked(await this.maskedCanary())
  }

  /** True when it still serves, and nothing that it counts has changed. */
  async isUnharmed(): Promise<boolean> {
    return (await this.call('add', { a: 2, b: 3 })) === 5 && (await this.call('total')) === 0
  }

  end(): Promise<void> {
    return this.instance.terminate()
  }
}

export const launchVictim = async (level: Level, platform: SimulatedPlatform, image: Image): Promise<Victim> => {
  if (level === 'bare') return launchBare()
  const victim = new Victim(launchTarget(platform, image, { isolation: level }))
  await victim.ready()
  return victim
}

const NO_PORT: Port = { post: () => {}, onMessage: () => {}, close: () => {} }

/** A plain worker, in the shape of an instance, so that one attack serves for both. */
const launchBare = async (): Promise<Victim> => {
  const worker = new Worker(new URL('./bare-keeper.js', import.meta.url))
  const exited = new Promise<{ reason: string }>((resolve) => worker.once('exit', () => resolve({ reason: 'ended' })))
  const kill = async (): Promise<void> => {
    await worker.terminate()
  }
  const victim = new Victim(
    {
      ecalls: {
        post: (message, transfer) => worker.postMessage(message, transfer as ArrayBuffer[] | undefined),
        onMessage: (listen) => worker.on('message', listen),
        close: () => {},
      },
      ocalls: NO_PORT,
      exited,
      terminate: kill,
      kill,
    },
    worker,
  )
  await once(worker, 'online')
  await victim.call('total')
  return victim
}
