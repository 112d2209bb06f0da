import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import * as Comlink from 'comlink'
import { buildImage, launch, MemoryStore, type EnclaveHandle, type Image } from '../../../host/index.js'
import { startKms, type EmbeddedKms } from '../../../kms/index.js'
import { isKeyriseError } from '../../../protocol/errors.js'
import type { KmsLink } from '../../../protocol/ports.js'
import { leaks, stops, STOPPED, type Attack, type Level } from '../attack.js'
import { endpointOf } from '../bare-endpoint.js'
import type { Stage } from '../stage.js'
import type vault from '../vault.enclave.js'

/** Between an enclave and its KMS stands the host: what it can pretend, swap and run twice. */

type BareVault = Comlink.Remote<{
  recover(relayed: Uint8Array): void
  seal(): string
  answer(round: string): Uint8Array
  peerKey(relayed: Uint8Array): Uint8Array
}>

const bareVault = (): BareVault => {
  const worker = new Worker(new URL('../bare-vault.js', import.meta.url))
  return Comlink.wrap(endpointOf(worker as unknown as Parameters<typeof endpointOf>[0])) as unknown as BareVault
}

type Vault = EnclaveHandle<typeof vault>

/** A KMS, and enclaves that trust it, over links that may be anybody's. */
class World {
  readonly store = new MemoryStore()
  private constructor(
    readonly stage: Stage,
    readonly image: Image<typeof vault>,
    readonly kms: EmbeddedKms,
  ) {}

  static async open(stage: Stage): Promise<World> {
    const image = await buildImage<typeof vault>(fileURLToPath(new URL('../vault.enclave.js', import.meta.url)))
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

  launch(kms: KmsLink = this.kms, flow = 'flow'): Promise<Vault> {
    const { level, platform } = this.stage
    const isolation = level as Exclude<Level, 'bare'>
    return launch({ image: this.image, platform, store: this.store, kms, flow, task: 'task', isolation })
  }
}

/** The real KMS's link, but for what `exchange` does. */
const linkOf = (kms: EmbeddedKms, exchange: KmsLink['exchange']): KmsLink => ({
  identity: kms.identity,
  exchange,
  close: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
})

const impersonation: Attack = {
  name: 'kms-impersonation',
  attacker: 'H1',
  tries: 'a KMS of the host’s own, with keys that it knows, in a first launch, in a commit, and in a relaunch',
  expected: STOPPED,
  async run(stage) {
    if (stage.level === 'bare') {
      const known = new Uint8Array(32).fill(7)
      const victim = bareVault()
      await victim.recover(known)
      const expected = createHash('sha256').update(known).digest('hex')
      return (await victim.seal()) === expected ? leaks('it seals under the host’s own key') : stops('refused')
    }
    const world = await World.open(stage)
    const impostor = await World.kms(stage, world.image, 'impostor')
    let current: EmbeddedKms = impostor
    const link = linkOf(world.kms, (frame) => current.exchange(frame))
    const refused = await refusal(world.launch(link))
    if (refused !== 'ERR_KMS_UNTRUSTED') return leaks(`a first launch: ${refused}`)
    if ((await world.store.list('')).length > 0) return leaks('something was sealed to the impostor')
    current = world.kms
    const enclave = await world.launch(link)
    await enclave.ecalls.answer('1')
    current = impostor
    const committed = await refusal(enclave.ecalls.answer('2'))
    if (committed === 'none') return leaks('a commit to the impostor is believed')
    await enclave.close()
    const relaunched = await refusal(world.launch(link))
    return relaunched === 'ERR_KMS_UNTRUSTED'
      ? stops('ERR_KMS_UNTRUSTED each time')
      : leaks(`a relaunch: ${relaunched}`)
  },
}

const refusal = async (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => 'none',
    (error: unknown) => (isKeyriseError(error) ? error.code : String(error)),
  )

const keySubstitution: Attack = {
  name: 'key-substitution',
  attacker: 'H1',
  tries:
    'the aggregator’s own key in the place of a peer’s: in what is relayed, and by bit flips here and there in the frame that has the roster',
  expected: STOPPED,
  async run(stage) {
    const own = new Uint8Array(32).fill(7)
    if (stage.level === 'bare') {
      const taken = await bareVault().peerKey(own)
      return Buffer.compare(taken, own) === 0 ? leaks('the host’s key is taken for the peer’s') : stops('refused')
    }
    const world = await World.open(stage)
    const peer = await world.launch(world.kms, 'peer')
    await peer.ecalls.publish(new Uint8Array(32).fill(1))
    let tamper: ((reply: Uint8Array) => Uint8Array) | undefined
    const enclave = await world.launch(
      linkOf(world.kms, async (frame) => {
        const reply = await world.kms.exchange(frame)
        return tamper?.(reply) ?? reply
      }),
    )
    const honest = await enclave.ecalls.peerKey('peer')
    if (honest?.[0] !== 1) throw new Error('The peer has no key')
    for (const at of [0.2, 0.5, 0.7, 0.99]) {
      tamper = (reply) => reply.map((byte, index) => (index === Math.floor(reply.length * at) ? byte ^ 6 : byte))
      const seen = await enclave.ecalls.peerKey('peer').catch(() => null)
      if (seen !== null && Buffer.compare(seen, honest) !== 0) return leaks('another key is taken for the peer’s')
    }
    return stops('the peer’s key, or none')
  },
}

const cloneOracle: Attack = {
  name: 'clone-oracle',
  attacker: 'H1',
  tries: 'two clones of one flow, each asked for the one answer of a round',
  expected: STOPPED,
  async run(stage) {
    const ask: ((round: string) => Promise<Uint8Array>)[] = []
    if (stage.level === 'bare') for (const clone of [bareVault(), bareVault()]) ask.push((round) => clone.answer(round))
    else {
      const world = await World.open(stage)
      for (let count = 0; count < 2; count++) {
        const { ecalls } = await world.launch()
        ask.push((round) => ecalls.answer(round))
      }
    }
    for (const round of ['1', '2']) {
      const given = await Promise.allSettled(ask.map((one) => one(round)))
      const answers = given.flatMap((one) =>
        one.status === 'fulfilled' ? [Buffer.from(one.value).toString('hex')] : [],
      )
      if (new Set(answers).size > 1) return leaks('a second answer to the same round')
      if (answers.length === 0) throw new Error('Nobody answers')
    }
    return stops('one answer for each round; the older clone is fenced')
  },
}

export const KMS_ATTACKS: readonly Attack[] = [impersonation, keySubstitution, cloneOracle]
