import test from 'ava'
import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import {
  accuracyOf,
  gradientOf,
  modelDigest,
  newModel,
  scalingOf,
  standardise,
  statisticsOf,
  trainAlone,
} from '../../examples/federated-learning/model.js'
import { PARTY_VALUE_MAX, quantiseGradient, restoreGradient } from '../../examples/federated-learning/quantise.js'
import {
  decodeRecords,
  encodeRecords,
  parseRecordsCsv,
  rowOf,
  selectRecords,
  type Records,
} from '../../examples/federated-learning/records.js'
import { planSchedule } from '../../examples/federated-learning/schedule.js'
import { HOSPITAL_FLOWS, splitRecords } from '../../examples/federated-learning/split.js'
import { federateInTheClear } from './federate.js'

const csv = readFileSync('examples/federated-learning/data/breast-cancer-wisconsin.csv', 'utf8')
const all = parseRecordsCsv(csv)
const sumOf = (bytes: Uint8Array): number => bytes.reduce((sum, byte) => sum + byte, 0)

const join = (parts: readonly Records[]): Records => ({
  count: parts.reduce((count, part) => count + part.count, 0),
  features: Float64Array.from(parts.flatMap(({ features }) => [...features])),
  malignant: Uint8Array.from(parts.flatMap(({ malignant }) => [...malignant])),
})

test('the data are 569 patients, 212 of them with a malignant tumour', (t) => {
  t.is(all.count, 569)
  t.is(sumOf(all.malignant), 212)
  t.is(rowOf(all, 1)[0], 20.57)
  t.throws(() => parseRecordsCsv(csv.replace('20.57', 'x')), { message: /line 3/ })
})

test('records survive encoding, and nothing of another size is taken for them', (t) => {
  const some = selectRecords(all, [3, 500, 7])
  t.deepEqual(decodeRecords(encodeRecords(some)), some)
  t.throws(() => decodeRecords(encodeRecords(some).subarray(1)), { instanceOf: RangeError })
})

test('a split gives every patient to exactly one hospital or to the test set, and a seed repeats it', (t) => {
  const { test: held, shares } = splitRecords(all, 7)
  const parts = [held, ...HOSPITAL_FLOWS.map((flow) => shares[flow])]
  const keysOf = (records: Records): string[] =>
    Array.from({ length: records.count }, (_, index) => rowOf(records, index).join()).sort()
  t.deepEqual(keysOf(join(parts)), keysOf(all))
  t.deepEqual(splitRecords(all, 7), { test: held, shares })
  t.notDeepEqual(splitRecords(all, 8).test, held)
})

test('hospitals differ: a clinic sees almost only the ill, a screening centre almost only the healthy', (t) => {
  const { shares } = splitRecords(all, 1)
  const illShare = (records: Records): number => sumOf(records.malignant) / records.count
  t.true(illShare(shares.oncology) > 0.9)
  t.true(illShare(shares['screening-north']) < 0.05)
  t.true(illShare(shares['screening-south']) < 0.05)
})

test('the gradient is that of the loss, by finite differences', (t) => {
  const records = selectRecords(all, [0, 100, 200, 300, 400, 500])
  const scaled = standardise(records, scalingOf(statisticsOf(all)))
  const weights = Float64Array.from({ length: 31 }, (_, index) => Math.sin(index) / 5)
  const at = (changed: Float64Array): number =>
    gradientOf(scaled, { weights: changed, velocity: new Float64Array(31) }).loss
  const { values } = gradientOf(scaled, { weights, velocity: new Float64Array(31) })
  for (const index of [0, 13, 30]) {
    const step = 1e-6
    const slope =
      (at(weights.with(index, (weights[index] ?? 0) + step)) - at(weights.with(index, (weights[index] ?? 0) - step))) /
      (2 * step)
    t.true(Math.abs(slope - (values[index] ?? 0)) < 1e-5)
  }
})

test('three hospitals that add quantised gradients learn what one with all the data would, and visibly more than any alone', (t) => {
  const figures = Array.from({ length: 20 }, (_, seed) => {
    const { test: held, shares } = splitRecords(all, seed)
    const parts = HOSPITAL_FLOWS.map((flow) => shares[flow])
    const together = federateInTheClear(shares, planSchedule({ seed, kills: 0, roundCount: 12 }), 12)
    const pooled = trainAlone(join(parts), 12)
    const alone = parts.map((part) => trainAlone(part, 300))
    return {
      federated: accuracyOf(standardise(held, together.scaling), together),
      pooled: accuracyOf(standardise(held, pooled.scaling), pooled.model),
      best: Math.max(...alone.map(({ model, scaling }) => accuracyOf(standardise(held, scaling), model))),
    }
  })
  const meanOf = (name: 'federated' | 'pooled' | 'best'): number =>
    figures.reduce((sum, figure) => sum + figure[name], 0) / figures.length
  t.true(meanOf('federated') > 0.96)
  t.true(Math.abs(meanOf('federated') - meanOf('pooled')) < 0.002)
  t.true(meanOf('federated') - meanOf('best') > 0.04, String(meanOf('best')))
  t.true(figures.every(({ federated, best }) => federated >= best))
})

test('what rounding drops comes back: over many rounds the sent sum stays within one step of the true sum', (t) => {
  const step = 2 ** -12
  const errorOf = (values: readonly number[]): number => {
    let residual: Float64Array = new Float64Array(31)
    let sent = 0
    for (const value of values) {
      const quantised = quantiseGradient({ count: 1, loss: 0, values: new Float64Array(31).fill(value) }, residual)
      residual = quantised.residual
      sent += restoreGradient(quantised.wholes).values[0] ?? 0
    }
    return Math.abs(sent - values.reduce((sum, value) => sum + value, 0))
  }
  // Whole numbers scaled, since random doubles are nearly all close to zero.
  const between = (min: number, max: number) =>
    fc.integer({ min: 0, max: 1_000_000 }).map((part) => min + ((max - min) * part) / 1_000_000)
  const property = fc.property(
    fc.array(between(-100, 100), { maxLength: 40 }),
    between(0, step),
    (values, small) => errorOf(values) <= step && errorOf(Array<number>(100).fill(small)) <= step,
  )
  t.notThrows(() => {
    fc.assert(property)
  })
})

test('a value that could overflow the sum of three stops the party', (t) => {
  const over = { count: 1, loss: 0, values: new Float64Array(31).fill(PARTY_VALUE_MAX / 2 ** 12) }
  t.throws(() => quantiseGradient(over, new Float64Array(31)), { instanceOf: RangeError })
  t.throws(() => quantiseGradient({ ...over, values: new Float64Array(31).fill(NaN) }, new Float64Array(31)), {
    instanceOf: RangeError,
  })
})

test('the digest covers every bit of the weights', (t) => {
  const model = newModel()
  const weights = model.weights.with(30, Number.MIN_VALUE)
  t.not(modelDigest(model), modelDigest({ ...model, weights }))
})
