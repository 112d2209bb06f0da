import { isKeyriseError, launch, MemoryStore, SimulatedPlatform, type Store } from 'keyrise'
import { KillablePlatform, Recorder } from 'keyrise/faults'
import { generateKeyPairSync, sign } from 'node:crypto'
import { join } from 'node:path'
import { addContributions } from './aggregator.js'
import { Federation, TASK, type FederationImages } from './federation.js'
import { loadScheme } from './homomorphic.js'
import { layOut, randomPassphrase } from './job.js'
import { Executioner } from './kills.js'
import { KmsProcess } from './kms-process.js'
import type { Contribution } from './messages.js'
import type { Paint } from './report.js'
import { planSchedule, withoutKills } from './schedule.js'
import type { Split } from './split.js'
import { contributionStatement } from './statements.js'

/** An aggregator and a host that cheat, each in one way at a time: what they try, and what refuses them. */

export interface TamperOptions {
  readonly directory: string
  readonly split: Split
  readonly images: FederationImages
  readonly line: (text?: string) => void
  readonly paint: Paint
}

export interface Attempt {
  readonly title: string
  /** A code, and with ERR_APPLICATION the reason. */
  readonly expected: string
  readonly attempt: () => Promise<unknown>
}

/** What `attempt` was refused with, as in `Attempt.expected`; undefined where it went through. */
const refusalOf = async (attempt: () => Promise<unknown>): Promise<string | undefined> => {
  try {
    await attempt()
    return undefined
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    return error.reason === undefined ? error.code : `${error.code} ${error.reason}`
  }
}

/** A reason that the image declares. */
const refused = (reason: string): string => `ERR_APPLICATION ${reason}`

const WORK_FACTOR = 12
const ROUND_COUNT = 3
const VICTIM = 'oncology'

/** @returns true when every attempt was refused as it should be, and the honest job went on all the same. */
export const runTampering = async ({ directory, split, images, line, paint }: TamperOptions): Promise<boolean> => {
  using recorder = new Recorder(join(directory, 'messages'))
  const machine = await SimulatedPlatform.open(join(directory, 'machine'))
  const platform = new KillablePlatform(machine)
  const kms = new KmsProcess(layOut(directory, { platform: machine.publicKey, images }), randomPassphrase())
  await kms.init(WORK_FACTOR)
  await kms.start()
  let refusedCount = 0
  let attemptCount = 0
  const tryAll = async (attempts: readonly Attempt[]): Promise<void> => {
    for (const { title, expected, attempt } of attempts) {
      const refusal = await refusalOf(attempt)
      attemptCount++
      if (refusal === expected) refusedCount++
      const said =
        refusal === expected
          ? paint('good', `refused: ${refusal}`)
          : paint('bad', `${refusal ?? 'WENT THROUGH'}, not ${expected}`)
      line(`  ${title.padEnd(66)}${said}`)
    }
  }
  try {
    const schedule = withoutKills(planSchedule({ seed: 1, kills: 0, roundCount: ROUND_COUNT }))
    const nobody = () => Promise.resolve()
    const executioner = new Executioner({ schedule, platform, killKms: nobody, onKill: () => undefined })
    let lie: Store | undefined
    await using federation = await Federation.open({
      ...{ directory, images, platform, recorder, kms, executioner, roundCount: ROUND_COUNT, shares: split.shares },
      onEvent: () => undefined,
      serve: (flow, store) => (flow === VICTIM ? (lie ?? store) : store),
    })
    const scene: Scene = { federation, images, lieWith: (store) => (lie = store) }
    await cheatAsAggregator(scene, tryAll, line, paint)
    await cheatAsHost(scene, tryAll, line, paint)
    line(paint('strong', '\nAnd the honest job goes on'))
    await federation.runRound(3, federation.terms.hospitals)
    await federation.conclude()
    line(`  ${'round 3 is summed, every hospital has its model'.padEnd(66)}${paint('good', 'done')}`)
  } finally {
    await kms.stop()
  }
  line()
  line(`${String(refusedCount)} of ${String(attemptCount)} attempts refused as they should be.`)
  return refusedCount === attemptCount
}

interface Scene {
  readonly federation: Federation
  readonly images: FederationImages
  readonly lieWith: (store: Store | undefined) => void
}
type TryAll = (attempts: readonly Attempt[]) => Promise<void>

