import { chacha20 } from '@noble/ciphers/chacha.js'
import { applyGradient, gradientOf, newModel } from '../../examples/federated-learning/model.js'
import { FEATURE_COUNT, type Records } from '../../examples/federated-learning/records.js'

/** The numeric work of P12: the same code runs in an enclave and in a plain worker. It returns a number that tells whether it did. */

/** As many as the example’s data set has. */
const PATIENT_COUNT = 569
const CHUNK_SIZE_BYTES = 64 * 1024

/** Numbers that look like standardised measurements and are the same everywhere. */
const makeRecords = (): Records => {
  let state = 1
  const next = (): number => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 31 - 1
  const features = Float64Array.from({ length: PATIENT_COUNT * FEATURE_COUNT }, next)
  return { count: PATIENT_COUNT, features, malignant: Uint8Array.from({ length: PATIENT_COUNT }, () => +(next() > 0)) }
}

const records = makeRecords()
const chunk = new Uint8Array(CHUNK_SIZE_BYTES)
const output = new Uint8Array(CHUNK_SIZE_BYTES)

export const NUMERIC_WORK = {
  /** Steps of the federated example’s training, on one hospital’s records. */
  train(stepCount: number): number {
    let model = newModel()
    for (let step = 0; step < stepCount; step++) model = applyGradient(model, gradientOf(records, model))
    return model.weights.reduce((sum, weight) => sum + weight, 0)
  },
  /** ChaCha20 in JavaScript over so many chunks of 64 KiB. */
  chacha(chunkCount: number): number {
    const [key, nonce] = [new Uint8Array(32), new Uint8Array(12)]
    for (let index = 0; index < chunkCount; index++) {
      nonce[0] = index & 0xff
      chacha20(key, nonce, chunk, output)
    }
    return output.reduce((sum, byte) => sum + byte, 0)
  },
} as const satisfies Record<string, (count: number) => number>

export type NumericWork = keyof typeof NUMERIC_WORK
export const NUMERIC_NAMES = Object.keys(NUMERIC_WORK) as NumericWork[]
