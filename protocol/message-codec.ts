import type { Bytes } from './bytes.js'
import { isCallNumber } from './calls.js'
import type { CallId, Listen, ListenDirectly } from './ports.js'
import { refuseBytes, ValueReader } from './value-reader.js'
import { ValueWriter } from './value-codec.js'
import type { SharedBytes, Value, ValueLimits } from './values.js'

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
 * The compact layouts are for ids that are numbers, as ours are, and names and keys in ASCII; whatever has others travels as
 * `any`. Values: protocol/value-codec.ts.
 */
const LAYOUT = { any: 0, call: 1, keyedCall: 2, reply: 3, item: 4, switchless: 5 } as const

const TEXT_LENGTH_MAX = 255

type Fields = Readonly<Record<string, unknown>>

const isCompactId = (id: unknown): id is number => typeof id === 'number' && isCallNumber(id)

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
  call(id: CallId, name: string, argument: unknown, isSwitchless: boolean, limits?: ValueLimits): boolean {
    if (!isCompactId(id) || !isCompactText(name)) return false
    this.#start(isSwitchless ? LAYOUT.switchless : LAYOUT.call, id, limits)
    this.#named(name)
    this.#optional(argument)
    return true
  }

  /** A reply, where its id fits: false where it does not. @throws {KeyriseError} as `message`, but copies shared memory. */
  reply(id: CallId, value: unknown, limits?: ValueLimits): boolean {
    return this.#valued(LAYOUT.reply, id, value, limits, 'copied')
  }

  #compact(message: Fields, limits: ValueLimits | undefined): boolean {
    if (!hasExactly(message, Object.keys(message).length, 'id', 'type')) return false
    const { type } = message
    if (type === 'RAW' || type === 'ITEM')
      return (
        hasExactly(message, 3, 'value') &&
        this.#valued(type === 'RAW' ? LAYOUT.reply : LAYOUT.item, message['id'], message['value'], limits)
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
    const { id } = message
    if (!isCompactId(id) || list === undefined || !isCompactText(name)) return false
    if (isKeyed && !isCompactText(key)) return false
    this.#start(isKeyed ? LAYOUT.keyedCall : LAYOUT.call, id, limits)
    this.#named(name)
    if (isCompactText(key)) this.#named(key)
    this.#optional(list[0])
    return true
  }

  #valued(layout: number, id: unknown, value: unknown, limits?: ValueLimits, shared?: SharedBytes): boolean {
    if (!isCompactId(id)) return false
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
  id: number | undefined
  #layout = 0
  #name = ''
  #key = ''
  #value: Value | undefined

  constructor(limits?: ValueLimits) {
    this.#reader = new ValueReader(limits)
  }

  /** What the value in the last message counts against the limits, exactly as `admitValue` would count it. */
  get sizeBytes(): number {
    return this.#reader.sizeBytes
  }

  /** Whether the last message was a call of a thread that blocks. */
  get isSwitchless(): boolean {
    return this.#layout === LAYOUT.switchless
  }

  /**
   * Reads the message in the first `size` bytes of `bytes`, which nobody else may write meanwhile. What it means is not
   * checked: protocol/calls.ts does that.
   * @throws {KeyriseError} ERR_MESSAGE_INVALID: not what the encoder writes; ERR_SIZE_LIMIT; ERR_VALUE_UNSUPPORTED.
   */
  read(bytes: Uint8Array, size = bytes.length): void {
    const reader = this.#reader
    reader.start(bytes, size)
    this.id = undefined
    const layout = (this.#layout = reader.byte())
    if (layout === LAYOUT.any) {
      this.#value = reader.rest()
      return
    }
    if (layout > LAYOUT.switchless) refuseBytes('an unknown layout')
    this.id = reader.word()
    if (layout !== LAYOUT.reply && layout !== LAYOUT.item) this.#name = this.#text()
    if (layout === LAYOUT.keyedCall) this.#key = this.#text()
    this.#value = reader.left === 0 ? undefined : reader.rest()
  }

  /** The message read last, once: plain values in memory of their own. */
  message(): unknown {
    const value = this.#taken()
    const { id } = this
    const layout = this.#layout
    if (layout === LAYOUT.any) return value
    if (layout === LAYOUT.reply) return { id, type: 'RAW', value }
    if (layout === LAYOUT.item) return { id, type: 'ITEM', value }
    const argumentList = value === undefined ? [] : [{ type: 'RAW', value }]
    const call = { id, type: 'APPLY', path: [this.#name], argumentList }
    if (layout === LAYOUT.call) return call
    return layout === LAYOUT.keyedCall ? { ...call, key: this.#key } : { ...call, switchless: true }
  }

  /** Hands the message read last over, ready where it is taken so. */
  hand(listen: Listen | undefined, directly: ListenDirectly): void {
    const id = this.id
    const layout = this.#layout
    if (id !== undefined && layout === LAYOUT.call && directly.call !== undefined)
      return directly.call({ id, name: this.#name, claimedArgument: this.#taken() }, this.sizeBytes)
    if (id !== undefined && layout === LAYOUT.reply && directly.reply !== undefined)
      return directly.reply(id, this.#taken())
    listen?.(this.message(), this.sizeBytes)
  }

  /** Nothing of a message is kept here once it was handed over. */
  #taken(): Value | undefined {
    const value = this.#value
    this.#value = undefined
    return value
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

/** The message that claimed bytes are. @throws {KeyriseError} as `MessageDecoder.read`. */
export const decodeMessage = (claimed: Uint8Array, limits?: ValueLimits): unknown => {
  const decoder = new MessageDecoder(limits)
  decoder.read(claimed)
  return decoder.message()
}
