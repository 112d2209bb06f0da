import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildImage, connectKms, DirectoryStore, launch, SimulatedPlatform } from '../../host/index.js'
import { toHex } from '../../protocol/bytes.js'
import { encodeKmsRequest } from '../../protocol/kms.js'
import type { KmsChannel, OpenFile } from '../../protocol/ports.js'
import { nodeFileSystem, publish, syncFile, writeAll } from '../../storage/index.js'
import { initKms, KmsProcess } from '../kms-process.js'
import type { Measurement } from '../measurement.js'
import { randomBytes } from '../peers/files.js'
import { result } from '../report.js'
import { Scratch } from '../scratch.js'
import { compare, summarise } from '../statistics.js'
import type definition from './checkpoint.enclave.js'

/** What the enclave's file of 16 × 4 KiB takes. */
const FILE_SIZE_BYTES = 16 * 4096 + 2048
const LEDGER_RECORD_SIZE_BYTES = 256
const TURN_COUNT = 40
/** V8 has compiled by then what a flow at work runs. */
const WARM_UP_COUNT = 300

/** The bare work under a checkpoint: one durable publish, one durable append, one round trip to the KMS's process. */
class BareWork {
  readonly #directory: string
  readonly #log: OpenFile
  readonly #kms: KmsChannel
  readonly #bytes = randomBytes(FILE_SIZE_BYTES)
  readonly #record = randomBytes(LEDGER_RECORD_SIZE_BYTES)
  #round = 0

  private constructor(directory: string, log: OpenFile, kms: KmsChannel) {
    this.#directory = directory
    this.#log = log
    this.#kms = kms
  }

  static async in(directory: string, kms: KmsChannel): Promise<BareWork> {
    await mkdir(directory)
    return new BareWork(directory, await nodeFileSystem.open(join(directory, 'log'), 'update'), kms)
  }

  async once(): Promise<void> {
    await publish(nodeFileSystem, this.#directory, `epoch-${++this.#round}`, this.#bytes)
    await writeAll(this.#log, this.#record, this.#round * LEDGER_RECORD_SIZE_BYTES)
    await syncFile(this.#log)
    await this.#kms.exchange(encodeKmsRequest({ op: 'identity' }))
  }

  close(): Promise<void> {
    return this.#log.close()
  }
}

/** Milliseconds that one call of `work` takes. */
const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const startMs = performance.now()
  await work()
  return performance.now() - startMs
}

/**
 * P7: an ECALL that checkpoints 16 entries of 4 KiB, through a `DirectoryStore` and `keyrise kms serve`, over the bare work that
 * lies under it, on the same file system and to the same process.
 */
export const checkpoint: Measurement = {
  names: ['P7'],
  async measure({ runs, count }, { say }) {
    await using scratch = await Scratch.make()
    const root = scratch.path
    const image = await buildImage<typeof definition>(new URL('checkpoint.enclave.js', import.meta.url))
    const platform = await SimulatedPlatform.open(join(root, 'machine'))
    const images = [{ name: 'bench', measurement: toHex(image.measurement) }]
    await writeFile(join(root, 'policy.json'), JSON.stringify({ platforms: [toHex(platform.publicKey)], images }))
    await mkdir(join(root, 'kms'))
    await initKms(join(root, 'kms'))
    await using served = await KmsProcess.serve(join(root, 'kms'), join(root, 'policy.json'))
    await using kms = await connectKms(served.url)
    const store = new DirectoryStore(join(root, 'sealed'))
    await using enclave = await launch({ image, platform, store, kms, flow: 'bench' })
    const bare = await BareWork.in(join(root, 'bare'), kms)
    let round = 0
    const ours = () => timed(() => enclave.ecalls.checkpoint(++round % 256))
    const peer = () => timed(() => bare.once())
    for (let index = 0; index < count(WARM_UP_COUNT); index++) {
      await ours()
      await peer()
    }
    const said = (run: number): void => say(`P7: run ${run} of ${runs}`)
    const pairs = await compare({ ours, peer }, runs, said, count(TURN_COUNT))
    await bare.close()
    return { results: [result('P7', 'publish, append and round trip alone', summarise(pairs))] }
  },
}
