import type { UnsealPool } from '../../kms/pool.js'
import type { Bytes } from '../../protocol/bytes.js'
import type { Measurement, Scale } from '../measurement.js'
import { formatSize } from '../figures.js'
import { esdk } from '../peers/esdk.js'
import { expectEqual, randomBytes, type Peer } from '../peers/files.js'
import { chachaSpeed } from '../peers/openssl.js'
import { SharedPayload, withPool } from '../peers/pool.js'
import { typage } from '../peers/typage.js'
import { result, type Curve, type Result } from '../report.js'
import { compare, summarise, type Measure, type Summary } from '../statistics.js'
import { lackOf, perSecond } from '../timing.js'

const SIZES_BYTES = [2 ** 26, 2 ** 30]
const WARM_UP_SIZE_BYTES_MAX = 2 ** 26
const THREAD_COUNT = 2

const POOL_SIZE_BYTES = 2 ** 26
const THREAD_COUNTS = [1, 2, 3, 4]

interface Rival {
  readonly id: 'P3.typage' | 'P3.esdk' | 'P3.openssl'
  readonly name: string
  /** MB/s of opening what is given, sealed by ours or by the peer itself. Compares what comes out, after the last run. */
  readonly prepare: (plaintext: Bytes, sliceMs: number) => Promise<{ measure: Measure; verify: () => void }>
}

const fileRival = (id: Rival['id'], peer: Peer): Rival => ({
  id,
  name: peer.name,
  async prepare(plaintext, sliceMs) {
    const file = await peer.seal(plaintext)
    let opened: unknown
    const open = async (): Promise<void> => {
      // What it opened before is garbage by now: it need not hold two.
      opened = undefined
      opened = await file.open()
    }
    const measure = async (): Promise<number> => ((await perSecond(open, sliceMs)) * plaintext.length) / 1e6
    if (plaintext.length <= WARM_UP_SIZE_BYTES_MAX) await measure()
    return {
      measure,
      verify: () => expectEqual(peer.name, opened as Uint8Array, plaintext),
    }
  },
})

const RIVALS: readonly Rival[] = [
  fileRival('P3.typage', typage),
  fileRival('P3.esdk', esdk),
  {
    id: 'P3.openssl',
    name: 'openssl speed -multi 2, ChaCha20-Poly1305, 64 KiB',
    prepare: () => Promise.resolve({ measure: () => chachaSpeed(THREAD_COUNT), verify: () => undefined }),
  },
]

/** P3: a KMS’s pool of two opens a payload in memory. Graded at the size whose ratio is the worse one. */
export const bulk: Measurement = {
  names: [...RIVALS.map(({ id }) => id), 'P3.sizes', 'pool'],
  lacks: (name) => (name === 'P3.openssl' ? lackOf('openssl') : undefined),
  async measure(scale, { say, wants }) {
    // openssl’s figure knows no size: the curve does without it.
    const rivals = RIVALS.filter(({ id }) => wants(id) || (wants('P3.sizes') && id !== 'P3.openssl'))
    const results: Result[] = []
    const curves: Record<string, Curve> = {}
    if (rivals.length > 0) {
      const bySize: BySize = new Map()
      for (const sizeBytes of SIZES_BYTES.map(scale.bytes)) {
        const able = rivals.filter(({ id }) => id === 'P3.openssl' || sizeBytes <= scale.slowPeerSizeBytesMax)
        if (able.length > 0)
          bySize.set(
            sizeBytes,
            await withPool(THREAD_COUNT, (pool) => compareAt(sizeBytes, { pool, rivals: able, scale, say })),
          )
      }
      for (const { id, name } of rivals) {
        const summaries = [...bySize.values()].flatMap((summaries) => summaries.get(id) ?? [])
        const [worst] = summaries.sort((a, b) => a.ratio - b.ratio)
        if (worst !== undefined && wants(id)) results.push(result(id, name, worst))
      }
      if (wants('P3.sizes')) curves['P3.sizes'] = sizesCurve(rivals, bySize)
    }
    if (wants('pool')) curves['pool'] = await poolCurve(scale, say)
    return { results, curves }
  },
}

