import { buildImage } from '../../host/index.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import type { Isolation } from '../../protocol/configuration.js'
import { callsPerSecond, microsecondsAlone, microsecondsBlocking } from '../call-timing.js'
import { EnclaveWorld } from '../enclave-world.js'
import type { Measurement, Scale } from '../measurement.js'
import { verifyCaller, type Caller } from '../peers/callers.js'
import { comlinkCaller } from '../peers/comlink.js'
import { randomBytes } from '../peers/files.js'
import { piscinaCaller } from '../peers/piscina.js'
import { postMessageCaller } from '../peers/post-message.js'
import { result, type Curve, type Result, type RowId, type Series } from '../report.js'
import { compare, summarise } from '../statistics.js'
import type definition from './calls.enclave.js'

const SIZE_BYTES = 8
const IN_FLIGHT = 256
/** Within one run, both sides take turns of a tenth of a slice. */
const TURN_COUNT = 5
const TURN_SHARE = 0.1
const CURVE_SHARE = 0.3

const SIZES_BYTES = [8, 1024, 2 ** 16, 2 ** 20, 2 ** 24]
const IN_FLIGHT_COUNTS = [1, 4, 16, 64, 256, 1024]
/** What is under way at once where payloads grow: so many calls, and so many bytes. */
const FLIGHT_COUNT_MAX = 64
const FLIGHT_SIZE_BYTES_MAX = 2 ** 25

interface Blocking {
  /** Switchless: it blocks until it is answered. */
  readonly callNow: (bytes: Bytes) => Uint8Array
}

/** An enclave by its handle, as its users call it, with everything that `launch` takes. */
const enclaveCaller = async (isolation: Isolation): Promise<Caller & Blocking> => {
  const image = await buildImage<typeof definition>(new URL('calls.enclave.js', import.meta.url))
  const world = await EnclaveWorld.make(image)
  const enclave = await world.launch(image, isolation)
  return {
    name: `keyrise, ${isolation}`,
    call: (bytes) => enclave.ecalls.echo(bytes),
    callNow: (bytes) => enclave.switchless.echoNow(bytes),
    async [Symbol.asyncDispose]() {
      await enclave.close()
      await world[Symbol.asyncDispose]()
    },
  }
}

type Timing = (caller: Caller, bytes: Bytes, sliceMs: number) => Promise<number>
const alone: Timing = ({ call }, bytes, sliceMs) => microsecondsAlone(() => call(bytes), sliceMs)
const inFlight =
  (count: number): Timing =>
  ({ call }, bytes, sliceMs) =>
    callsPerSecond(() => call(bytes), count, sliceMs)

interface Row {
  readonly id: RowId
  readonly peer: () => Promise<Caller>
  /** Of both, unless ours has its own. */
  readonly timing: Timing
  readonly ours?: (caller: Blocking, bytes: Bytes, sliceMs: number) => Promise<number>
}

const blocking = ({ callNow }: Blocking, bytes: Bytes, sliceMs: number): Promise<number> =>
  Promise.resolve(microsecondsBlocking(() => callNow(bytes), sliceMs))

const ROWS: readonly Row[] = [
  { id: 'P1', peer: postMessageCaller, timing: alone },
  { id: 'P2.raw', peer: postMessageCaller, timing: inFlight(IN_FLIGHT) },
  { id: 'P2.comlink', peer: comlinkCaller, timing: inFlight(IN_FLIGHT) },
  { id: 'P11', peer: postMessageCaller, timing: alone, ours: blocking },
]

const CURVES = ['calls.latency', 'calls.sizes', 'calls.flight'] as const

/** P1, P2 and P11: calls into an enclave beside calls into a worker. */
export const calls: Measurement = {
  names: [...ROWS.map(({ id }) => id), ...CURVES],
  async measure(scale, { say, wants }) {
    await using ours = await enclaveCaller('worker')
    await verifyCaller(ours, SIZE_BYTES)
    await verifyCaller({ ...ours, call: (bytes) => Promise.resolve(ours.callNow(bytes)) }, SIZE_BYTES)
    const results: Result[] = []
    for (const row of ROWS) if (wants(row.id)) results.push(await measureRow(row, ours, scale, say))
    if (!CURVES.some(wants)) return { results }
    await using apart = await enclaveCaller('process')
    return { results, curves: await measureCurves([ours, apart], scale, say, wants) }
  },
}

