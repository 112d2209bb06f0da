import { SimulatedPlatform, type EnclaveEvent } from 'keyrise'
import { KillablePlatform, Recorder } from 'keyrise/faults'
import { randomInt } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Federation, type FederationImages } from './federation.js'
import { Executioner, type DoneKill } from './kills.js'
import { KmsProcess, type KmsPlace } from './kms-process.js'
import type { Release } from './messages.js'
import { accuracyOf, encodeNumbers, modelDigest, standardise } from './model.js'
import type { Records } from './records.js'
import { replayReleases } from './replay.js'
import { DROPOUT_ROUND_COUNT, participantsOf, type Schedule } from './schedule.js'
import type { HospitalFlow, Split } from './split.js'

/** What a run tells while it goes on; times count from its start. */
export type JobEvent = { readonly atMs: number } & (
  | { readonly type: 'phase'; readonly name: string }
  | { readonly type: 'serving'; readonly flow: string; readonly recoveredInMs: number | undefined }
  | { readonly type: 'lost'; readonly flow: string }
  | { readonly type: 'killed'; readonly kill: DoneKill }
  | { readonly type: 'kms-killed' }
  | { readonly type: 'kms-restored'; readonly tookMs: number }
  | { readonly type: 'away' | 'back'; readonly flow: string }
  | { readonly type: 'round'; readonly round: RoundFigures }
  | { readonly type: 'end' }
)
type JobEventDetail = JobEvent extends infer Event ? (Event extends unknown ? Omit<Event, 'atMs'> : never) : never

export interface RoundFigures {
  readonly round: number
  readonly participants: readonly string[]
  /** Mean over the participants’ patients, before the round’s step; none in round 0. */
  readonly loss: number | undefined
  /** Of the model after the round, on the test set. */
  readonly accuracy: number | undefined
}

export interface JobOptions {
  readonly directory: string
  readonly split: Split
  readonly schedule: Schedule
  readonly roundCount: number
  readonly images: FederationImages
  /** scrypt’s, for the passphrase of the keyring. */
  readonly workFactor: number
  readonly onEvent: (event: JobEvent) => void
}

export interface JobResult {
  readonly accuracy: number
  readonly modelDigest: string
  readonly events: readonly JobEvent[]
  readonly rounds: readonly RoundFigures[]
  readonly place: KmsPlace
  readonly passphrase: Uint8Array
  /** By flow, then by entry, in hex. */
  readonly receipts: Readonly<Record<string, Readonly<Record<string, string>>>>
  /** How many running enclaves were ended. */
  readonly enclaveKills: number
}

/** Runs the whole task once, in a directory of its own, with whatever the schedule lets go wrong. */
export const runJob = async (options: JobOptions): Promise<JobResult> => {
  const { directory, schedule, images, roundCount, split } = options
  const startMs = performance.now()
  const events: JobEvent[] = []
  const tell = (detail: JobEventDetail): void => {
    const event: JobEvent = { atMs: performance.now() - startMs, ...detail }
    events.push(event)
    options.onEvent(event)
  }

  tell({ type: 'phase', name: 'starting the KMS' })
  using recorder = new Recorder(join(directory, 'messages'))
  const machine = await SimulatedPlatform.open(join(directory, 'machine'))
  const platform = new KillablePlatform(recorder.platform(machine))
  const place = layOut(directory, { platform: machine.publicKey, images })
  const passphrase = randomPassphrase()
  const kms = new KmsProcess(place, passphrase)
  await kms.init(options.workFactor)
  await kms.start()
  try {
    const executioner = new Executioner({
      schedule,
      platform,
      onKill: (kill) => tell({ type: 'killed', kill }),
      killKms: async () => {
        await kms.kill()
        tell({ type: 'kms-killed' })
        federation.kmsReady = restoreKms(kms, tell)
      },
    })
    tell({ type: 'phase', name: 'launching enclaves' })
    await using federation = await Federation.open({
      ...{ directory, images, platform, recorder, kms, roundCount, executioner, shares: split.shares },
      onEvent: followEnclaves(tell),
    })
    const rounds = await runTask(federation, options, tell)
    const model = replayReleases(federation.releases).model
    const weights = encodeNumbers(model.weights)
    const copies = await federation.conclude()
    if (!copies.every((copy) => Buffer.compare(copy, weights) === 0)) throw new Error('the hospitals’ models differ')
    if (executioner.pending.length > 0) throw new Error(`not killed: ${JSON.stringify(executioner.pending)}`)
    tell({ type: 'end' })
    return {
      ...{ events, rounds, place, passphrase },
      accuracy: rounds.at(-1)?.accuracy ?? 0,
      modelDigest: modelDigest(model),
      receipts: Object.fromEntries(
        [...federation.receipts].map(([flow, entries]) => [flow, Object.fromEntries(entries)]),
      ),
      enclaveKills: platform.killCount,
    }
  } finally {
    await kms.stop()
  }
}

