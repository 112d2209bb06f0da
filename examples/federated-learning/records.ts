/** Patients' records: what a hospital brings, as numbers and as bytes. */

export const FEATURE_COUNT = 30
const RECORD_COUNT_MAX = 100_000

/** Row-major measurements, FEATURE_COUNT a patient, and 1 where the tumour is malignant. */
export interface Records {
  readonly count: number
  readonly features: Float64Array
  readonly malignant: Uint8Array
}

/** The measurements of patient `index`, a view. */
export const rowOf = (records: Records, index: number): Float64Array =>
  records.features.subarray(index * FEATURE_COUNT, (index + 1) * FEATURE_COUNT)

export const selectRecords = (records: Records, indexes: readonly number[]): Records => {
  const features = new Float64Array(indexes.length * FEATURE_COUNT)
  indexes.forEach((from, to) => features.set(rowOf(records, from), to * FEATURE_COUNT))
  return {
    count: indexes.length,
    features,
    malignant: Uint8Array.from(indexes, (index) => records.malignant[index] ?? 0),
  }
}

/**
 * Reads the CSV in data/: a first line with the counts, then FEATURE_COUNT measurements and a label (0 malignant) a line.
 * @throws {RangeError} where a line isn't like that.
 */
export const parseRecordsCsv = (text: string): Records => {
  const [first, ...lines] = text.trimEnd().split('\n')
  const [rows, columns] = (first ?? '').split(',').map(Number)
  if (rows !== lines.length || columns !== FEATURE_COUNT) throw new RangeError('the first line does not match the rest')
  const features = new Float64Array(lines.length * FEATURE_COUNT)
  const malignant = new Uint8Array(lines.length)
  lines.forEach((line, index) => {
    const numbers = line.split(',').map(Number)
    const label = numbers.pop()
    const good = numbers.length === FEATURE_COUNT && numbers.every(Number.isFinite) && (label === 0 || label === 1)
    if (!good) throw new RangeError(`line ${String(index + 2)} is not a record`)
    features.set(numbers, index * FEATURE_COUNT)
    malignant[index] = label === 0 ? 1 : 0
  })
  return { count: lines.length, features, malignant }
}

/** Little-endian: u32 count, the measurements as f64, a byte for each label. */
export const encodeRecords = ({ count, features, malignant }: Records): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(new ArrayBuffer(4 + features.length * 8 + count))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, count, true)
  features.forEach((value, index) => {
    view.setFloat64(4 + index * 8, value, true)
  })
  bytes.set(malignant, 4 + features.length * 8)
  return bytes
}

/** @throws {RangeError} where the size does not match the count. */
export const decodeRecords = (bytes: Uint8Array): Records => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const count = bytes.length >= 4 ? view.getUint32(0, true) : -1
  const features = new Float64Array(count < 0 || count > RECORD_COUNT_MAX ? 0 : count * FEATURE_COUNT)
  if (bytes.length !== 4 + features.length * 8 + count) throw new RangeError('not the bytes of records')
  for (let index = 0; index < features.length; index++) features[index] = view.getFloat64(4 + index * 8, true)
  return { count, features, malignant: bytes.slice(4 + features.length * 8) }
}
