import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { initKms, KmsProcess } from '../../bench/kms-process.js'
import { connectKms } from '../../host/index.js'
import { toHex } from '../../protocol/bytes.js'
import type { KmsLink } from '../../protocol/ports.js'
import { digestOf, TestPlatform } from '../kms/attested-client.js'
import { Overheard, SoakClient, STEPS, type Step } from './client.js'
import { Hostiles, REFUSED } from './hostile.js'
import { Latencies } from './latencies.js'

const CLIENT_COUNT = 32
const IMAGE = digestOf(1)
/**
 * After work a process gives memory back when its collector comes round to it: the least that it takes within this time. V8
 * begins to give back eight seconds after the work, and takes several turns; after six seconds garbage was counted.
 */
const SETTLE_SAMPLE_COUNT = 50
const SETTLE_SAMPLE_MS = 500
const SAY_MS = 5000
/** All errors are counted; the first are told. */
const TOLD_COUNT_MAX = 20

/** A part of a soak; it ends after a time, and with a number of sessions. */
export interface Part {
  readonly name: string
  /** Both, where both are given. */
  readonly until: { readonly seconds?: number; readonly sessions?: number }
  readonly isHostile: boolean
}

/** How a part went. */
export interface Phase {
  readonly name: string
  readonly sessions: number
  readonly unwraps: number
  readonly seconds: number
  /** Processor time of the KMS and of its clients. */
  readonly kmsCpuSeconds: number
  readonly clientsCpuSeconds: number
  readonly steps: Readonly<Record<Step, Latencies>>
  /** What the KMS’s process takes once it is idle again. */
  readonly rssMiB: number
  readonly logMiB: number
  /** How often each kind of hostile client tried. */
  readonly hostile: Readonly<Record<string, number>>
}

export interface Soaked {
  readonly phases: readonly Phase[]
  readonly errorCount: number
  /** The first of them. */
  readonly errors: readonly string[]
}

/** A KMS process as operators start it, and what is counted of its clients. */
interface Stage {
  readonly directory: string
  readonly kms: KmsProcess
  readonly clients: readonly SoakClient[]
  readonly links: readonly Overheard[]
  /** Of the hostile clients. */
  readonly stranger: KmsLink
  readonly count: Count
  readonly unwrapsPerSession: number
  readonly say: (text: string) => void
}

/** What one part has come to so far; clients count into the one that is under way. */
class Count {
  sessions = 0
  unwraps = 0
  steps = freshSteps()
  errorCount = 0
  readonly errors: string[] = []
  readonly refused = new Set<string>()

  begin(): void {
    ;[this.sessions, this.unwraps, this.steps] = [0, 0, freshSteps()]
  }

  took(step: Step, ms: number, count: number): void {
    this.steps[step].add(ms)
    if (step === 'unwrap') this.unwraps += count
  }

  fail(what: string): void {
    this.errorCount++
    if (this.errors.length < TOLD_COUNT_MAX) this.errors.push(what)
  }
}

const freshSteps = (): Record<Step, Latencies> =>
  Object.fromEntries(STEPS.map((step) => [step, new Latencies()])) as Record<Step, Latencies>

/** @param say - told how far it is. */
export const soak = async (
  parts: readonly Part[],
  options: { readonly unwrapsPerSession: number; readonly say: (text: string) => void },
): Promise<Soaked> => {
  const root = await mkdtemp(join(tmpdir(), 'keyrise-soak-'))
  try {
    const platform = new TestPlatform()
    const directory = join(root, 'kms')
    const policy = join(root, 'policy.json')
    const images = [{ name: 'soak', measurement: toHex(IMAGE) }]
    await writeFile(policy, JSON.stringify({ platforms: [toHex(platform.publicKey)], images }))
    await mkdir(directory)
    await initKms(directory)
    await using kms = await KmsProcess.serve(directory, policy)
    const connected = await Promise.all(Array.from({ length: CLIENT_COUNT + 1 }, () => connectKms(kms.url)))
    try {
      const count = new Count()
      const [stranger, ...honest] = connected as [KmsLink, ...KmsLink[]]
      const links = honest.map((link) => new Overheard(link))
      const clients = links.map((link, index) => {
        const took = count.took.bind(count)
        return new SoakClient({
          kms: link,
          kmsIdentity: stranger.identity,
          platform,
          image: IMAGE,
          flow: `soak-${String(index)}`,
          took,
        })
      })
      const phases: Phase[] = []
      for (const part of parts)
        phases.push(await run(part, { directory, kms, clients, links, stranger, count, ...options }))
      for (const what of REFUSED) if (!count.refused.has(what)) count.fail(`${what}: it was never refused`)
      return { phases, errorCount: count.errorCount, errors: count.errors }
    } finally {
      await Promise.all(connected.map((link) => link.close()))
    }
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

const run = async ({ name, until, isHostile }: Part, stage: Stage): Promise<Phase> => {
  const { count, clients, kms, links, directory, say } = stage
  count.begin()
  const [kmsCpu, ownCpu, startMs] = [await kms.cpuSeconds(), process.cpuUsage(), performance.now()]
  const secondsSo = (): number => (performance.now() - startMs) / 1000
  let begun = 0
  const mayBegin = (): boolean => secondsSo() < (until.seconds ?? 0) || begun < (until.sessions ?? 0)
  const timer = setInterval(() => say(progress(name, count, secondsSo())), SAY_MS)
  let hostile: Readonly<Record<string, number>> = {}
  try {
    await using hostiles = isHostile ? beginHostiles(stage) : undefined
    await Promise.all(
      clients.map(async (client) => {
        while (mayBegin()) {
          begun++
          await client.session(stage.unwrapsPerSession).then(
            () => count.sessions++,
            (error: unknown) => count.fail(String(error)),
          )
        }
      }),
    )
    hostile = hostiles?.counts ?? {}
  } finally {
    clearInterval(timer)
  }
  const seconds = secondsSo()
  const { user, system } = process.cpuUsage(ownCpu)
  const cpu = { kmsCpuSeconds: (await kms.cpuSeconds()) - kmsCpu, clientsCpuSeconds: (user + system) / 1e6 }
  for (const link of links) link.last = undefined
  const rssMiB = await settledMiB(kms)
  const logMiB = (await stat(join(directory, 'ledger.log'))).size / 2 ** 20
  say(`${progress(name, count, seconds)}; idle, the KMS takes ${rssMiB.toFixed(1)} MiB`)
  const { sessions, unwraps, steps } = count
  return { name, sessions, unwraps, seconds, ...cpu, steps, rssMiB, logMiB, hostile }
}

const beginHostiles = ({ kms, links, stranger, count }: Stage): Hostiles => {
  let turn = 0
  return new Hostiles({
    url: kms.url,
    kms: stranger,
    overheard: () => links[++turn % links.length]?.last,
    refused: count.refused,
    violated: (what) => count.fail(what),
  })
}

const progress = (name: string, { sessions, unwraps, steps, errorCount }: Count, seconds: number): string =>
  `${name}: ${seconds.toFixed(0)} s, ${String(sessions)} sessions, ${String(unwraps)} unwraps (${(unwraps / seconds).toFixed(0)}/s), ` +
  `p99 of a call ${steps.unwrap.quantileMs(0.99).toFixed(0)} ms, ${String(errorCount)} errors`

const settledMiB = async (kms: KmsProcess): Promise<number> => {
  let least = Infinity
  for (let sample = 0; sample < SETTLE_SAMPLE_COUNT; sample++) {
    await delay(SETTLE_SAMPLE_MS)
    least = Math.min(least, await kms.memory('VmRSS'))
  }
  return least
}
