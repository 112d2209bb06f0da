import { accuracyOf, standardise, trainAlone } from './model.js'
import type { Records } from './records.js'
import { HOSPITALS, type Split } from './split.js'

/** What the federation is compared with; computed in the clear, from data that in earnest nobody would have together. */
export interface Yardsticks {
  /** All training data in one place, as many rounds, no quantisation, nobody away. */
  readonly centralised: number
  /** Each hospital with its own data only. */
  readonly alone: readonly {
    readonly name: string
    readonly accuracy: number
    readonly patients: number
    readonly malignant: number
  }[]
}

/** A hospital alone may take all the time it likes: the better of as many rounds as the federation, and of many more. */
const ROUND_COUNT_ALONE = 300

export const yardsticksOf = ({ test, shares }: Split, roundCount: number): Yardsticks => {
  const accuracyAfter = (records: Records, rounds: number): number => {
    const { model, scaling } = trainAlone(records, rounds)
    return accuracyOf(standardise(test, scaling), model)
  }
  const parts = HOSPITALS.map(({ flow, name }) => ({ name, records: shares[flow] }))
  const pooled: Records = {
    count: parts.reduce((count, { records }) => count + records.count, 0),
    features: Float64Array.from(parts.flatMap(({ records }) => [...records.features])),
    malignant: Uint8Array.from(parts.flatMap(({ records }) => [...records.malignant])),
  }
  return {
    centralised: accuracyAfter(pooled, roundCount),
    alone: parts.map(({ name, records }) => ({
      name,
      accuracy: Math.max(accuracyAfter(records, roundCount), accuracyAfter(records, ROUND_COUNT_ALONE)),
      patients: records.count,
      malignant: records.malignant.reduce((count, label) => count + label, 0),
    })),
  }
}