const measureRow = async (
  row: Row,
  ours: Caller & Blocking,
  { runs, sliceMs }: Scale,
  say: (line: string) => void,
): Promise<Result> => {
  const { id, timing } = row
  await using rival = await row.peer()
  await verifyCaller(rival, SIZE_BYTES)
  const bytes = randomBytes(SIZE_BYTES)
  const timeOurs = (ms: number): Promise<number> =>
    row.ours === undefined ? timing(ours, bytes, ms) : row.ours(ours, bytes, ms)
  const timePeer = (ms: number): Promise<number> => timing(rival, bytes, ms)
  for (const time of [timeOurs, timePeer]) await time(sliceMs / 2)
  const sides = { ours: () => timeOurs(sliceMs * TURN_SHARE), peer: () => timePeer(sliceMs * TURN_SHARE) }
  const onRun = (run: number): void => say(`${id}: run ${run} of ${runs}`)
  return result(id, rival.name, summarise(await compare(sides, runs, onRun, TURN_COUNT)))
}

interface CurveSpec {
  readonly name: (typeof CURVES)[number]
  readonly axes: Omit<Curve, 'series'>
  readonly places: (scale: Scale) => readonly number[]
  readonly atomics: 'sync' | 'async'
  readonly measure: (caller: Caller, place: number, sliceMs: number) => Promise<number>
}

const flightOf = (sizeBytes: number): number =>
  Math.max(2, Math.min(FLIGHT_COUNT_MAX, Math.floor(FLIGHT_SIZE_BYTES_MAX / sizeBytes)))

const SPECS: readonly CurveSpec[] = [
  {
    name: 'calls.latency',
    axes: { what: 'one call alone, p50', x: 'payload each way, bytes', y: 'µs' },
    places: ({ bytes, points }) => points(SIZES_BYTES).map(bytes),
    atomics: 'sync',
    measure: (caller, sizeBytes, sliceMs) => alone(caller, payloadOf(sizeBytes), sliceMs),
  },
  {
    name: 'calls.sizes',
    axes: { what: `up to ${FLIGHT_COUNT_MAX} calls in flight`, x: 'payload each way, bytes', y: 'calls/s' },
    places: ({ bytes, points }) => points(SIZES_BYTES).map(bytes),
    atomics: 'async',
    measure: (caller, sizeBytes, sliceMs) => inFlight(flightOf(sizeBytes))(caller, payloadOf(sizeBytes), sliceMs),
  },
  {
    name: 'calls.flight',
    axes: { what: 'calls of 8 B', x: 'calls in flight', y: 'calls/s' },
    places: ({ count, points }) => points(IN_FLIGHT_COUNTS).map(count),
    atomics: 'async',
    measure: (caller, count, sliceMs) => inFlight(count)(caller, payloadOf(SIZE_BYTES), sliceMs),
  },
]

const payloadOf = (sizeBytes: number): Bytes => allocate(sizeBytes).fill(1)

/** How calls grow, each point once: a picture, not a grade. */
const measureCurves = async (
  ours: readonly Caller[],
  scale: Scale,
  say: (line: string) => void,
  wants: (name: string) => boolean,
): Promise<Record<string, Curve>> => {
  const curves: Record<string, Curve> = {}
  for (const { name, axes, places, atomics, measure } of SPECS.filter((spec) => wants(spec.name))) {
    await using raw = await postMessageCaller()
    await using comlink = await comlinkCaller()
    await using piscina = await piscinaCaller(atomics)
    const callers = [...ours, raw, comlink, piscina]
    const series = callers.map((caller): Series & { points: [number, number][] } => ({ name: caller.name, points: [] }))
    for (const place of new Set(places(scale))) {
      say(`${name}: ${place}`)
      for (const [index, caller] of callers.entries()) {
        await measure(caller, place, scale.sliceMs * TURN_SHARE)
        series[index]?.points.push([place, await measure(caller, place, scale.sliceMs * CURVE_SHARE)])
      }
    }
    curves[name] = { ...axes, series }
  }
  return curves
}
