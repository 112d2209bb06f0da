import { allocate, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'
import { MESSAGE_SIZE_BYTES_MAX, VALUE_DEPTH_MAX, VALUE_NODE_COUNT_MAX } from './limits.js'
import { halfBits, MAJOR, SIMPLE } from './value-codec.js'
import { refuseValue, setField, type Value, type ValueLimits } from './values.js'

const TWO_32 = 0x1_0000_0000
const { isSafeInteger, isFinite, MAX_SAFE_INTEGER } = Number
const { is } = Object
const { fromCharCode } = String

/** Every JavaScript runtime has it; the compiler's library for the language alone does not list it. */
declare const TextDecoder: new (
  label: string,
  options: { readonly fatal: boolean; readonly ignoreBOM: boolean },
) => { decode(bytes: Uint8Array): string }
const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export const refuseBytes = (detail: string): never => {
  throw new KeyriseError('ERR_MESSAGE_INVALID', { detail })
}

/** Typed arrays up to this size lie on V8's heap, in an ArrayBuffer of their own once somebody asks for it. */
const SMALL_SIZE_BYTES = 64

/** How many names are remembered, and up to which length: those that calls and fields have again and again. */
const NAME_SLOT_COUNT = 256
const NAME_LENGTH_MAX = 32

/**
 * Reads claimed bytes as values (protocol/value-codec.ts). They must lie in memory that nobody else can write. Everything in
 * the result is a copy in memory of its own; sizes, counts and depth are checked before anything is made of them.
 */
export class ValueReader {
  /** What the last value counts against the limits. */
  sizeBytes = 0
  at = 0
  #bytes: Uint8Array = new Uint8Array(0)
  #view: DataView = new DataView(new ArrayBuffer(0))
  #end = 0
  #nodesLeft = 0
  readonly #limits: Required<ValueLimits>
  readonly #names: (string | undefined)[] = new Array<string | undefined>(NAME_SLOT_COUNT).fill(undefined)

  constructor(limits: ValueLimits = {}) {
    this.#limits = {
      sizeBytesMax: limits.sizeBytesMax ?? MESSAGE_SIZE_BYTES_MAX,
      nodeCountMax: limits.nodeCountMax ?? VALUE_NODE_COUNT_MAX,
      depthMax: limits.depthMax ?? VALUE_DEPTH_MAX,
    }
  }

  /** Begins to read `size` bytes of `bytes`. */
  start(bytes: Uint8Array, size = bytes.length): void {
    if (bytes !== this.#bytes) {
      this.#bytes = bytes
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    }
    this.#end = size
    this.at = 0
    this.sizeBytes = 0
    this.#nodesLeft = this.#limits.nodeCountMax
  }

  get left(): number {
    return this.#end - this.at
  }

  byte(): number {
    this.#need(1)
    return this.#bytes[this.at++] as number
  }

  word(): number {
    this.#need(4)
    const bytes = this.#bytes
    const { at } = this
    this.at = at + 4
    // By hand: in a hardened realm each method of a built-in is looked up when it is called.
    return (
      (((bytes[at] as number) << 24) |
        ((bytes[at + 1] as number) << 16) |
        ((bytes[at + 2] as number) << 8) |
        (bytes[at + 3] as number)) >>>
      0
    )
  }

  /** The rest of the bytes as one value. @throws {KeyriseError} ERR_MESSAGE_INVALID, ERR_SIZE_LIMIT, ERR_VALUE_UNSUPPORTED. */
  rest(): Value {
    const value = this.#value(0)
    if (this.at !== this.#end) refuseBytes('trailing bytes')
    return value
  }

  /** ASCII text without a head: names and keys. */
  ascii(size: number): string {
    this.#need(size)
    for (let index = this.at; index < this.at + size; index++)
      if ((this.#bytes[index] as number) > 0x7f) refuseBytes('a name that is not ASCII')
    return this.#name(size)
  }

  #need(size: number): void {
    if (size > this.#end - this.at) refuseBytes('cut short')
  }

  #spend(sizeBytes: number, nodes: number): void {
    this.sizeBytes += sizeBytes
    this.#nodesLeft -= nodes
    if (this.sizeBytes > this.#limits.sizeBytesMax) refuseValue('ERR_SIZE_LIMIT', 'bytes')
    if (this.#nodesLeft < 0) refuseValue('ERR_SIZE_LIMIT', 'elements')
  }

  #enter(depth: number): void {
    if (depth >= this.#limits.depthMax) refuseValue('ERR_SIZE_LIMIT', 'depth')
  }

  #value(depth: number): Value {
    const initial = this.byte()
    const major = initial >> 5
    if (major === MAJOR.simple) return this.#simple(initial)
    const argument = this.#argument(initial & 31)
    switch (major) {
      case MAJOR.unsigned:
        this.#spend(8, 1)
        return argument
      case MAJOR.negative:
        this.#spend(8, 1)
        return argument < MAX_SAFE_INTEGER ? -1 - argument : refuseBytes('an integer of more than 53 bits')
      case MAJOR.bytes:
        return this.#byteString(argument, depth)
      case MAJOR.text:
        return this.#text(argument, 1)
      case MAJOR.array:
        return this.#array(argument, depth)
      case MAJOR.map:
        return this.#fields(argument, depth)
      default:
        return refuseBytes('a tag')
    }
  }

  /** RFC 8949 §4.2.1: the shortest form, definite lengths. */
  #argument(information: number): number {
    if (information < 24) return information
    let argument: number
    let least: number
    switch (information) {
      case 24:
        argument = this.byte()
        least = 24
        break
      case 25:
        this.#need(2)
        argument = this.#view.getUint16(this.at)
        this.at += 2
        least = 0x100
        break
      case 26:
        argument = this.word()
        least = 0x1_0000
        break
      case 27:
        argument = this.word() * TWO_32 + this.word()
        least = TWO_32
        if (argument > MAX_SAFE_INTEGER) refuseBytes('a count of more than 53 bits')
        break
      default:
        return refuseBytes('an indefinite length')
    }
    return argument < least ? refuseBytes('not the shortest form') : argument
  }

  #simple(initial: number): Value {
    switch (initial) {
      case SIMPLE.false:
      case SIMPLE.true:
        this.#spend(1, 1)
        return initial === SIMPLE.true
      case SIMPLE.null:
        this.#spend(1, 1)
        return null
      case SIMPLE.half:
      case SIMPLE.single:
      case SIMPLE.double:
        this.#spend(8, 1)
        return this.#float(initial)
      default:
        return refuseBytes('a simple value')
    }
  }

  #float(initial: number): number {
    const size = initial === SIMPLE.half ? 2 : initial === SIMPLE.single ? 4 : 8
    this.#need(size)
    let value: number
    if (size === 2) value = halfValue(this.#view.getUint16(this.at))
    else value = size === 4 ? this.#view.getFloat32(this.at) : this.#view.getFloat64(this.at)
    this.at += size
    if (!isFinite(value)) refuseValue('ERR_VALUE_UNSUPPORTED', 'a number that is not finite')
    const isShortest = size === 8 ? Math.fround(value) !== value : size === 4 ? halfBits(value) < 0 : true
    if (!isShortest || (isSafeInteger(value) && !is(value, -0))) refuseBytes('not the shortest form')
    return value
  }

  #byteString(size: number, depth: number): Bytes {
    this.#enter(depth)
    this.#need(size)
    this.#spend(size, 1)
    const { at } = this
    const isSmall = size <= SMALL_SIZE_BYTES
    // An ArrayBuffer outside the heap takes ten times as long to make as eight bytes on it. What a message says is known to
    // whoever sent it, so it is no secret, and may be where a collection leaves copies (security.md, finding 4).
    const copy = isSmall ? new Uint8Array(size) : allocate(size)
    if (isSmall) for (let index = 0; index < size; index++) copy[index] = this.#bytes[at + index] as number
    else copy.set(this.#bytes.subarray(at, at + size))
    this.at += size
    return copy
  }

  #text(size: number, nodes: number): string {
    this.#need(size)
    let units = size
    let isAscii = true
    for (let index = this.at; index < this.at + size; index++) {
      const byte = this.#bytes[index] as number
      if (byte < 0x80) continue
      isAscii = false
      // Of UTF-16: a continuation byte adds none, a lead byte of four adds two.
      if (byte < 0xc0) units--
      else if (byte >= 0xf0) units++
    }
    this.#spend(2 * units, nodes)
    if (isAscii && size <= NAME_LENGTH_MAX) return nodes === 0 ? this.#name(size) : this.#short(size)
    const bytes = this.#bytes.subarray(this.at, this.at + size)
    this.at += size
    try {
      return textDecoder.decode(bytes)
    } catch {
      return refuseBytes('text that is not UTF-8')
    }
  }

  #short(size: number): string {
    let text = ''
    for (const end = this.at + size; this.at < end; this.at++) text += fromCharCode(this.#bytes[this.at] as number)
    return text
  }

  /** ASCII text that is met again and again: the string that it was last time, if it was the last one of its slot. */
  #name(size: number): string {
    if (size > NAME_LENGTH_MAX) return this.#short(size)
    const { at } = this
    let hash = size
    for (let index = at; index < at + size; index++) hash = (hash * 31 + (this.#bytes[index] as number)) | 0
    const slot = hash & (NAME_SLOT_COUNT - 1)
    const known = this.#names[slot]
    if (known?.length !== size || !this.#isAt(known, at)) return (this.#names[slot] = this.#short(size))
    this.at += size
    return known
  }

  #isAt(text: string, at: number): boolean {
    for (let index = 0; index < text.length; index++)
      if (text.charCodeAt(index) !== this.#bytes[at + index]) return false
    return true
  }

  #array(count: number, depth: number): Value[] {
    this.#enter(depth)
    this.#spend(8 * count, 1)
    // An item is a byte at least: what cannot follow is not allocated.
    this.#need(count)
    const items: Value[] = []
    for (let index = 0; index < count; index++) items.push(this.#value(depth + 1))
    return items
  }

  #fields(count: number, depth: number): { [key: string]: Value } {
    this.#enter(depth)
    this.#spend(8, 1)
    this.#need(2 * count)
    const fields: { [key: string]: Value } = {}
    let [before, beforeEnd] = [-1, -1]
    for (let index = 0; index < count; index++) {
      const start = this.at
      const initial = this.byte()
      if (initial >> 5 !== MAJOR.text) refuseBytes('a key that is not text')
      const key = this.#text(this.#argument(initial & 31), 0)
      if (key === '__proto__') refuseValue('ERR_VALUE_UNSUPPORTED', 'a field named __proto__')
      if (before >= 0 && !this.#isAfter(before, beforeEnd, start, this.at)) refuseBytes('keys that do not ascend')
      ;[before, beforeEnd] = [start, this.at]
      setField(fields, key, this.#value(depth + 1))
    }
    return fields
  }

  /** True where the bytes from `b` come after those from `a`: then no key comes twice. */
  #isAfter(a: number, aEnd: number, b: number, bEnd: number): boolean {
    for (; a < aEnd && b < bEnd; a++, b++) {
      const difference = (this.#bytes[b] as number) - (this.#bytes[a] as number)
      if (difference !== 0) return difference > 0
    }
    return bEnd - b > aEnd - a
  }
}

/** RFC 8949, appendix D. */
const halfValue = (bits: number): number => {
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 0x3ff
  const size =
    exponent === 31
      ? mantissa === 0
        ? Infinity
        : NaN
      : exponent === 0
        ? mantissa * 2 ** -24
        : (1024 + mantissa) * 2 ** (exponent - 25)
  return (bits & 0x8000) === 0 ? size : -size
}
