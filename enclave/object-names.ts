import type { FlowId } from '../protocol/names.js'
import { parseHalfName } from '../protocol/sealed-pair.js'

/**
 * What a flow's objects are called in the store. A name is a hint from an untrusted place: what an object is, its context
 * and its digest say. Table: docs/adr/0003-commit-order.md.
 */
export interface ObjectName {
  readonly kind: 'root' | 'epoch' | 'direct'
  /** The epoch that the object belongs to; a root is epoch 1. */
  readonly epoch: number
  /** The incarnation that wrote it. */
  readonly incarnation: number
  /** Never repeats within an incarnation, so that no instance puts two contents under one name. 0 for a root. */
  readonly serial: number
}

export const ROOT_EPOCH = 1

const PATTERN = /^(?:root-(\d{10,16})|(epoch|direct)-(\d{10,16})-(\d{10,16})-(\d{6,16}))$/
const SUFFIX = '.age'

const digits = (value: number, length = 10): string => String(value).padStart(length, '0')

/** `root-0000000001`, `epoch-0000000002-0000000001-000001`: within its flow. */
export const formatObjectName = ({ kind, epoch, incarnation, serial }: ObjectName): string =>
  kind === 'root'
    ? `root-${digits(incarnation)}`
    : `${kind}-${digits(epoch)}-${digits(incarnation)}-${digits(serial, 6)}`

/** The object that `claimed` names, or undefined: only what `formatObjectName` writes is a name. */
export const parseObjectName = (claimed: string): ObjectName | undefined => {
  const match = PATTERN.exec(claimed)
  if (match === null) return undefined
  const [, root, kind, epoch, incarnation, serial] = match
  const object: ObjectName =
    root === undefined
      ? {
          kind: kind as 'epoch' | 'direct',
          epoch: Number(epoch),
          incarnation: Number(incarnation),
          serial: Number(serial),
        }
      : { kind: 'root', epoch: ROOT_EPOCH, incarnation: Number(root), serial: 0 }
  return formatObjectName(object) === claimed ? object : undefined
}

/** All of a flow's objects start with this. */
export const storePrefix = (flow: FlowId): string => `${flow}/`

/** True for what is sealed straight to the KMS: stored as header and payload (protocol/sealed-pair.ts). */
export const isPair = ({ kind }: ObjectName): boolean => kind !== 'epoch'

/** What the halves of a pair are named after. */
export const pairName = (flow: FlowId, pair: ObjectName): string => `${storePrefix(flow)}${formatObjectName(pair)}`

/** The name of an epoch file, which is one object. */
export const storeName = (flow: FlowId, epoch: ObjectName): string =>
  `${storePrefix(flow)}${formatObjectName(epoch)}${SUFFIX}`

/** The objects of `flow` of which a store lists a name, each once; names of other shapes are nobody's. */
export const parseStoreNames = (flow: FlowId, claimed: readonly string[]): ObjectName[] => {
  const prefix = storePrefix(flow)
  const objects = new Map<string, ObjectName>()
  for (const name of claimed) {
    if (!name.startsWith(prefix)) continue
    const half = parseHalfName(name)
    const whole = half?.name ?? (name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : '')
    const object = parseObjectName(whole.slice(prefix.length))
    if (object !== undefined && isPair(object) === (half !== undefined)) objects.set(whole, object)
  }
  return [...objects.values()]
}

/** Newest first. */
export const byAge = (a: ObjectName, b: ObjectName): number =>
  b.epoch - a.epoch || b.incarnation - a.incarnation || b.serial - a.serial