type Tell = (detail: JobEventDetail) => void

const runTask = async (
  federation: Federation,
  { schedule, roundCount, split }: JobOptions,
  tell: Tell,
): Promise<RoundFigures[]> => {
  tell({ type: 'phase', name: 'making keys, sealing records' })
  const homomorphicKey = await federation.enrol()
  tell({ type: 'phase', name: 'agreeing on terms and sessions' })
  await federation.agree(homomorphicKey)
  const { flow, firstRound } = schedule.dropout
  const figures: RoundFigures[] = []
  for (let round = 0; round <= roundCount; round++) {
    tell({
      type: 'phase',
      name: round === 0 ? 'round 0: statistics' : `round ${String(round)} of ${String(roundCount)}`,
    })
    if (round === firstRound) {
      await federation.leave(flow as HospitalFlow)
      tell({ type: 'away', flow })
    }
    if (round === firstRound + DROPOUT_ROUND_COUNT) {
      await federation.join(flow as HospitalFlow)
      tell({ type: 'back', flow })
    }
    const participants = participantsOf(schedule, round)
    await federation.runRound(round, participants)
    const figure = { round, participants, ...measure(federation.releases, split.test) }
    figures.push(figure)
    tell({ type: 'round', round: figure })
  }
  tell({ type: 'phase', name: 'predicting, delivering results' })
  return figures
}

/** What anyone can tell from the public releases. */
const measure = (releases: readonly Release[], test: Records): Pick<RoundFigures, 'loss' | 'accuracy'> => {
  const { scaling, model, gradients } = replayReleases(releases)
  const last = gradients.at(-1)
  if (last === undefined) return { loss: undefined, accuracy: undefined }
  return { loss: last.loss / last.count, accuracy: accuracyOf(standardise(test, scaling), model) }
}

const restoreKms = async (kms: KmsProcess, tell: Tell): Promise<void> => {
  const sinceMs = performance.now()
  await kms.start()
  tell({ type: 'kms-restored', tookMs: performance.now() - sinceMs })
}

const followEnclaves = (tell: Tell): ((flow: string, event: EnclaveEvent) => void) => {
  const lost = new Set<string>()
  return (flow, event) => {
    if (event.type === 'lost') {
      lost.add(flow)
      tell({ type: 'lost', flow })
    } else if (event.type === 'ready') {
      tell({ type: 'serving', flow, recoveredInMs: lost.delete(flow) ? event.tookMs : undefined })
    }
  }
}

/** The KMS's directory, the third place for its keyring, and the policy: which platform and which two images get keys. */
export const layOut = (
  directory: string,
  { platform, images }: { platform: Uint8Array; images: FederationImages },
): KmsPlace => {
  for (const name of ['custody', 'kms']) mkdirSync(join(directory, name), { recursive: true })
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const policy = {
    platforms: [hex(platform)],
    images: Object.entries(images).map(([name, { measurement }]) => ({
      name,
      measurement: hex(measurement as Uint8Array),
    })),
  }
  const place = {
    directory: join(directory, 'kms'),
    custody: join(directory, 'custody', 'keyring.age'),
    policy: join(directory, 'policy.json'),
    log: join(directory, 'kms.log'),
  }
  writeFileSync(place.policy, JSON.stringify(policy, null, 2))
  return place
}

const PASSPHRASE_SIZE = 32
const PASSPHRASE_SIGNS = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789')

/** 190 bits, as signs that a person could type; bytes, never a string. */
export const randomPassphrase = (): Uint8Array =>
  Uint8Array.from({ length: PASSPHRASE_SIZE }, () => PASSPHRASE_SIGNS[randomInt(PASSPHRASE_SIGNS.length)] ?? 0)
