import { buildImage, type Image } from '../../host/index.js'
import { EnclaveWorld, type KillableEnclave } from '../enclave-world.js'
import type { Measurement } from '../measurement.js'
import { result, type Curve } from '../report.js'
import { compare, median, summarise } from '../statistics.js'
import type definition from './recovery.enclave.js'

const ENTRY = new URL('recovery.enclave.js', import.meta.url)
const SECRET_COUNT = 10_000
const SECRET_SIZE_BYTES = 32
const COUNTS = [1, 100, 10_000, 100_000] as const
const SIZES = [32, 1024, 16 * 1024, 64 * 1024] as const
const SIZED_COUNT = 1000

type RecoveryImage = Image<typeof definition>

/** Milliseconds from the kill of an enclave until the next one has answered a call that reads one of its secrets. */
const timeRecovery = async (killable: KillableEnclave<typeof definition>, index: number): Promise<number> => {
  await killable.standsBy()
  const startMs = performance.now()
  await killable.kill()
  const secret = await killable.enclave.ecalls.read(index)
  const tookMs = performance.now() - startMs
  if (secret.length === 0 || secret.some((byte) => byte !== (index & 0xff))) throw new Error('Another secret came back')
  return tookMs
}

/** Milliseconds from `launch(…)` of a new flow to its first answer. */
const timeLaunch = async (world: EnclaveWorld, image: RecoveryImage): Promise<number> => {
  const startMs = performance.now()
  const enclave = await world.launch(image)
  await enclave.ecalls.read(0)
  const tookMs = performance.now() - startMs
  await enclave.close()
  return tookMs
}

/** Median recoveries of a flow of so many secrets. */
const medianRecovery = async (
  world: EnclaveWorld,
  image: RecoveryImage,
  { count, sizeBytes, spare, runs }: { count: number; sizeBytes: number; spare: boolean; runs: number },
): Promise<number> => {
  await using killable = await world.launchKillable(image, { spare })
  await killable.enclave.ecalls.fill({ count, sizeBytes })
  const took: number[] = []
  for (let run = 0; run < runs; run++) took.push(await timeRecovery(killable, run % count))
  return median(took)
}

/** P8: from the kill to the first answer, with 10,000 secrets and a warm spare, over a cold launch; and how it grows. */
export const recovery: Measurement = {
  names: ['P8', 'recovery', 'recovery.sizes'],
  async measure({ runs, count, bytes, points }, { say, wants }) {
    const image = await buildImage<typeof definition>(ENTRY)
    await using world = await EnclaveWorld.make(image)
    const curve = async (
      what: string,
      x: string,
      places: readonly number[],
      flowAt: (place: number) => { count: number; sizeBytes: number },
    ): Promise<Curve> => {
      const series: { name: string; points: (readonly [number, number])[] }[] = []
      for (const [name, spare] of [
        ['warm spare', true],
        ['relaunch', false],
      ] as const) {
        const measured: (readonly [number, number])[] = []
        for (const place of places) {
          say(`recovery: ${name}, ${what}, ${String(place)}`)
          measured.push([
            place,
            await medianRecovery(world, image, { ...flowAt(place), spare, runs: Math.min(runs, 3) }),
          ])
        }
        series.push({ name, points: measured })
      }
      return { what, x, y: 'ms', series }
    }
    const counts = points(COUNTS).map(count)
    const curves = {
      ...(wants('recovery')
        ? {
            recovery: await curve(
              `kill to first answer, secrets of ${String(SECRET_SIZE_BYTES)} B`,
              'secrets',
              [...new Set(counts)],
              (place) => ({ count: place, sizeBytes: SECRET_SIZE_BYTES }),
            ),
          }
        : {}),
      ...(wants('recovery.sizes')
        ? {
            'recovery.sizes': await curve(
              `kill to first answer, ${SIZED_COUNT.toLocaleString('en')} secrets`,
              'each, bytes',
              points(SIZES),
              (place) => ({ count: count(SIZED_COUNT), sizeBytes: bytes(place) }),
            ),
          }
        : {}),
    }
    return { results: wants('P8') ? [await gradeRecovery(world, image, count(SECRET_COUNT), runs, say)] : [], curves }
  },
}

const gradeRecovery = async (
  world: EnclaveWorld,
  image: RecoveryImage,
  count: number,
  runs: number,
  say: (line: string) => void,
) => {
  await using killable = await world.launchKillable(image, { spare: true })
  await killable.enclave.ecalls.fill({ count, sizeBytes: SECRET_SIZE_BYTES })
  let index = 0
  const sides = {
    ours: () => timeRecovery(killable, index++ % count),
    peer: async () => {
      // The spare’s start belongs to neither side.
      await killable.standsBy()
      return timeLaunch(world, image)
    },
  }
  await sides.peer()
  const pairs = await compare(sides, runs, (run) => say(`P8: run ${run} of ${runs}`))
  return result('P8', 'a cold launch', summarise(pairs))
}
