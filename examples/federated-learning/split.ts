import { selectRecords, type Records } from './records.js'
import { SeededSequence } from './seeded.js'

/** Who trains, and which share of the training data's malignant and of its benign cases each of them sees. */
export const HOSPITALS = [
  { flow: 'screening-north', name: 'Screening North', malignantShare: 0.015, benignShare: 0.6 },
  { flow: 'oncology', name: 'Oncology Clinic', malignantShare: 0.97, benignShare: 0.01 },
  { flow: 'screening-south', name: 'Screening South', malignantShare: 0.015, benignShare: 0.39 },
] as const

export type HospitalFlow = (typeof HOSPITALS)[number]['flow']
export const HOSPITAL_FLOWS: readonly HospitalFlow[] = HOSPITALS.map(({ flow }) => flow)

/** Two fifths are held out, 228 patients: one patient is 0.4 points of accuracy, so that the figures mean something. */
const TEST_SHARE = 0.4

export interface Split {
  readonly test: Records
  readonly shares: Readonly<Record<HospitalFlow, Records>>
}

/**
 * Splits by label, as referral does it: healthy people go to a screening centre, the ill to a clinic. Within a label chance
 * decides, by `seed`. Every record lands in exactly one share or in the test set; the test set keeps the overall mixture.
 */
export const splitRecords = (records: Records, seed: number): Split => {
  const sequence = new SeededSequence(seed, 'split')
  const indexes = Array.from({ length: records.count }, (_, index) => index)
  const test: number[] = []
  const shares: Record<HospitalFlow, number[]> = { 'screening-north': [], oncology: [], 'screening-south': [] }
  for (const label of [1, 0]) {
    const ofLabel = sequence.shuffle(indexes.filter((index) => records.malignant[index] === label))
    const testCount = Math.round(ofLabel.length * TEST_SHARE)
    test.push(...ofLabel.slice(0, testCount))
    const rest = ofLabel.slice(testCount)
    let share = 0
    let taken = 0
    for (const hospital of HOSPITALS) {
      share += label === 1 ? hospital.malignantShare : hospital.benignShare
      const end = Math.round(rest.length * share)
      shares[hospital.flow].push(...rest.slice(taken, end))
      taken = end
    }
  }
  const select = (picked: readonly number[]): Records => selectRecords(records, sequence.shuffle(picked))
  return {
    test: select(test),
    shares: {
      'screening-north': select(shares['screening-north']),
      oncology: select(shares.oncology),
      'screening-south': select(shares['screening-south']),
    },
  }
}
