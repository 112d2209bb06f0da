import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { buildImage, connectKms, DirectoryStore, launch, SimulatedPlatform, type Image } from '../../host/index.js'
import { toHex } from '../../protocol/bytes.js'
import { hasProc, initKms, KmsProcess } from '../kms-process.js'
import type { Measurement, Scale } from '../measurement.js'
import { randomBytes } from '../peers/files.js'
import { excess, result } from '../report.js'
import { Scratch } from '../scratch.js'
import { median, type Pair } from '../statistics.js'
import type definition from './bulk.enclave.js'

const STREAMED_SIZE_BYTES = 2 ** 33
/** What is stored, and streamed as often as it takes. */
const STORED_SIZE_BYTES = 2 ** 30
const ENTRY_SIZE_BYTES = 2 ** 25
const IDLE_SAMPLE_COUNT = 10
const IDLE_SAMPLE_MS = 100

/** A flow whose entries are sealed straight to a KMS, in a directory: the same for every run. */
class World implements AsyncDisposable {
  readonly #scratch: Scratch
  readonly #image: Image<typeof definition>
  readonly #platform: SimulatedPlatform

  private constructor(scratch: Scratch, image: Image<typeof definition>, platform: SimulatedPlatform) {
    this.#scratch = scratch
    this.#image = image
    this.#platform = platform
  }

  static async make(): Promise<World> {
    const scratch = await Scratch.make()
    const root = scratch.path
    const image = await buildImage<typeof definition>(new URL('bulk.enclave.js', import.meta.url))
    const platform = await SimulatedPlatform.open(join(root, 'machine'))
    const images = [{ name: 'bench', measurement: toHex(image.measurement) }]
    await writeFile(join(root, 'policy.json'), JSON.stringify({ platforms: [toHex(platform.publicKey)], images }))
    await mkdir(join(root, 'kms'))
    await initKms(join(root, 'kms'))
    return new World(scratch, image, platform)
  }

  serve(): Promise<KmsProcess> {
    return KmsProcess.serve(join(this.#scratch.path, 'kms'), join(this.#scratch.path, 'policy.json'))
  }

  async launch(kms: KmsProcess) {
    const [image, platform, store] = [
      this.#image,
      this.#platform,
      new DirectoryStore(join(this.#scratch.path, 'sealed')),
    ]
    return launch({ image, platform, store, kms: await connectKms(kms.url), flow: 'bench' })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scratch[Symbol.asyncDispose]()
  }
}

/**
 * P10: what `keyrise kms serve`, a process of its own, takes more than when it is idle, while an enclave reads payloads through
 * it. Idle is what it takes once it serves and the enclave has recovered, before the first payload.
 */
export const memory: Measurement = {
  names: ['P10'],
  lacks: () => (hasProc() ? undefined : 'there is no /proc'),
  async measure(scale, { say }) {
    await using world = await World.make()
    say('P10: storing payloads')
    const names = await fill(world, scale)
    say('P10: one run: its peak is over all that streams')
    const pair = await streamOnce(world, names, scale)
    return { results: [result('P10', 'the same process, idle', excess([pair]))] }
  },
}

type Names = `processed-data/${number}`[]
const entrySize = ({ bytes }: Scale): number => Math.min(ENTRY_SIZE_BYTES, bytes(STORED_SIZE_BYTES) / 4)

const fill = async (world: World, scale: Scale): Promise<Names> => {
  await using kms = await world.serve()
  await using enclave = await world.launch(kms)
  const count = scale.bytes(STORED_SIZE_BYTES) / entrySize(scale)
  const names = Array.from({ length: count }, (_, index) => `processed-data/${index}` as const)
  for (const name of names) await enclave.ecalls.keep({ name, bytes: randomBytes(entrySize(scale)) })
  return names
}

const streamOnce = async (world: World, names: Names, scale: Scale): Promise<Pair> => {
  await using kms = await world.serve()
  await using enclave = await world.launch(kms)
  const idle: number[] = []
  for (let sample = 0; sample < IDLE_SAMPLE_COUNT; sample++) {
    await delay(IDLE_SAMPLE_MS)
    idle.push(await kms.memory('VmRSS'))
  }
  const totalSizeBytes = scale.bytes(STREAMED_SIZE_BYTES)
  const peak = await kms.peakDuring(async () => {
    for (let sizeBytes = 0; sizeBytes < totalSizeBytes;) sizeBytes += await enclave.ecalls.stream(names)
  })
  return { ours: peak, peer: median(idle) }
}
