import type { Release } from './messages.js'
import { applyGradient, newModel, scalingOf, type Gradient, type Model, type Scaling } from './model.js'
import { restoreGradient, restoreStatistics } from './quantise.js'

/** Sums as bytes: Int32, little-endian. */
export const encodeSum = (sum: Int32Array): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(new ArrayBuffer(sum.length * 4))
  const view = new DataView(bytes.buffer)
  sum.forEach((value, index) => {
    view.setInt32(index * 4, value, true)
  })
  return bytes
}

const decodeSum = (bytes: Uint8Array): Int32Array => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Int32Array.from({ length: bytes.length / 4 }, (_, index) => view.getInt32(index * 4, true))
}

/**
 * The public state that a task's releases make: scaling from round 0, then one step down each gradient. Everyone computes it
 * alike, so nobody has to be believed or asked, and a hospital that missed rounds is up to date at once.
 * @param releases - from round 0, in order; verified.
 */
export const replayReleases = (
  releases: readonly Release[],
): { scaling: Scaling; model: Model; gradients: Gradient[] } => {
  const [statistics, ...rounds] = releases.map(({ sum }) => decodeSum(sum))
  if (statistics === undefined) throw new RangeError('no statistics')
  const gradients = rounds.map(restoreGradient)
  return {
    scaling: scalingOf(restoreStatistics(statistics)),
    model: gradients.reduce(applyGradient, newModel()),
    gradients,
  }
}
