import type { Bytes } from './bytes.js'
import { refuseBytes, ValueReader } from './value-reader.js'
import { ValueWriter } from './value-codec.js'
import type { SharedBytes, ValueLimits } from './values.js'

/**
 * Messages of protocol/calls.ts as bytes, for ports that carry bytes. The first byte says the layout:
 *
 * | layout    | then                                                                                             |
 * | --------- | ------------------------------------------------------------------------------------------------ |
 * | any       | the whole message as one value                                                                   |
 * | call      | id (4), size of the name (1), name, then the argument as a value, or nothing where there is none |
 * | keyedCall | the same, with size (1) and key after the name                                                   |
 * | switchless | as call                                                                                         |
 * | reply     | id (4), then the value, or nothing                                                               |
 * | item      | the same                                                                                         |
 *
 * The compact layouts are for ids that are decimal numbers below 2³², as ours are, and names and keys in ASCII; whatever has
 * others travels as `any`. Values: protocol/value-codec.ts.
 */
const LAYOUT = { any: 0, call: 1, keyedCall: 2, reply: 3, item: 4, switchless: 5 } as const

const ID_LIMIT = 0x1_0000_0000
const TEXT_LENGTH_MAX = 255

type Fields = Readonly<Record<string, unknown>>

/** The number that an id of ours is; −1 for any other. */
const compactId = (id: unknown): number => {
  if (typeof id !== 'string' || id.length === 0 || id.length > 10) return -1
  let value = 0
  for (let index = 0; index < id.length; index++) {
    const digit = id.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
  }
  return value < ID_LIMIT && (id.length === 1 || id.charCodeAt(0) !== 48) ? value : -1
}

const isCompactText = (text: unknown): text is string => {
  if (typeof text !== 'string' || text.length === 0 || text.length > TEXT_LENGTH_MAX) return false
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) > 0x7f) return false
  return true
}

const isPlain = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** True for an object of exactly these own fields, none of them an accessor. */
const hasExactly = (value: Fields, count: number, ...names: readonly string[]): boolean =>
  Object.keys(value).length === count &&
  names.every((name) => Object.hasOwn(Object.getOwnPropertyDescriptor(value, name) ?? {}, 'value'))

/** The argument of a call that fits a compact layout, as a list of at most one; undefined where it does not fit. */
const compactArguments = (list: unknown): readonly unknown[] | undefined => {
  if (!Array.isArray(list) || list.length > 1) return undefined
  if (list.length === 0) return []
  const wire: unknown = Object.getOwnPropertyDescriptor(list, 0)?.value
  return isPlain(wire) && hasExactly(wire, 2, 'type', 'value') && wire['type'] === 'RAW' ? [wire['value']] : undefined
}

/** Writes messages into a buffer of its own, one at a time: `bytes` up to `size`. */
export class MessageEncoder {
  readonly #writer = new ValueWriter()

  get bytes(): Bytes {
    return this.#writer.bytes
  }

  get size(): number {
    return this.#writer.size
  }

  /** The message written last: private bytes that stay as they are. */
  take(): Bytes {
    return this.#writer.take()
  }

  /**
   * Any message of protocol/calls.ts, or any other value. The values in it need not be released: they are copied here, by
   * the rules of `admitValue`.
   * @throws {KeyriseError} ERR_SIZE_LIMIT, ERR_SHARED_MEMORY, ERR_VALUE_UNSUPPORTED.
   */
  message(message: unknown, limits?: ValueLimits): void {
    if (isPlain(message) && this.#compact(message, limits)) return
    this.#writer.start(limits)
    this.#writer.byte(LAYOUT.any)
    this.#writer.value(message)
  }

  /** A call without a key, where its id and name fit: false where they do not. @throws {KeyriseError} as `message`. */
  call(id: string, name: string, argument: unknown, isSwitchless: boolean, limits?: ValueLimits): boolean {
    const number = compactId(id)
    if (number < 0 || !isCompactText(name)) return false
    this.#start(isSwitchless ? LAYOUT.switchless : LAYOUT.call, number, limits)
    this.#named(name)
    this.#optional(argument)
    return true
  }

  /** A reply, where its id fits: false where it does not. @throws {KeyriseError} as `message`, but copies shared memory. */
  reply(id: string, value: unknown, limits?: ValueLimits): boolean {
    return this.#valued(LAYOUT.reply, compactId(id), value, limits, 'copied')
  }

  #compact(message: Fields, limits: ValueLimits | undefined): boolean {
    if (!hasExactly(message, Object.keys(message).length, 'id', 'type')) return false
    const { type } = message
    if (type === 'RAW' || type === 'ITEM')
      return (
        hasExactly(message, 3, 'value') &&
        this.#valued(type === 'RAW' ? LAYOUT.reply : LAYOUT.item, compactId(message['id']), message['value'], limits)
      )
    return type === 'APPLY' && this.#anyCall(message, limits)
  }

