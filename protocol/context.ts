import { asciiText, copyBytes, type Bytes } from './bytes.js'
import { encodeCbor } from './cbor.js'
import { KeyriseError } from './errors.js'
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

export const encodeContext = (context: EnvelopeContext): Bytes => encodeCbor({ v: 1, ...context })

/**
 * All eight fields are there, in one order and one form each (RFC 8949 §4.2.1), so the bytes between their values are known. A
 * reader of just these: the KMS reads a context with every header, and `decodeCbor`, which encodes again what it decoded, takes
 * several times as long. It is the reference that the tests hold this against.
 *
 * @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_NAME_INVALID.
 */
export const decodeContext = (claimed: Uint8Array): EnvelopeContext => {
  const fields = new ContextReader(claimed)
  // A map of eight, `v`: 1.
  fields.skip(START)
  const flow = parseFlowId(fields.text(FLOW))
  const claimedKind = fields.text(KIND)
  const kind = ENVELOPE_KINDS.find((known) => known === claimedKind)
  if (kind === undefined) return refuse('kind')
  const name = parsePath(fields.text(NAME))
  const task = parseFlowId(fields.text(TASK))
  const epoch = fields.count(EPOCH)
  const image = fields.bytes(IMAGE, 32)
  const incarnation = fields.count(INCARNATION)
  fields.end()
  return { flow, task, kind, name, epoch, incarnation, image }
}

const keyBytes = (key: string): Bytes => encodeCbor(key)
const START = Uint8Array.of(0xa8, ...keyBytes('v'), 1)
const [FLOW, KIND, NAME, TASK] = [keyBytes('flow'), keyBytes('kind'), keyBytes('name'), keyBytes('task')]
const [EPOCH, IMAGE, INCARNATION] = [keyBytes('epoch'), keyBytes('image'), keyBytes('incarnation')]

const UNSIGNED = 0
const BYTE_STRING = 2
const TEXT_STRING = 3

const refuse = (detail: string): never => {
  throw new KeyriseError('ERR_HEADER_MALFORMED', { detail })
}

/** Reads deterministic CBOR from start to end; each call a key, which must be the next one, and its value. */
class ContextReader {
  readonly #claimed: Uint8Array
  #offset = 0

  constructor(claimed: Uint8Array) {
    this.#claimed = claimed
  }

  skip(known: Uint8Array): void {
    for (let index = 0; index < known.length; index++)
      if (this.#claimed[this.#offset++] !== known[index]) refuse('not a context')
  }

  /** ASCII: no field has other text. */
  text(key: Uint8Array): string {
    this.skip(key)
    const bytes = this.#take(this.#argument(TEXT_STRING))
    for (let index = 0; index < bytes.length; index++) if ((bytes[index] as number) > 0x7f) refuse('a character')
    return asciiText(bytes)
  }

  bytes(key: Uint8Array, size: number): Bytes {
    this.skip(key)
    return this.#argument(BYTE_STRING) === size ? copyBytes(this.#take(size)) : refuse('size')
  }

  count(key: Uint8Array): number {
    this.skip(key)
    return this.#argument(UNSIGNED)
  }

  end(): void {
    if (this.#offset !== this.#claimed.length) refuse('something behind the context')
  }

  /** The argument of a head (RFC 8949 §3) of this major type: in as few bytes as it fits, and no more than 2^53 - 1. */
  #argument(majorType: number): number {
    const initial = this.#claimed[this.#offset++] ?? 0xff
    if (initial >> 5 !== majorType) return refuse('type')
    const information = initial & 31
    if (information < 24) return information
    if (information > 27) return refuse('size')
    let argument = 0
    const bytes = this.#take(1 << (information - 24))
    for (let index = 0; index < bytes.length; index++) argument = argument * 256 + (bytes[index] as number)
    const isShortest = argument >= (ARGUMENTS_MIN[information - 24] as number)
    return isShortest && argument <= Number.MAX_SAFE_INTEGER ? argument : refuse('an integer')
  }

  #take(size: number): Uint8Array {
    const start = this.#offset
    this.#offset += size
    return this.#offset <= this.#claimed.length
      ? this.#claimed.subarray(start, this.#offset)
      : refuse('an end too early')
  }
}
/** What needs 1, 2, 4 or 8 bytes. */
const ARGUMENTS_MIN = [24, 2 ** 8, 2 ** 16, 2 ** 32]
