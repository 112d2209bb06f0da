import type { FlowId } from '../protocol/names.js'

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

export const storeName = (flow: FlowId, object: ObjectName): string =>
  `${storePrefix(flow)}${formatObjectName(object)}${SUFFIX}`

/** The objects of `flow` among the names that a store lists; names of other shapes are nobody's. */
export const parseStoreNames = (flow: FlowId, claimed: readonly string[]): ObjectName[] => {
  const prefix = storePrefix(flow)
  return claimed.flatMap((name) => {
    if (!name.startsWith(prefix) || !name.endsWith(SUFFIX)) return []
    return parseObjectName(name.slice(prefix.length, -SUFFIX.length)) ?? []
  })
}

/** Newest first. */
export const byAge = (a: ObjectName, b: ObjectName): number =>
  b.epoch - a.epoch || b.incarnation - a.incarnation || b.serial - a.serial