const cheatAsAggregator = async (
  { federation }: Scene,
  tryAll: TryAll,
  line: TamperOptions['line'],
  paint: Paint,
): Promise<void> => {
  const { terms } = federation
  const hospitals = terms.hospitals
  const homomorphicKey = await federation.enrol()
  const own = (await loadScheme()).createKeys()
  line(paint('strong', '\nAn aggregator that cheats'))
  await tryAll([
    {
      title: 'proposes terms under which one hospital makes a sum',
      expected: 'ERR_ARGUMENT_INVALID',
      attempt: () => federation.party(VICTIM).ecalls.join({ terms: { ...terms, quorum: 1 }, homomorphicKey }),
    },
    {
      title: 'puts its own homomorphic key in place of the decryptor’s',
      expected: refused('key-substituted'),
      attempt: () => federation.party(VICTIM).ecalls.join({ terms, homomorphicKey: own.publicKey }),
    },
  ])
  await federation.agree(homomorphicKey)
  const old = await contributionsTo(federation, 0)
  await federation.release(0, old)
  const contributions = await contributionsTo(federation, 1)
  const [first, ...others] = contributions as [Contribution, ...Contribution[]]
  const release = (changed: Contribution[], sumOf = changed) =>
    addContributions(sumOf).then((sum) =>
      federation.decryptor.ecalls.release({ round: 1, sum, contributions: changed }),
    )
  const forged = await forge(first, homomorphicKey)
  await tryAll([
    {
      title: 'signs a contribution with a key of its own',
      expected: refused('contribution-invalid'),
      attempt: () => release([forged, ...others]),
    },
    {
      title: 'replays the contributions of the round before',
      expected: refused('contribution-invalid'),
      attempt: () => release(old.map((contribution) => ({ ...contribution, round: 1 }))),
    },
    {
      title: 'asks for one hospital’s values alone',
      expected: refused('quorum-missing'),
      attempt: () => release([first]),
    },
    { title: 'counts one hospital twice', expected: refused('quorum-missing'), attempt: () => release([first, first]) },
    {
      title: 'leaves one hospital out of the sum',
      expected: refused('sum-differs'),
      attempt: () => release(contributions, others),
    },
  ])
  const answer = await federation.release(1, contributions)
  const steered = { ...answer, sum: answer.sum.map((byte, index) => (index === 0 ? byte ^ 1 : byte)) }
  await tryAll([
    {
      title: 'asks for a second sum of the same round, without one hospital',
      expected: refused('round-answered'),
      attempt: () => release(others),
    },
    {
      title: 'gives a hospital a sum that the decryptor did not release',
      expected: refused('release-invalid'),
      attempt: () =>
        federation
          .party(VICTIM)
          .ecalls.train({ round: 2, participants: hospitals, releases: [...federation.releases.slice(0, 1), steered] }),
    },
    {
      title: 'asks a hospital for the same round with other participants',
      expected: refused('round-fixed'),
      attempt: () =>
        federation.party(VICTIM).ecalls.train({
          round: 1,
          participants: hospitals.filter((hospital) => hospital !== 'screening-south'),
          releases: federation.releases.slice(0, 1),
        }),
    },
  ])
}

const cheatAsHost = async (
  { federation, images, lieWith }: Scene,
  tryAll: TryAll,
  line: TamperOptions['line'],
  paint: Paint,
): Promise<void> => {
  const honest = federation.storeOf(VICTIM)
  const older = await snapshot(honest, VICTIM)
  await federation.runRound(2, federation.terms.hospitals)
  await federation.leave(VICTIM)
  const swapped = await snapshot(honest, VICTIM)
  for (const name of await honest.list(`${VICTIM}/epoch-`)) {
    const [others] = (await honest.list('screening-north/epoch-')).slice(-1)
    const bytes = others === undefined ? undefined : await honest.get(others)
    await swapped.delete(name)
    if (bytes !== undefined) await swapped.put(name, bytes)
  }
  const relaunchWith = (store: Store) => async () => {
    lieWith(store)
    await federation.join(VICTIM)
  }
  line(paint('strong', '\nA host that cheats'))
  await tryAll([
    { title: 'serves the state of one round ago', expected: 'ERR_ROLLBACK', attempt: relaunchWith(older) },
    { title: 'serves another hospital’s envelopes', expected: 'ERR_STATE_LOST', attempt: relaunchWith(swapped) },
    { title: 'serves an empty directory', expected: 'ERR_STATE_LOST', attempt: relaunchWith(new MemoryStore()) },
    {
      title: 'runs another program with the hospital’s state',
      expected: 'ERR_POLICY_DENIED',
      attempt: () => launch({ ...federation.surroundingsOf(VICTIM), image: images.decryptor, task: TASK }),
    },
  ])
  lieWith(undefined)
  await federation.join(VICTIM)
}

const contributionsTo = async (federation: Federation, round: number): Promise<Contribution[]> => {
  const contributions: Contribution[] = []
  for (const flow of ['oncology', 'screening-north', 'screening-south'] as const) {
    contributions.push(await federation.contribute(flow, round, federation.terms.hospitals))
  }
  return contributions
}

/** Values of the aggregator’s choice, encrypted with the right key, signed with the wrong one. */
const forge = async (contribution: Contribution, homomorphicKey: Uint8Array): Promise<Contribution> => {
  const ciphertext = (await loadScheme()).encrypt(homomorphicKey, Uint32Array.of(1))
  const { privateKey } = generateKeyPairSync('ed25519')
  const changed = { ...contribution, ciphertext }
  const signature = sign(null, contributionStatement(TASK, new Uint8Array(16), changed), privateKey)
  return { ...changed, signature: new Uint8Array(signature) }
}

/** A copy of what a flow has in its store now. */
const snapshot = async (store: Store, flow: string): Promise<MemoryStore> => {
  const copy = new MemoryStore()
  for (const name of await store.list(`${flow}/`)) {
    const bytes = await store.get(name)
    if (bytes !== undefined) await copy.put(name, bytes)
  }
  return copy
}
