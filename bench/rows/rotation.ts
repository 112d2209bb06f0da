import { join } from 'node:path'
import { rotateKeyring } from '../../kms/change-keys.js'
import { createKms, openKeyring } from '../../kms/place.js'
import { rewrapPairs } from '../../kms/rewrap.js'
import type { Keyring } from '../../kms/keyring.js'
import { asciiBytes, concatBytes } from '../../protocol/bytes.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { getHeaders, payloadName, putPair } from '../../protocol/sealed-pair.js'
import { DirectoryStore, nodeFileSystem } from '../../storage/index.js'
import { CountingFileSystem } from '../counting-file-system.js'
import type { Measurement } from '../measurement.js'
import { expectEqual, randomBytes } from '../peers/files.js'
import { result } from '../report.js'
import { Scratch } from '../scratch.js'
import { summarise, type Pair } from '../statistics.js'

const ENVELOPE_COUNT = 1024
const ENVELOPE_SIZE_BYTES = 2 ** 20
const PASSPHRASE = asciiBytes('correct horse battery staple')
const LOG_N = 10
const flow = parseFlowId('bench')

/** A store of envelopes sealed straight to the one root key of a KMS, and that KMS’s place; both on one disk. */
class World implements AsyncDisposable {
  readonly fs = new CountingFileSystem(nodeFileSystem)
  readonly store: DirectoryStore
  readonly #scratch: Scratch
  /** Of envelopes as an enclave writes them, headers included. */
  storedSizeBytes = 0
  #sample = { name: '', plaintext: new Uint8Array(0) }

  private constructor(scratch: Scratch) {
    this.#scratch = scratch
    this.store = new DirectoryStore(join(scratch.path, 'sealed'), this.fs)
  }

  static async make(envelopeCount: number): Promise<World> {
    const world = new World(await Scratch.make())
    await createKms({ ...world.#place(), random: nodeRandom, logN: LOG_N })
    using keyring = await world.keyring()
    for (let index = 0; index < envelopeCount; index++) await world.#put(`bench/direct-${index}`, keyring)
    return world
  }

  async #put(name: string, keyring: Keyring): Promise<void> {
    const plaintext = randomBytes(ENVELOPE_SIZE_BYTES)
    const envelope = sealEnvelope(plaintext, {
      recipients: [x25519Recipient(keyring.rootKeys[0].certificate.encryptionKey)],
      context: {
        flow,
        task: flow,
        kind: 'processed-data',
        name: 'processed-data/ciphertext',
        epoch: 1,
        incarnation: 1,
        image: randomBytes(32),
      },
      originKeys: [{ authority: keyring.identity, key: Secret.random(32, nodeRandom) }],
      random: nodeRandom,
    })
    await putPair(this.store, name, envelope)
    this.storedSizeBytes += envelope.length
    this.#sample = { name, plaintext }
  }

  #place() {
    return { place: { directory: this.#scratch.path }, passphrase: Secret.take(PASSPHRASE.slice()), fs: this.fs }
  }

  keyring(): Promise<Keyring> {
    return openKeyring(this.#place())
  }

  /** A new root key, and every envelope rewrapped for it. @returns bytes that were written. */
  async rotate(): Promise<number> {
    const before = this.fs.writtenSizeBytes
    await rotateKeyring({ ...this.#place(), random: nodeRandom })
    using keyring = await this.keyring()
    for await (const pair of rewrapPairs({ keyring, store: this.store, prefix: '', random: nodeRandom }))
      if (pair.status !== 'rewrapped') throw new Error(`P9: ${pair.name} is ${pair.status}`)
    return this.fs.writtenSizeBytes - before
  }

  /** Looks whether the newest key alone opens the last envelope, and to what. */
  async verify(): Promise<void> {
    const { name, plaintext } = this.#sample
    using keyring = await this.keyring()
    const [header, ...others] = await getHeaders(this.store, name)
    const payload = await this.store.get(payloadName(name))
    if (header === undefined || payload === undefined || others.length > 0) throw new Error('P9: not one header')
    const identities = [x25519Identity(keyring.rootKeys[0].privateKey)]
    expectEqual('P9', openEnvelope(concatBytes(header.bytes, payload), { identities }).plaintext, plaintext)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scratch[Symbol.asyncDispose]()
  }
}

/** P9: what a rotation of the root key writes: the keyring, and headers. Bytes that reach files, whatever becomes of these. */
export const rotation: Measurement = {
  names: ['P9'],
  async measure({ count }, { say }) {
    say('P9: storing envelopes')
    await using world = await World.make(count(ENVELOPE_COUNT))
    say('P9: one run: bytes do not vary')
    const pair: Pair = { ours: await world.rotate(), peer: world.storedSizeBytes }
    await world.verify()
    return { results: [result('P9', 'bytes stored', summarise([pair]))] }
  },
}
