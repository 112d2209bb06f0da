import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { buildImage, launch, MemoryStore, type EnclaveHandle, type Image } from '../../host/index.js'
import { startKms, type EmbeddedKms } from '../../kms/index.js'
import { isKeyriseError } from '../../protocol/errors.js'
import type { KmsLink, Store } from '../../protocol/ports.js'
import type { Level } from './attack.js'
import { endpointOf } from './bare-endpoint.js'
import type { Stage } from './stage.js'
import type vault from './vault.enclave.js'

/** What stands around an enclave that keeps a state: a KMS, a store, and the host in between. */

type BareVault = Comlink.Remote<{
  recover(relayed: Uint8Array): void
  seal(): string
  answer(round: string): Uint8Array
  peerKey(relayed: Uint8Array): Uint8Array
  count(): number
}>

export const bareVault = (): BareVault => {
  const worker = new Worker(new URL('./bare-vault.js', import.meta.url))
  return Comlink.wrap(endpointOf(worker as unknown as Parameters<typeof endpointOf>[0])) as unknown as BareVault
}

export type Vault = EnclaveHandle<typeof vault>

/** A KMS, and enclaves that trust it, over links that may be anybody's. */
export class World {
  store: Store = new MemoryStore()
  private constructor(
    readonly stage: Stage,
    readonly image: Image<typeof vault>,
    readonly kms: EmbeddedKms,
  ) {}

  static async open(stage: Stage): Promise<World> {
    const image = await buildImage<typeof vault>(fileURLToPath(new URL('./vault.enclave.js', import.meta.url)))
    return new World(stage, image, await World.kms(stage, image, 'kms'))
  }

  static kms(stage: Stage, image: Image, name: string): Promise<EmbeddedKms> {
    return startKms({
      directory: join(stage.directory, name),
      passphrase: new TextEncoder().encode('correct horse'),
      policy: {
        platforms: [stage.platform.publicKey],
        images: [{ name: 'vault', measurement: image.measurement }],
      },
      workFactor: 4,
    })
  }

  launch(kms: KmsLink = this.kms, flow = 'flow', task = 'task'): Promise<Vault> {
    const { level, platform } = this.stage
    const isolation = level as Exclude<Level, 'bare'>
    return launch({ image: this.image, platform, store: this.store, kms, flow, task, isolation })
  }
}

/** The real KMS's link, but for what `exchange` does. */
export const linkOf = (kms: EmbeddedKms, exchange: KmsLink['exchange']): KmsLink => ({
  identity: kms.identity,
  exchange,
  close: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
})

/** The code that an attempt is refused with; `none` where it is not. */
export const refusal = async (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => 'none',
    (error: unknown) => (isKeyriseError(error) ? error.code : String(error)),
  )
