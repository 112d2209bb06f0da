import { FEATURE_COUNT } from './records.js'
import { WEIGHT_COUNT, type Gradient, type Statistics } from './model.js'

/**
 * Fixed point: homomorphic sums are sums of whole numbers. A party's values stay under PARTY_VALUE_MAX, so that the sum of
 * three stays under half of the plaintext modulus (2³⁰) and keeps its sign.
 */
export const PARTY_VALUE_MAX = 2 ** 27
/** Gradients and losses in steps of 2⁻¹². What rounding drops is carried into the next round (error feedback). */
const GRADIENT_SCALE = 2 ** 12
/** Statistics in steps of 2⁻²⁰ of a unit; 128 patients at the bound would reach 2²⁷. */
const STATISTICS_SCALE = 2 ** 20

/** An upper bound of each measurement, public and agreed before the task: from the data's dictionary, in powers of two. */
const UNITS = Float64Array.of(
  ...[32, 64, 256, 4096, 0.25, 0.5, 0.5, 0.25, 0.5, 0.125],
  ...[4, 8, 32, 1024, 0.03125, 0.25, 0.5, 0.0625, 0.125, 0.03125],
  ...[64, 64, 256, 8192, 0.25, 2, 2, 0.5, 1, 0.25],
)

/** Numbers in one contribution to the statistics: sums, sums of squares, patients. */
export const STATISTICS_SIZE = 2 * FEATURE_COUNT + 1
/** Numbers in one contribution to a training round: gradient, loss, patients. */
export const GRADIENT_SIZE = WEIGHT_COUNT + 2

const toWhole = (value: number): number => {
  const whole = Math.round(value)
  // A sum that overflows would be wrong without a trace, so nothing is clipped: the party stops here.
  if (!(Math.abs(whole) < PARTY_VALUE_MAX)) throw new RangeError('a value exceeds what a party may contribute')
  return whole
}

export const quantiseStatistics = ({ count, sums, squares }: Statistics): Int32Array => {
  const wholes = new Int32Array(STATISTICS_SIZE)
  UNITS.forEach((unit, feature) => {
    wholes[feature] = toWhole(((sums[feature] ?? 0) / unit) * STATISTICS_SCALE)
    wholes[FEATURE_COUNT + feature] = toWhole(((squares[feature] ?? 0) / unit ** 2) * STATISTICS_SCALE)
  })
  wholes[2 * FEATURE_COUNT] = count
  return wholes
}

/** @param sum - over the parties' contributions. */
export const restoreStatistics = (sum: Int32Array): Statistics => ({
  count: sum[2 * FEATURE_COUNT] ?? 0,
  sums: UNITS.map((unit, feature) => ((sum[feature] ?? 0) / STATISTICS_SCALE) * unit),
  squares: UNITS.map((unit, feature) => ((sum[FEATURE_COUNT + feature] ?? 0) / STATISTICS_SCALE) * unit ** 2),
})

/**
 * Rounds the gradient plus what earlier rounds dropped.
 * @param residual - WEIGHT_COUNT numbers: what this party's rounding has dropped so far.
 * @returns the whole numbers, and what is dropped now.
 */
export const quantiseGradient = (
  gradient: Gradient,
  residual: Float64Array,
): { readonly wholes: Int32Array; readonly residual: Float64Array } => {
  const wholes = new Int32Array(GRADIENT_SIZE)
  const dropped = gradient.values.map((value, index) => {
    const wanted = value + (residual[index] ?? 0)
    const whole = toWhole(wanted * GRADIENT_SCALE)
    wholes[index] = whole
    return wanted - whole / GRADIENT_SCALE
  })
  wholes[WEIGHT_COUNT] = toWhole(gradient.loss * GRADIENT_SCALE)
  wholes[WEIGHT_COUNT + 1] = gradient.count
  return { wholes, residual: dropped }
}

/** @param sum - over the parties' contributions. */
export const restoreGradient = (sum: Int32Array): Gradient => ({
  count: sum[WEIGHT_COUNT + 1] ?? 0,
  loss: (sum[WEIGHT_COUNT] ?? 0) / GRADIENT_SCALE,
  values: Float64Array.from({ length: WEIGHT_COUNT }, (_, index) => (sum[index] ?? 0) / GRADIENT_SCALE),
})
