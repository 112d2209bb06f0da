import { SeededSequence } from './seeded.js'
import { HOSPITAL_FLOWS } from './split.js'

/** What goes wrong and when, by logical step and never by the clock, so that a seed replays it. */

export const DECRYPTOR_FLOW = 'decryptor'
export const FLOWS: readonly string[] = [...HOSPITAL_FLOWS, DECRYPTOR_FLOW]
export const KILLS_DEFAULT = 16

/**
 * When an enclave dies, within a step:
 * - `between-calls`: before the step's call is made.
 * - `call-posted`: the call is on its way.
 * - `write-lost`, `write-done`: in the middle of the OCALL that writes its checkpoint; the file never came to be, or did.
 * - `commit-lost`, `commit-done`: the file is written; the KMS never heard of it, or has recorded it and the answer is lost.
 * - `recovering`: before the call, and the instance that replaces it dies as well, while it recovers: two deaths.
 */
export const KILL_MOMENTS = [
  'between-calls',
  'write-done',
  'recovering',
  'commit-done',
  'call-posted',
  'write-lost',
  'commit-lost',
] as const
export type KillMoment = (typeof KILL_MOMENTS)[number]

export interface PlannedKill {
  readonly flow: string
  readonly step: string
  readonly moment: KillMoment
  /** For `recovering`: how many calls to store and KMS the second instance gets to make. */
  readonly recoveryCallCount: number
}

export interface Schedule {
  readonly kills: readonly PlannedKill[]
  /** The KMS process dies in this round, while this hospital commits. */
  readonly kmsKill: { readonly round: number; readonly flow: string } | undefined
  /** A hospital is away from `firstRound` for DROPOUT_ROUND_COUNT rounds. */
  readonly dropout: { readonly flow: string; readonly firstRound: number }
}

export const DROPOUT_ROUND_COUNT = 2

export const roundStep = (round: number): string => `round-${String(round)}`

/** Who takes part in a round, sorted. */
export const participantsOf = ({ dropout }: Pick<Schedule, 'dropout'>, round: number): string[] => {
  const away = round >= dropout.firstRound && round < dropout.firstRound + DROPOUT_ROUND_COUNT
  return HOSPITAL_FLOWS.filter((flow) => !away || flow !== dropout.flow).sort()
}

/** All calls that a run makes, flow by flow: those whose enclave may be killed. */
export const stepsOf = (schedule: Pick<Schedule, 'dropout'>, roundCount: number): { flow: string; step: string }[] => {
  const rounds = Array.from({ length: roundCount + 1 }, (_, round) => round)
  return FLOWS.flatMap((flow) => {
    const steps =
      flow === DECRYPTOR_FLOW
        ? ['open', ...HOSPITAL_FLOWS.map((hospital) => `admit-${hospital}`), ...rounds.map(roundStep)]
        : [
            ...['enrol', 'prepare', 'join', 'accept'],
            ...rounds.filter((round) => participantsOf(schedule, round).includes(flow)).map(roundStep),
            'conclude',
          ]
    return steps.map((step) => ({ flow, step }))
  })
}

/** A kill while recovering takes two lives. */
const livesOf = (moment: KillMoment): number => (moment === 'recovering' ? 2 : 1)
/** Calls to store and KMS that every recovery makes at least. */
const RECOVERY_CALL_COUNT = 6

/**
 * The schedule of a seed. With N kills there are N deaths of enclaves, spread over all moments and all steps.
 * @throws {RangeError} when there are more kills than steps.
 */
export const planSchedule = (options: { seed: number; kills: number; roundCount: number }): Schedule => {
  const { seed, kills, roundCount } = options
  const sequence = new SeededSequence(seed, 'schedule')
  // Late enough that something is lost by it, early enough that the hospital comes back.
  const dropout = { flow: sequence.pick(HOSPITAL_FLOWS), firstRound: 3 + sequence.below(Math.max(1, roundCount - 6)) }
  const kmsRound = 2 + sequence.below(Math.max(1, roundCount - 3))
  const kmsKill = { round: kmsRound, flow: sequence.pick(participantsOf({ dropout }, kmsRound)) }

  const isKmsKill = (flow: string, step: string): boolean => flow === kmsKill.flow && step === roundStep(kmsKill.round)
  const free = sequence.shuffle(stepsOf({ dropout }, roundCount).filter(({ flow, step }) => !isKmsKill(flow, step)))
  const planned: PlannedKill[] = []
  let lives = 0
  for (let index = 0; lives < kills; index++) {
    const cycled = KILL_MOMENTS[index % KILL_MOMENTS.length] ?? 'between-calls'
    const moment = lives + livesOf(cycled) > kills ? 'between-calls' : cycled
    const step = free.pop()
    if (step === undefined) throw new RangeError(`at most ${String(lives)} kills fit into the steps of a run`)
    planned.push({ ...step, moment, recoveryCallCount: sequence.below(RECOVERY_CALL_COUNT) })
    lives += livesOf(moment)
  }
  return { kills: planned, kmsKill, dropout }
}

/** The same run with nobody killed: who takes part in which round is part of what is computed, so it stays. */
export const withoutKills = ({ dropout }: Schedule): Schedule => ({ kills: [], kmsKill: undefined, dropout })
