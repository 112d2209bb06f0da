import test from 'ava'
import fc from 'fast-check'
import {
  DROPOUT_ROUND_COUNT,
  KILL_MOMENTS,
  participantsOf,
  planSchedule,
  stepsOf,
  withoutKills,
  type Schedule,
} from '../../examples/federated-learning/schedule.js'

const ROUND_COUNT = 12
const seeds = fc.nat(1_000_000)
const livesOf = ({ kills }: Schedule): number =>
  kills.reduce((lives, { moment }) => lives + (moment === 'recovering' ? 2 : 1), 0)

test('a seed repeats a schedule; another seed makes another', (t) => {
  const options = { seed: 5, kills: 16, roundCount: ROUND_COUNT }
  t.deepEqual(planSchedule(options), planSchedule(options))
  t.notDeepEqual(planSchedule(options), planSchedule({ ...options, seed: 6 }))
})

test('as many die as were asked for, each in a step of its own that the run has', (t) => {
  const property = fc.property(seeds, fc.nat(40), (seed, kills) => {
    const schedule = planSchedule({ seed, kills, roundCount: ROUND_COUNT })
    const steps = new Set(stepsOf(schedule, ROUND_COUNT).map(({ flow, step }) => `${flow} ${step}`))
    const planned = schedule.kills.map(({ flow, step }) => `${flow} ${step}`)
    return (
      livesOf(schedule) === kills && new Set(planned).size === planned.length && planned.every((one) => steps.has(one))
    )
  })
  t.notThrows(() => {
    fc.assert(property)
  })
})

test('twelve deaths meet every moment', (t) => {
  for (let seed = 0; seed < 50; seed++) {
    const { kills } = planSchedule({ seed, kills: 12, roundCount: ROUND_COUNT })
    t.deepEqual(new Set(kills.map(({ moment }) => moment)), new Set(KILL_MOMENTS))
  }
})

test('one hospital is away for two rounds, comes back, and the quorum stays', (t) => {
  const property = fc.property(seeds, (seed) => {
    const { dropout } = planSchedule({ seed, kills: 0, roundCount: ROUND_COUNT })
    const sizes = Array.from({ length: ROUND_COUNT + 1 }, (_, round) => participantsOf({ dropout }, round).length)
    const away = sizes.filter((size) => size === 2).length
    return (
      away === DROPOUT_ROUND_COUNT && sizes.every((size) => size >= 2) && sizes[0] === 3 && sizes[ROUND_COUNT] === 3
    )
  })
  t.notThrows(() => {
    fc.assert(property)
  })
})

test('the KMS dies while a hospital commits that takes part in the round', (t) => {
  const property = fc.property(seeds, (seed) => {
    const schedule = planSchedule({ seed, kills: 16, roundCount: ROUND_COUNT })
    const { kmsKill } = schedule
    return (
      kmsKill !== undefined &&
      kmsKill.round <= ROUND_COUNT &&
      participantsOf(schedule, kmsKill.round).includes(kmsKill.flow)
    )
  })
  t.notThrows(() => {
    fc.assert(property)
  })
})

test('the run without kills has the same participants', (t) => {
  const schedule = planSchedule({ seed: 3, kills: 16, roundCount: ROUND_COUNT })
  t.deepEqual(withoutKills(schedule), { kills: [], kmsKill: undefined, dropout: schedule.dropout })
})

test('more kills than steps are refused', (t) => {
  t.throws(() => planSchedule({ seed: 1, kills: 1000, roundCount: ROUND_COUNT }), { instanceOf: RangeError })
})
