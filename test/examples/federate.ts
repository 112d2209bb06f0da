import {
  applyGradient,
  gradientOf,
  newModel,
  scalingOf,
  standardise,
  statisticsOf,
  type Model,
  type Scaling,
} from '../../examples/federated-learning/model.js'
import {
  quantiseGradient,
  quantiseStatistics,
  restoreGradient,
  restoreStatistics,
} from '../../examples/federated-learning/quantise.js'
import type { Records } from '../../examples/federated-learning/records.js'
import { participantsOf, type Schedule } from '../../examples/federated-learning/schedule.js'
import { HOSPITAL_FLOWS, type HospitalFlow } from '../../examples/federated-learning/split.js'

const add = (sums: readonly Int32Array[]): Int32Array =>
  sums.reduce((total, next) => total.map((value, index) => value + (next[index] ?? 0)))

/** The federation in the clear, in a few lines: what the job must compute, bit for bit, under encryption and through crashes. */
export const federateInTheClear = (
  shares: Readonly<Record<HospitalFlow, Records>>,
  schedule: Pick<Schedule, 'dropout'>,
  roundCount: number,
): Model & { readonly scaling: Scaling } => {
  const sums = HOSPITAL_FLOWS.map((flow) => quantiseStatistics(statisticsOf(shares[flow])))
  const scaling = scalingOf(restoreStatistics(add(sums)))
  const residuals = new Map<string, Float64Array>()
  let model = newModel()
  for (let round = 1; round <= roundCount; round++) {
    const present = participantsOf(schedule, round)
    const contributions = HOSPITAL_FLOWS.filter((flow) => present.includes(flow)).map((flow) => {
      const gradient = gradientOf(standardise(shares[flow], scaling), model)
      const { wholes, residual } = quantiseGradient(gradient, residuals.get(flow) ?? new Float64Array(31))
      residuals.set(flow, residual)
      return wholes
    })
    model = applyGradient(model, restoreGradient(add(contributions)))
  }
  return { ...model, scaling }
}
