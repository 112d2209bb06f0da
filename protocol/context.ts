import type { Bytes } from './bytes.js'
import { decodeCbor, encodeCbor } from './cbor.js'
import { FieldReader } from './check.js'
import { ENTRY_KINDS, parseFlowId, parsePath, type EntryKind, type FlowId } from './names.js'

/** What an envelope holds: an entry's kind, a flow's business root key, or one epoch of a flow. */
export type EnvelopeKind = EntryKind | 'root' | 'epoch' | 'step'
const ENVELOPE_KINDS: readonly EnvelopeKind[] = [...ENTRY_KINDS, 'root', 'epoch', 'step']

/**
 * What an envelope is, bound to its file key by the origin tag and carried in the `keyrise/context` stanza.
 * Layout: docs/envelope.md §3.
 */
export interface EnvelopeContext {
  readonly flow: FlowId
  readonly task: FlowId
  readonly kind: EnvelopeKind
  /** The entry; `root`; an epoch's root object, as `root-0000000001`; or the step of `flow.seal`. */
  readonly name: string
  /** The epoch that the envelope is part of: 1 for the root, 0 for steps. */
  readonly epoch: number
  readonly incarnation: number
  /** Measurement of the image that made it, 32 bytes. */
  readonly image: Bytes
}

const CONTEXT_KEYS = ['v', 'flow', 'task', 'kind', 'name', 'epoch', 'incarnation', 'image'] as const

export const encodeContext = (context: EnvelopeContext): Bytes => encodeCbor({ v: 1, ...context })

/** @throws {KeyriseError} ERR_CBOR_INVALID, ERR_HEADER_MALFORMED, ERR_NAME_INVALID. */
export const decodeContext = (claimed: Uint8Array): EnvelopeContext => {
  const fields = new FieldReader(decodeCbor(claimed), CONTEXT_KEYS, 'ERR_HEADER_MALFORMED')
  fields.count('v', 1, 1)
  const claimedKind = fields.text('kind', 32)
  const kind = ENVELOPE_KINDS.find((known) => known === claimedKind)
  if (kind === undefined) return fields.refuse('kind')
  return {
    flow: parseFlowId(fields.claimed('flow')),
    task: parseFlowId(fields.claimed('task')),
    kind,
    name: parsePath(fields.claimed('name')),
    epoch: fields.count('epoch'),
    incarnation: fields.count('incarnation'),
    image: fields.bytes('image', 32),
  }
}