type Summaries = Map<Rival['id'], Summary>
type BySize = Map<number, Summaries>

interface Contest {
  readonly pool: UnsealPool
  readonly rivals: readonly Rival[]
  readonly scale: Scale
  readonly say: (line: string) => void
}

/** Ours against each rival in turn. All of it is in memory, and warm: 64 MiB come first, and compile the code for both. */
const compareAt = async (sizeBytes: number, { pool, rivals, scale, say }: Contest): Promise<Summaries> => {
  const { runs, sliceMs } = scale
  const plaintext = randomBytes(sizeBytes)
  const shared = new SharedPayload(plaintext)
  await shared.verify(pool)
  const open = (): Promise<void> => shared.open(pool)
  const ours = async (): Promise<number> => ((await perSecond(open, sliceMs)) * sizeBytes) / 1e6
  await ours()
  const summaries: Summaries = new Map()
  for (const { id, prepare } of rivals) {
    say(`${id}: ${formatSize(sizeBytes)}`)
    const { measure, verify } = await prepare(plaintext, sliceMs)
    const onRun = (run: number): void => say(`${id}: ${formatSize(sizeBytes)}, run ${run} of ${runs}`)
    const peer = async (): Promise<number> => {
      const megabytesPerSecond = await measure()
      // To start a process write-protects all our pages: the first to write to them, which openssl is not, would pay for it.
      if (id === 'P3.openssl') await open()
      return megabytesPerSecond
    }
    summaries.set(id, summarise(await compare({ ours, peer }, runs, onRun)))
    verify()
  }
  await shared.verify(pool)
  return summaries
}

const sizesCurve = (rivals: readonly Rival[], bySize: BySize): Curve => {
  const points = (summaryOf: (summaries: Summaries) => number | undefined): [number, number][] =>
    [...bySize].flatMap(([sizeBytes, summaries]) => {
      const megabytesPerSecond = summaryOf(summaries)
      return megabytesPerSecond === undefined ? [] : [[sizeBytes, megabytesPerSecond]]
    })
  const series = [
    { name: 'keyrise, pool of 2', points: points((summaries) => [...summaries.values()][0]?.ours) },
    ...rivals.map(({ id, name }) => ({ name, points: points((summaries) => summaries.get(id)?.peer) })),
  ]
  return { what: 'bulk unseal in memory', x: 'payload, bytes', y: 'MB/s', series }
}

/** What more threads bring, and what it costs to seal each segment again to a session, as bulk mode does. */
const poolCurve = async ({ sliceMs, bytes }: Scale, say: (line: string) => void): Promise<Curve> => {
  const plaintext = randomBytes(bytes(POOL_SIZE_BYTES))
  const shared = new SharedPayload(plaintext)
  const open: [number, number][] = []
  const reseal: [number, number][] = []
  for (const threadCount of THREAD_COUNTS) {
    say(`pool: ${threadCount} threads`)
    await withPool(threadCount, async (pool) => {
      const megabytesPerSecond = async (work: () => Promise<void>): Promise<number> => {
        await perSecond(work, sliceMs / 2)
        return ((await perSecond(work, sliceMs)) * plaintext.length) / 1e6
      }
      await shared.verify(pool)
      open.push([threadCount, await megabytesPerSecond(() => shared.open(pool))])
      reseal.push([threadCount, await megabytesPerSecond(() => shared.reseal(pool, 2 * threadCount))])
    })
  }
  const series = [
    { name: 'unseal', points: open },
    { name: 'unseal, hash, and seal again to a session', points: reseal },
  ]
  return { what: 'bulk work of 64 MiB', x: 'threads in the pool', y: 'MB/s', series }
}
