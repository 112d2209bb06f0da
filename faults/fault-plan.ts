import { disksAt, type PlacedDamage, type PlacedFault } from './fault-check.js'
import { DAMAGE_KINDS, LIVE_KINDS, type DamageKind, type LiveKind } from './fault-kinds.js'
import type { Reference } from './crash-check.js'
import type { Scenario } from './scenario.js'
import type { Choose, TracePoint } from './trace.js'

/** Where faults and damage strike: everywhere in the long run unless told, at chosen places else. */

export interface PlanOptions {
  readonly choose: Choose
  readonly isLong: boolean
  /** Places at which each kind strikes. */
  readonly countOfKind: number
}

const PAIRS_OF_KIND = 8
/** Of the recorded run, in the long run. */
const DAMAGED_MOMENTS = 12

/** Each live kind by itself, then pairs of kinds. */
export const planFaults = (
  { points }: Reference,
  { choose, countOfKind }: PlanOptions,
): { faults: PlacedFault[] }[] => {
  const placesOf = (kind: LiveKind): readonly PlacedFault[] =>
    points.filter((point) => strikes(kind, point)).map(({ name }) => ({ at: name, fault: kind.name }))
  const places = LIVE_KINDS.map(placesOf).filter((all) => all.length > 0)
  const single = places.flatMap((all) => spread(all, countOfKind, choose))
  const pairs = places.flatMap((first, index) =>
    places.slice(index).map((second) => [pick(first, choose), pick(second, choose)]),
  )
  return [
    ...single.map((fault) => ({ faults: [fault] })),
    ...spread(pairs, countOfKind * PAIRS_OF_KIND, choose).map((faults) => ({ faults: [...faults] })),
  ]
}

const strikes = (kind: LiveKind, { on, name }: TracePoint): boolean => {
  const isMessage = on === 'request' || on === 'reply'
  return kind.strikes({ on, name: isMessage ? on : name.slice(on.length + 1) })
}

/** Every kind of damage, to files of the last moment; in the long run to all files of moments all along. */
export const planDamage = (
  reference: Reference,
  { choose, isLong, countOfKind }: PlanOptions,
): { damage: PlacedDamage }[] => {
  const last = reference.points.length - 1
  const moments = isLong
    ? Array.from({ length: DAMAGED_MOMENTS }, (_, index) => Math.round((last * (index + 1)) / DAMAGED_MOMENTS))
    : [last]
  const all = DAMAGE_KINDS.flatMap((kind) => {
    const damages = moments.flatMap((moment) => damagesAt(reference, kind, moment, choose))
    return spread(damages, countOfKind, choose)
  })
  return all.map((damage) => ({ damage }))
}

const damagesAt = (
  reference: Reference,
  { name, wholeOf }: DamageKind,
  moment: number,
  choose: Choose,
): PlacedDamage[] => {
  const nameAt = (point: number): string => reference.points[point]?.name ?? ''
  const at = { at: nameAt(moment), damage: name }
  const earlier = (): string => nameAt(choose(moment))
  if (wholeOf !== undefined)
    return wholeOf.flatMap((machine) => [0, 1].map(() => ({ ...at, machine, path: '', other: '', earlier: earlier() })))
  const disks = disksAt(reference, moment)
  return (['host', 'kms'] as const).flatMap((machine) => {
    const files = [...disks[machine]].filter(([, bytes]) => bytes !== null).map(([path]) => path)
    return files.map((path) => ({
      ...at,
      machine,
      path,
      other:
        files.length > 1
          ? pick(
              files.filter((file) => file !== path),
              choose,
            )
          : path,
      earlier: earlier(),
    }))
  })
}

export const planClones = ({ flows }: Scenario): { clone: string }[] =>
  Object.keys(flows).map((flow) => ({ clone: flow }))

const pick = <T>(all: readonly T[], choose: Choose): T => all[choose(all.length)] as T

/** One of each of `count` equal parts. */
const spread = <T>(all: readonly T[], count: number, choose: Choose): readonly T[] => {
  if (all.length <= count) return all
  return Array.from({ length: count }, (_, part) => {
    const start = Math.floor((all.length * part) / count)
    const end = Math.floor((all.length * (part + 1)) / count)
    return all[start + choose(end - start)] as T
  })
}
