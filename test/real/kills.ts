import { Stage } from './stage.js'

/** What came of one kind of death. */
export interface Result {
  readonly name: string
  /** How many processes were killed, or faults injected. */
  readonly count: number
  /** At how many different moments, of how many there are. */
  readonly covered: string
  /** The moments’ names, each once. */
  readonly moments: readonly string[]
  readonly statesCompared: number
  readonly violations: readonly string[]
}

/** `count` numbers below `total`, spread over all of them; each again and again where there are fewer. */
export const spread = (count: number, total: number): number[] =>
  Array.from({ length: count }, (_, index) =>
    count < total ? Math.floor((index * total) / count) : index % Math.max(1, total),
  )

const nameOf = (moment: string): string => moment.replace(/^\d+ /, '')

export const resultOf = (name: string, stage: Stage, moments: readonly string[], total: number): Result => {
  const { violations, stateCount } = stage.witness
  return {
    name,
    count: moments.length,
    covered: `${new Set(moments.map((moment) => moment.split(' ')[0])).size} of ${total}`,
    moments: [...new Set(moments.map(nameOf))].sort(),
    statesCompared: stateCount,
    violations,
  }
}

const lastFailure = ({ witness }: Stage): string => witness.failures.at(-1) ?? ''

export type Progress = (text: string) => void

/** Each host recovers what the one before it left, the deaths in recovery included, and dies at the next moment itself. */
export const killHosts = async (count: number, progress: Progress): Promise<Result> => {
  await using stage = await Stage.open()
  await stage.startKms()
  await stage.runHost({})
  const { count: total = 0, status } = await stage.runHost({})
  if (total === 0) throw new Error(`the host did not end by itself: ${status}`)
  const moments: string[] = []
  for (const killAt of spread(count, total)) {
    const { moment, status: ending } = await stage.runHost({}, { killAt }, `host killed at ${killAt}`)
    if (moment !== undefined) moments.push(moment)
    else if (ending !== 'exit 0 ') stage.witness.violations.push(`host to be killed at ${killAt}: ${ending}`)
    progress(`host ${moments.length}/${count}: ${moment ?? 'ended before its moment'}`)
  }
  await stage.runSound('the last host')
  return resultOf('SIGKILL of the host', stage, moments, total)
}

/** One host lives through the deaths of its KMS, which dies at start and between any two operations while it serves. */
export const killKms = async (count: number, progress: Progress): Promise<Result> => {
  await using stage = await Stage.open()
  const probe = await stage.startKms()
  await stage.runHost({})
  await stage.endKms('SIGTERM')
  const { count: total = 0 } = await probe.ended
  const moments: string[] = []
  let host: ReturnType<Stage['startHost']> | undefined
  for (const killAt of spread(count, total)) {
    const { ended } = await stage.startKms({ killAt })
    host ??= stage.startHost({ roundCount: 1_000_000 }, {}, 'the KMS killed')
    const { moment, status } = await Promise.race([ended, host.ended])
    if (moment !== undefined) moments.push(moment)
    else stage.witness.violations.push(`KMS to be killed at ${killAt}: ${status}${lastFailure(stage)}`)
    progress(`KMS ${moments.length}/${count}: ${moment ?? status}`)
    if (moment === undefined) break
  }
  await stage.startKms()
  host?.stop()
  const last = await host?.ended
  if (last?.status !== 'exit 0 ')
    stage.witness.violations.push(`the host: ${last?.status ?? 'none'}${lastFailure(stage)}`)
  await stage.runSound('the last host')
  return resultOf('SIGKILL of the KMS', stage, moments, total)
}

/** One host, whose enclave processes die at every moment of a recovery and of the rounds behind it. */
export const killEnclaves = async (count: number, momentCount: number, progress: Progress): Promise<Result> => {
  await using stage = await Stage.open()
  await stage.startKms()
  const enclaveKills = spread(count, momentCount)
  const { status } = await stage.runHost(
    { enclaveKills, roundCount: 1_000_000, untilKilled: true },
    {},
    'the enclave killed',
  )
  if (status !== 'exit 0 ') stage.witness.violations.push(`the host: ${status}`)
  await stage.runSound('the last host')
  const moments = stage.witness.killed.map((name, index) => `${String(enclaveKills[index])} ${name}`)
  progress(`enclave ${moments.length}/${count}`)
  if (moments.length < count) stage.witness.violations.push(`${count - moments.length} enclaves were not killed`)
  return resultOf('SIGKILL of the enclave process', stage, moments, momentCount)
}
