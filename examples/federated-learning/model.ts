import { createHash } from 'node:crypto'
import { FEATURE_COUNT, rowOf, type Records } from './records.js'

/**
 * Logistic regression by full-batch gradient descent with momentum. Gradients are sums over patients, so those of several
 * hospitals add up to exactly the gradient over all of their patients: training together loses nothing but rounding.
 */
export const WEIGHT_COUNT = FEATURE_COUNT + 1 // the last is the bias
const LEARNING_RATE = 0.5
const MOMENTUM = 0.9
/** L2, on the mean loss; the bias is left alone. */
const REGULARISATION = 0.001

/** Sums over patients, of each feature and of its square: what standardising needs. */
export interface Statistics {
  readonly count: number
  readonly sums: Float64Array
  readonly squares: Float64Array
}
export interface Scaling {
  readonly means: Float64Array
  readonly deviations: Float64Array
}
export interface Model {
  readonly weights: Float64Array
  readonly velocity: Float64Array
}
/** Sums over patients at one model. */
export interface Gradient {
  readonly count: number
  readonly loss: number
  readonly values: Float64Array
}

export const statisticsOf = (records: Records): Statistics => {
  const sums = new Float64Array(FEATURE_COUNT)
  const squares = new Float64Array(FEATURE_COUNT)
  for (let index = 0; index < records.count; index++) {
    rowOf(records, index).forEach((value, feature) => {
      sums[feature] = (sums[feature] ?? 0) + value
      squares[feature] = (squares[feature] ?? 0) + value * value
    })
  }
  return { count: records.count, sums, squares }
}

/** A feature that is the same for everyone keeps its unit: its deviation counts as 1. */
export const scalingOf = ({ count, sums, squares }: Statistics): Scaling => {
  const means = sums.map((sum) => sum / count)
  const deviations = squares.map(
    (square, feature) => Math.sqrt(Math.max(0, square / count - (means[feature] ?? 0) ** 2)) || 1,
  )
  return { means, deviations }
}

export const standardise = (records: Records, { means, deviations }: Scaling): Records => ({
  ...records,
  features: records.features.map((value, index) => {
    const feature = index % FEATURE_COUNT
    return (value - (means[feature] ?? 0)) / (deviations[feature] ?? 1)
  }),
})

export const newModel = (): Model => ({
  weights: new Float64Array(WEIGHT_COUNT),
  velocity: new Float64Array(WEIGHT_COUNT),
})

/** Rows are read where they lie: in an enclave a view of each would cost as much as its arithmetic. */
const score = (weights: Float64Array, { features }: Records, index: number): number => {
  const start = index * FEATURE_COUNT
  let sum = weights[FEATURE_COUNT] ?? 0
  for (let feature = 0; feature < FEATURE_COUNT; feature++)
    sum += (weights[feature] ?? 0) * (features[start + feature] ?? 0)
  return sum
}

/** log(1 + eˣ) that neither overflows nor loses small values. */
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))

/** @param records - standardised. */
export const gradientOf = (records: Records, { weights }: Model): Gradient => {
  const values = new Float64Array(WEIGHT_COUNT)
  let loss = 0
  for (let index = 0; index < records.count; index++) {
    const start = index * FEATURE_COUNT
    const label = records.malignant[index] ?? 0
    const logit = score(weights, records, index)
    const error = 1 / (1 + Math.exp(-logit)) - label
    loss += softplus(logit) - label * logit
    for (let feature = 0; feature < FEATURE_COUNT; feature++)
      values[feature] = (values[feature] ?? 0) + error * (records.features[start + feature] ?? 0)
    values[FEATURE_COUNT] = (values[FEATURE_COUNT] ?? 0) + error
  }
  return { count: records.count, loss, values }
}

/** One step down the gradient that all contributors of a round summed. */
export const applyGradient = (model: Model, { count, values }: Gradient): Model => {
  const velocity = model.velocity.map((before, index) => {
    const weight = model.weights[index] ?? 0
    return MOMENTUM * before + (values[index] ?? 0) / count + (index < FEATURE_COUNT ? REGULARISATION * weight : 0)
  })
  return { weights: model.weights.map((weight, index) => weight - LEARNING_RATE * (velocity[index] ?? 0)), velocity }
}

/** @param records - standardised. @returns each patient's probability of a malignant tumour. */
export const predict = (records: Records, { weights }: Model): Float64Array =>
  Float64Array.from({ length: records.count }, (_, index) => 1 / (1 + Math.exp(-score(weights, records, index))))

/** The share of patients on the right side of one half. @param records - standardised. */
export const accuracyOf = (records: Records, model: Model): number =>
  predict(records, model).filter((probability, index) => Number(probability > 0.5) === records.malignant[index])
    .length / records.count

/** Trains on records that lie in one place: the yardstick, never the federation. */
export const trainAlone = (records: Records, roundCount: number): { model: Model; scaling: Scaling } => {
  const scaling = scalingOf(statisticsOf(records))
  const standardised = standardise(records, scaling)
  let model = newModel()
  for (let round = 0; round < roundCount; round++) model = applyGradient(model, gradientOf(standardised, model))
  return { model, scaling }
}

/** Little-endian f64: what the model's digest covers. */
export const encodeNumbers = (numbers: Float64Array): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(new ArrayBuffer(numbers.length * 8))
  const view = new DataView(bytes.buffer)
  numbers.forEach((value, index) => {
    view.setFloat64(index * 8, value, true)
  })
  return bytes
}

export const decodeNumbers = (bytes: Uint8Array): Float64Array => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Float64Array.from({ length: bytes.length / 8 }, (_, index) => view.getFloat64(index * 8, true))
}

/** SHA-256 over every bit of the weights, in hex. */
export const modelDigest = ({ weights }: Model): string =>
  createHash('sha256').update(encodeNumbers(weights)).digest('hex')
