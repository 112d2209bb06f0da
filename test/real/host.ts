import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { faultyKms, faultyStore, KillablePlatform, type FaultPlan } from '../../faults/index.js'
import { connectKms, DirectoryStore, isKeyriseError, launch, readImage, SimulatedPlatform } from '../../host/index.js'
import type book from './book.enclave.js'
import type { HostPlan, Said } from './witness.js'

/** The host of one flow, as a process: recovers, says what it found, and writes rounds, each of which it announces and confirms. */
const plan = JSON.parse(process.argv[2] ?? '') as HostPlan
const say = (said: Said): void => void writeSync(1, `${JSON.stringify(said)}\n`)

const FLOW = 'book'
const platform = new KillablePlatform(await SimulatedPlatform.open(plan.machine))
const { keyriseMoment } = globalThis as { keyriseMoment?: (name: string) => void }

/** Moments since the last enclave was killed, which is done at the numbers that the plan lists. */
let count = 0
const kills = [...plan.enclaveKills]
const moments: FaultPlan = async ({ at, operation }) => {
  keyriseMoment?.(`${at} ${operation}`)
  if (count++ === kills[0]) {
    count = 0
    kills.shift()
    await platform.kill(FLOW)
    say({ killed: `${at} ${operation}` })
  }
  return undefined
}

/** What passes by itself: the KMS is being started again, or the enclave is. */
const PASSING = [
  'ERR_KMS_UNREACHABLE',
  'ERR_KMS_FAILED',
  'ERR_SESSION_INVALID',
  'ERR_ENCLAVE_LOST',
  'ERR_DEADLINE',
] as const
const ATTEMPT_COUNT_MAX = plan.untilFailure === true ? 1 : 600
const patiently = async <T>(work: () => Promise<T>): Promise<T> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isKeyriseError(error, ...PASSING) || attempt === ATTEMPT_COUNT_MAX) throw error
      await delay(100)
    }
  }
}
const codeOf = (error: unknown): string => (isKeyriseError(error) ? error.code : String(error))

try {
  const image = await readImage<typeof book>(plan.image)
  const kms = await patiently(() => connectKms(plan.url, { identity: Buffer.from(plan.identity, 'hex') }))
  const store = faultyStore(new DirectoryStore(plan.store), moments)
  const handle = await patiently(() =>
    launch<typeof book>({
      image,
      platform,
      store,
      kms: faultyKms(kms, moments),
      flow: FLOW,
      isolation: 'process',
      limits: { backoffMinMs: 1, backoffMaxMs: 200 },
    }),
  )
  const { ecalls } = handle
  const tellState = async (): Promise<void> => {
    const rounds = await patiently(() => ecalls.read())
    const signature = await patiently(() => ecalls.sign())
    say({ rounds, signature: Buffer.from(signature).toString('hex') })
  }
  await tellState()
  const told = new AbortController()
  process.stdin.resume().once('end', () => {
    told.abort()
  })
  for (let round = plan.firstRound; round < plan.firstRound + plan.roundCount && !told.signal.aborted; round++) {
    if (plan.untilKilled === true && kills.length === 0) break
    say({ intended: round })
    try {
      say({ acknowledged: round, epoch: await ecalls.write({ round, sizeBytes: plan.sizeBytes }) })
    } catch (error) {
      say({ failed: round, code: codeOf(error) })
      if (plan.untilFailure === true) break
      await tellState()
    }
  }
  await handle.close()
  await kms.close()
  process.exit(0)
} catch (error) {
  say({ failed: 0, code: codeOf(error) })
  process.exit(1)
}
