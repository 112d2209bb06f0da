import { createInterface } from 'node:readline'
import { join } from 'node:path'
import {
  connectKms,
  DirectoryStore,
  launch,
  readImage,
  SimulatedPlatform,
  type Clock,
  type EnclaveHandle,
  type Instance,
  type KmsLink,
  type Platform,
} from '../../host/index.js'
import { startKms } from '../../kms/index.js'
import type { Isolation } from '../../protocol/configuration.js'
import { makePassphrase, RIGHT, WRONG } from './passphrase.js'
import type vault from './vault.enclave.js'

/**
 * A host that is searched: it brings an enclave, or a KMS, to one state after the other, names each on its output and stays in it
 * until it is told to go on. It knows no secret of theirs but the passphrase of its own KMS, which it makes and wipes.
 */
export interface HostArguments {
  readonly scenario: Scenario
  readonly directory: string
  /** Of the KMS; where there is none, the scenario is about a KMS. */
  readonly url?: string
  readonly flow: string
  /** A worker unless told. */
  readonly isolation?: Isolation
}

const { scenario, directory, url, flow, isolation = 'worker' } = JSON.parse(process.argv[2] ?? '{}') as HostArguments
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** What there is now. Resolves when the search is over. */
const show = async (state: string): Promise<void> => {
  process.stdout.write(`${state}\n`)
  await lines.next()
}

/** A platform that shows its instances, as a hostile host’s would. */
class OpenPlatform implements Platform {
  readonly instances: Instance[] = []
  /** Launches nothing more: what is searched is not written over by another instance. */
  isSpent = false
  constructor(readonly inner: Platform) {}
  get publicKey() {
    return this.inner.publicKey
  }
  launch(...launched: Parameters<Platform['launch']>): Instance {
    if (this.isSpent) throw new Error('spent')
    const instance = this.inner.launch(...launched)
    this.instances.push(instance)
    return instance
  }
}

/** A way to the KMS that swallows a flow’s claim. */
class Link implements KmsLink {
  /** Exchanges that are still let through. */
  left = Infinity
  swallowed = () => {}
  constructor(readonly inner: KmsLink) {}
  get identity() {
    return this.inner.identity
  }
  exchange(frame: Uint8Array): Promise<Uint8Array> {
    if (this.left-- > 0) return this.inner.exchange(frame)
    this.swallowed()
    return new Promise(() => {})
  }
  async close(): Promise<void> {
    await this.inner.close()
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner.close()
  }
}

const LAUNCH_DEADLINE_MS = 3_600_000

/** The launch’s deadline comes when it is told to: a search takes as long as it takes. */
class PatientClock implements Clock {
  expire = () => {}
  nowMs(): number {
    return Date.now()
  }
  timer(delayMs: number, elapsed: () => void): Disposable {
    if (delayMs === LAUNCH_DEADLINE_MS) this.expire = elapsed
    const timeout = setTimeout(elapsed, delayMs)
    return { [Symbol.dispose]: () => clearTimeout(timeout) }
  }
}

const setUp = async () => {
  const platform = new OpenPlatform(await SimulatedPlatform.open(join(directory, 'machine')))
  const image = await readImage<typeof vault>(join(directory, 'vault.image'))
  const link = new Link(await connectKms(url ?? ''))
  const events: string[] = []
  let heard = (): void => {}
  const clock = new PatientClock()
  const open = (): Promise<EnclaveHandle<typeof vault>> =>
    launch({
      image,
      platform,
      store: new DirectoryStore(join(directory, 'sealed')),
      kms: link,
      flow,
      isolation,
      limits: { launchDeadlineMs: LAUNCH_DEADLINE_MS, backoffMinMs: 10 },
      clock,
      onEvent: ({ type }) => {
        events.push(type)
        heard()
      },
    })
  const event = async (type: string): Promise<void> => {
    while (!events.includes(type)) await new Promise<void>((resolve) => (heard = resolve))
  }
  return { platform, link, open, event, clock }
}
type SetUp = Awaited<ReturnType<typeof setUp>>

/** Ends the enclave by an ECALL. */
const endedBy =
  (name: 'fail' | 'reject' | 'quit' | 'exhaust') =>
  async ({ open, event, platform }: SetUp): Promise<void> => {
    const handle = await open()
    await handle.ecalls.fill()
    await show('alive')
    platform.isSpent = true
    await handle.ecalls[name]().catch(() => undefined)
    await platform.instances[0]?.exited
    await event('launch-failed')
    await show('ended')
    await handle.close()
  }

/** Exchanges of a recovery before it claims the flow: challenge, handshake, open, unwrap. */
const BEFORE_CLAIM = 4

const scenarios = {
  async close({ open }: SetUp) {
    const handle = await open()
    await handle.ecalls.fill()
    await show('alive')
    await handle.close()
    await show('ended')
  },
  fail: endedBy('fail'),
  reject: endedBy('reject'),
  quit: endedBy('quit'),
  exhaust: endedBy('exhaust'),
  async terminate({ open, platform }: SetUp) {
    const handle = await open()
    await handle.ecalls.fill()
    await show('alive')
    await platform.instances[0]?.terminate()
    await handle.close()
    await show('ended')
  },
  async relaunch({ open, platform, event }: SetUp) {
    const handle = await open()
    await handle.ecalls.fill()
    await handle.ecalls.fail()
    await platform.instances[0]?.exited
    await event('lost')
    await handle.ecalls.use()
    await show('alive')
    await handle.close()
    await show('ended')
  },
  /** The flow’s keys are open, and the launch is given up before it has them. */
  async unfinished({ open, link, clock }: SetUp) {
    const first = await open()
    await first.ecalls.fill()
    await first.close()
    await show('prepared')
    link.left = BEFORE_CLAIM
    const swallowed = new Promise<void>((resolve) => (link.swallowed = resolve))
    const launched = open().catch(() => undefined)
    await swallowed
    await show('alive')
    clock.expire()
    await launched
    await show('ended')
  },
  /** As a power cut would: nobody is asked. */
  async kill({ open, platform }: SetUp) {
    const handle = await open()
    await handle.ecalls.fill()
    await show('alive')
    platform.isSpent = true
    await platform.instances[0]?.kill()
    await handle.close()
    await show('ended')
  },
}

const kmsScenarios = {
  async kmsClose() {
    const kms = await startOwnKms(RIGHT)
    await show('alive')
    await kms.close()
    await show('ended')
  },
  async kmsRefused() {
    await (await startOwnKms(RIGHT)).close()
    await show('prepared')
    await startOwnKms(WRONG).catch(() => undefined)
    await show('ended')
  },
}
export type Scenario = keyof typeof scenarios | keyof typeof kmsScenarios

/** @param seed - of the passphrase, here and in the search. */
const startOwnKms = async (seed: number) => {
  const passphrase = makePassphrase(seed)
  try {
    return await startKms({
      directory: join(directory, 'own-kms'),
      passphrase,
      policy: { platforms: [], images: [] },
      workFactor: 4,
    })
  } finally {
    passphrase.fill(0)
  }
}

if (scenario in kmsScenarios) await kmsScenarios[scenario as keyof typeof kmsScenarios]()
else await scenarios[scenario as keyof typeof scenarios](await setUp())
process.exit(0)