  #anyCall(message: Fields, limits: ValueLimits | undefined): boolean {
    const isKeyed = Object.hasOwn(message, 'key')
    if (!hasExactly(message, isKeyed ? 5 : 4, 'path', 'argumentList')) return false
    const { path, key } = message
    const list = compactArguments(message['argumentList'])
    const name: unknown =
      Array.isArray(path) && path.length === 1 ? Object.getOwnPropertyDescriptor(path, 0)?.value : undefined
    const id = compactId(message['id'])
    if (id < 0 || list === undefined || !isCompactText(name)) return false
    if (isKeyed && !isCompactText(key)) return false
    this.#start(isKeyed ? LAYOUT.keyedCall : LAYOUT.call, id, limits)
    this.#named(name)
    if (isCompactText(key)) this.#named(key)
    this.#optional(list[0])
    return true
  }

  #valued(layout: number, id: number, value: unknown, limits?: ValueLimits, shared?: SharedBytes): boolean {
    if (id < 0) return false
    this.#start(layout, id, limits, shared)
    this.#optional(value)
    return true
  }

  #start(layout: number, id: number, limits?: ValueLimits, shared?: SharedBytes): void {
    this.#writer.start(limits, shared)
    this.#writer.byte(layout)
    this.#writer.word(id)
  }

  #named(text: string): void {
    this.#writer.byte(text.length)
    this.#writer.ascii(text)
  }

  #optional(value: unknown): void {
    if (value !== undefined) this.#writer.value(value)
  }
}

/** Reads messages. One after another, with the same limits. */
export class MessageDecoder {
  readonly #reader: ValueReader
  /** Of the last message, the id that it has or, where it was refused, had; undefined where none was read. */
  id: string | undefined
  /** Whether the last message was a call of a thread that blocks. */
  isSwitchless = false

  constructor(limits?: ValueLimits) {
    this.#reader = new ValueReader(limits)
  }

  /** What the value in the last message counts against the limits, exactly as `admitValue` would count it. */
  get sizeBytes(): number {
    return this.#reader.sizeBytes
  }

  /**
   * The message in the first `size` bytes of `bytes`, which nobody else may write meanwhile: plain values in memory of their
   * own. What they mean is not checked: protocol/calls.ts does that.
   * @throws {KeyriseError} ERR_MESSAGE_INVALID: not what the encoder writes; ERR_SIZE_LIMIT; ERR_VALUE_UNSUPPORTED.
   */
  decode(bytes: Uint8Array, size = bytes.length): unknown {
    const reader = this.#reader
    reader.start(bytes, size)
    this.id = undefined
    const layout = reader.byte()
    this.isSwitchless = layout === LAYOUT.switchless
    switch (layout) {
      case LAYOUT.any:
        return reader.rest()
      case LAYOUT.call:
      case LAYOUT.switchless:
      case LAYOUT.keyedCall: {
        const id = (this.id = String(reader.word()))
        const path = [this.#text()]
        const key = layout === LAYOUT.keyedCall ? { key: this.#text() } : undefined
        const argumentList = reader.left === 0 ? [] : [{ type: 'RAW', value: reader.rest() }]
        if (layout === LAYOUT.call) return { id, type: 'APPLY', path, argumentList }
        return layout === LAYOUT.switchless
          ? { id, type: 'APPLY', path, argumentList, switchless: true }
          : { id, type: 'APPLY', path, argumentList, ...key }
      }
      case LAYOUT.reply:
      case LAYOUT.item: {
        const id = (this.id = String(reader.word()))
        const value = reader.left === 0 ? undefined : reader.rest()
        return { id, type: layout === LAYOUT.reply ? 'RAW' : 'ITEM', value }
      }
      default:
        return refuseBytes('an unknown layout')
    }
  }

  #text(): string {
    const size = this.#reader.byte()
    return size === 0 ? refuseBytes('an empty name') : this.#reader.ascii(size)
  }
}

/** One message as bytes. @throws {KeyriseError} as `MessageEncoder.message`. */
export const encodeMessage = (message: unknown, limits?: ValueLimits): Bytes => {
  const encoder = new MessageEncoder()
  encoder.message(message, limits)
  return encoder.take()
}

/** The message that claimed bytes are. @throws {KeyriseError} as `MessageDecoder.decode`. */
export const decodeMessage = (claimed: Uint8Array, limits?: ValueLimits): unknown =>
  new MessageDecoder(limits).decode(claimed)
