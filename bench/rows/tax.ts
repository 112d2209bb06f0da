import { buildImage } from '../../host/index.js'
import { EnclaveWorld } from '../enclave-world.js'
import type { Measurement, Scale } from '../measurement.js'
import { NumericWorker, numericScript } from '../peers/numeric-worker.js'
import { result, type Result } from '../report.js'
import { compare, median, summarise } from '../statistics.js'
import type definition from './numeric.enclave.js'
import { NUMERIC_NAMES, type NumericWork } from './numeric.js'

/** Whoever does numeric work, asked from outside. */
export type Work = (name: NumericWork, count: number) => Promise<number>

/** Both sides take turns of a slice’s third: long enough that the way there and back counts nothing. */
const TURN_COUNT = 3

/** P12: what the enclave’s realm costs numeric code. The clock is the host’s, for both; both are warm. */
export const tax: Measurement = {
  names: NUMERIC_NAMES.map((name) => `P12.${name}`),
  async measure(scale, { say, wants }) {
    const image = await buildImage<typeof definition>(new URL('numeric.enclave.js', import.meta.url))
    await using world = await EnclaveWorld.make(image)
    await using enclave = await world.launch(image)
    await using plain = await NumericWorker.start(await numericScript())
    const ours: Work = (name, count) => enclave.ecalls[name](count)
    const peer: Work = (name, count) => plain.work(name, count)
    const results: Result[] = []
    for (const name of NUMERIC_NAMES) {
      const id = `P12.${name}` as const
      if (!wants(id)) continue
      const pairs = await compareWork(name, { ours, peer }, scale, (run) => say(`${id}: run ${run} of ${scale.runs}`))
      results.push(result(id, 'a plain worker', summarise(pairs)))
    }
    return { results }
  },
}

const compareWork = async (
  name: NumericWork,
  { ours, peer }: { readonly ours: Work; readonly peer: Work },
  { runs, sliceMs }: Scale,
  onRun: (run: number) => void,
) => {
  const count = await countFor(peer, name, sliceMs / TURN_COUNT)
  if ((await ours(name, count)) !== (await peer(name, count))) throw new Error(`P12.${name}: another result`)
  const sideOf = (work: Work) => async () => (await millisecondsOf(work, name, count)) * (1000 / count)
  return compare({ ours: sideOf(ours), peer: sideOf(peer) }, runs, onRun, TURN_COUNT)
}

export const millisecondsOf = async (work: Work, name: NumericWork, count: number): Promise<number> => {
  const startMs = performance.now()
  await work(name, count)
  return performance.now() - startMs
}

/** How much of it takes so long, on a worker that is warm by then. */
export const countFor = async (work: Work, name: NumericWork, targetMs: number): Promise<number> => {
  for (let count = 1; ; count *= 2) {
    const tookMs = await millisecondsOf(work, name, count)
    if (tookMs < targetMs / 2) continue
    const again: number[] = []
    for (let time = 0; time < 3; time++) again.push(await millisecondsOf(work, name, count))
    return Math.max(1, Math.round((count * targetMs) / median(again)))
  }
}
