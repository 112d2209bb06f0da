import type { UnsealPool } from '../../kms/pool.js'
import type { Measurement, Scale } from '../measurement.js'
import { esdk } from '../peers/esdk.js'
import { expectEqual, randomBytes, type Peer } from '../peers/files.js'
import { jose } from '../peers/jose.js'
import { keyrise } from '../peers/keyrise.js'
import { SharedPayload, withPool } from '../peers/pool.js'
import { sodiumNative } from '../peers/sodium.js'
import { typage } from '../peers/typage.js'
import type { Series } from '../report.js'
import { perSecond } from '../timing.js'

const SIZES_BYTES = [2 ** 10, 2 ** 14, 2 ** 18, 2 ** 22, 2 ** 26, 2 ** 30]
/** What takes ten seconds a GiB, which P3 measures. */
const upToP3 = (peer: Peer): Peer => ({ ...peer, limit: { sizeBytes: 2 ** 26, why: 'at 1 GiB: P3' } })
const PEERS: readonly Peer[] = [keyrise, sodiumNative, upToP3(esdk), upToP3(typage), jose]

/** How opening grows with the payload, one call after another. Once for each point: a picture, not a grade. */
export const payload: Measurement = {
  names: ['payload'],
  async measure(scale, { say }) {
    const series = await withPool(2, async (pool) => {
      const made: Series[] = []
      for (const peer of [pooled(pool), ...PEERS]) {
        say(`payload: ${peer.name}`)
        made.push(await seriesOf(peer, scale))
      }
      return made
    })
    const curve = { what: 'opening in memory, one call after another', x: 'payload, bytes', y: 'MB/s', series }
    return { curves: { payload: curve } }
  },
}

/** The way of P3, at every size: what a pool costs where there is little to do. */
const pooled = (pool: UnsealPool): Peer => ({
  name: 'keyrise, pool of 2',
  async seal(plaintext) {
    const shared = new SharedPayload(plaintext)
    await shared.verify(pool)
    return { open: () => shared.open(pool).then(() => plaintext) }
  },
})

const seriesOf = async (peer: Peer, { sliceMs, bytes, points: pointsOf }: Scale): Promise<Series> => {
  const sizes = [...new Set(pointsOf(SIZES_BYTES).map(bytes))]
  const within = sizes.filter((size) => size <= (peer.limit?.sizeBytes ?? Infinity))
  const points: [number, number][] = []
  for (const size of within) points.push([size, (size * (await opensPerSecond(peer, size, sliceMs / 2))) / 1e6])
  return { name: peer.name, points, ...(within.length < sizes.length && peer.limit ? { note: peer.limit.why } : {}) }
}

/** Small ones are many different ones, so that no branch learns one by heart. */
const VARIETY_SIZE_BYTES = 2 ** 20

const opensPerSecond = async (peer: Peer, sizeBytes: number, sliceMs: number): Promise<number> => {
  const plaintexts = Array.from({ length: Math.max(1, Math.min(64, VARIETY_SIZE_BYTES / sizeBytes)) }, () =>
    randomBytes(sizeBytes),
  )
  const files = await Promise.all(plaintexts.map((plaintext) => peer.seal(plaintext)))
  let turn = 0
  let opened: unknown
  const openNext = async (): Promise<void> => {
    opened = await files[turn++ % files.length]?.open()
  }
  // The largest take seconds and warm up by themselves; small ones are slow until they are compiled.
  if (sizeBytes < 2 ** 26) await perSecond(openNext, sliceMs)
  const rate = await perSecond(openNext, sliceMs)
  expectEqual(peer.name, opened as Uint8Array, plaintexts[(turn - 1) % files.length] as Uint8Array)
  return rate
}
