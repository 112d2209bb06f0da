import { allocate, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'
import { MESSAGE_SIZE_BYTES_MAX, VALUE_DEPTH_MAX, VALUE_NODE_COUNT_MAX } from './limits.js'
import {
  checkPlainObject,
  isByteArray,
  ownValue,
  refuseValue,
  sizeOfBytes,
  type SharedBytes,
  type ValueLimits,
} from './values.js'

/**
 * A `Value` as bytes: RFC 8949 CBOR in the core deterministic encoding (§4.2.1), so that equal values have equal bytes,
 * field order apart: fields are sorted. Integers of up to 53 bits are integers, other numbers the shortest float that holds
 * them, −0 too. Written by hand for this subset, because every call passes through it: for the message of a small call cborg
 * takes ten times as long to write it so and four times as long to read it.
 *
 * What counts against the limits is what `admitValue` counts, so that a value crosses as bytes exactly where it would cross
 * by structured clone.
 */

/** RFC 8949 §3.1. */
export const MAJOR = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5, simple: 7 } as const
export const SIMPLE = { false: 0xf4, true: 0xf5, null: 0xf6, half: 0xf9, single: 0xfa, double: 0xfb } as const

/** Of the buffer that is kept from message to message; a larger message gets one of its own. */
const KEPT_SIZE_BYTES = 64 * 1024
const TWO_32 = 0x1_0000_0000

const { isSafeInteger, isFinite } = Number
const { isArray } = Array
const { keys, is } = Object

/** Every JavaScript runtime has it; the compiler's library for the language alone does not list it. */
declare const TextEncoder: new () => { encodeInto(text: string, into: Uint8Array): unknown }
const textEncoder = new TextEncoder()

const float = new Float32Array(1)
const floatBits = new Uint32Array(float.buffer)

/** The bits of a half-precision float that is exactly `value`, or −1. `value` must be exact in single precision. */
export const halfBits = (value: number): number => {
  float[0] = value
  const bits = floatBits[0] as number
  const sign = (bits >>> 16) & 0x8000
  const exponent = (bits >>> 23) & 0xff
  const mantissa = bits & 0x7f_ffff
  if ((bits & 0x7fff_ffff) === 0) return sign
  const power = exponent - 127
  if (power >= -14 && power <= 15)
    return (mantissa & 0x1fff) === 0 ? sign | ((power + 15) << 10) | (mantissa >> 13) : -1
  if (power < -24 || power > 15) return -1
  const shift = -1 - power
  const whole = 0x80_0000 | mantissa
  return (whole & ((1 << shift) - 1)) === 0 ? sign | (whole >> shift) : -1
}

/** Bytes in UTF-8. @throws {KeyriseError} ERR_VALUE_UNSUPPORTED: a surrogate without its other half is not text. */
const utf8Size = (text: string): number => {
  const { length } = text
  let size = length
  for (let index = 0; index < length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x80) continue
    size += code < 0x800 ? 1 : 2
    if (code < 0xd800 || code > 0xdfff) continue
    const next = text.charCodeAt(++index)
    if (code > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff))
      refuseValue('ERR_VALUE_UNSUPPORTED', 'text with half a surrogate pair')
    // Two units of UTF-16, which count one each, are four bytes.
  }
  return size
}

/** The order of RFC 8949 §4.2.1: by size in UTF-8, then by bytes, which is by code points. */
const compareKeys = (a: string, b: string): number => {
  const difference = utf8Size(a) - utf8Size(b)
  if (difference !== 0 || a === b) return difference
  const [pointsA, pointsB] = [[...a], [...b]]
  for (let index = 0; index < pointsA.length; index++) {
    const points = (pointsA[index]?.codePointAt(0) ?? 0) - (pointsB[index]?.codePointAt(0) ?? 0)
    if (points !== 0) return points
  }
  return 0
}

/**
 * Writes values one after another into memory of its own. Nothing here is secret from the reader: what was written stays in
 * the buffer until something overwrites it.
 */
export class ValueWriter {
  bytes: Bytes = allocate(KEPT_SIZE_BYTES)
  size = 0
  readonly #kept: Bytes = this.bytes
  #view = new DataView(this.bytes.buffer)
  #sizeBytesLeft = 0
  #nodesLeft = 0
  #depthMax = 0
  #shared: SharedBytes = 'refused'

  /** Begins a message. */
  start(limits: ValueLimits = {}, shared: SharedBytes = 'refused'): void {
    this.#shared = shared
    if (this.bytes !== this.#kept) this.#use(this.#kept)
    this.size = 0
    this.#sizeBytesLeft = limits.sizeBytesMax ?? MESSAGE_SIZE_BYTES_MAX
    this.#nodesLeft = limits.nodeCountMax ?? VALUE_NODE_COUNT_MAX
    this.#depthMax = limits.depthMax ?? VALUE_DEPTH_MAX
  }

  /** What was written since `start`, as an exact copy, or, where the message had a buffer of its own, as a view of that. */
  take(): Bytes {
    return this.bytes === this.#kept ? this.bytes.slice(0, this.size) : this.bytes.subarray(0, this.size)
  }

  byte(value: number): void {
    this.ensure(1)
    this.bytes[this.size++] = value
  }

  /** Unsigned, 32 bits, most significant byte first. */
  word(value: number): void {
    this.ensure(4)
    const { bytes, size } = this
    bytes[size] = value >>> 24
    bytes[size + 1] = value >>> 16
    bytes[size + 2] = value >>> 8
    bytes[size + 3] = value
    this.size = size + 4
  }

  /** Text that is known to be ASCII, without a head. */
  ascii(text: string): void {
    this.ensure(text.length)
    for (let index = 0; index < text.length; index++) this.bytes[this.size++] = text.charCodeAt(index)
  }

  /**
   * One value. Neither accessors nor methods of it run, and nothing inherited is read.
   * @throws {KeyriseError} as `admitValue`; also ERR_VALUE_UNSUPPORTED for text with half a surrogate pair.
   */
  value(value: unknown, depth = 0): void {
    switch (typeof value) {
      case 'number':
        this.#spend(8, 1)
        return this.#number(value)
      case 'string':
        this.#spend(2 * value.length, 1)
        return this.#text(value)
      case 'boolean':
        this.#spend(1, 1)
        return this.byte(value ? SIMPLE.true : SIMPLE.false)
      case 'object':
        if (value !== null) return this.#object(value, depth)
        this.#spend(1, 1)
        return this.byte(SIMPLE.null)
      default:
        return refuseValue('ERR_VALUE_UNSUPPORTED', typeof value)
    }
  }

  #spend(sizeBytes: number, nodes: number): void {
    this.#sizeBytesLeft -= sizeBytes
    this.#nodesLeft -= nodes
    if (this.#sizeBytesLeft < 0) refuseValue('ERR_SIZE_LIMIT', 'bytes')
    if (this.#nodesLeft < 0) refuseValue('ERR_SIZE_LIMIT', 'elements')
  }

  #object(value: object, depth: number): void {
    if (depth >= this.#depthMax) refuseValue('ERR_SIZE_LIMIT', 'depth')
    if (isArray(value)) {
      this.#spend(8 * value.length, 1)
      this.#head(MAJOR.array, value.length)
      for (let index = 0; index < value.length; index++) this.value(ownValue(value, index), depth + 1)
    } else if (isByteArray(value)) this.#bytes(value)
    else {
      checkPlainObject(value)
      this.#fields(value, depth)
    }
  }

  #bytes(value: Uint8Array): void {
    const size = sizeOfBytes(value, this.#shared)
    this.#spend(size, 1)
    this.#head(MAJOR.bytes, size)
    this.ensure(size)
    // A subarray is an object more than a few bytes are worth.
    if (size <= 64) for (let index = 0; index < size; index++) this.bytes[this.size + index] = value[index] as number
    else this.bytes.set(value, this.size)
    this.size += size
  }

  #fields(value: object, depth: number): void {
    this.#spend(8, 1)
    const fields: [string, unknown][] = []
    for (const key of keys(value)) {
      if (key === '__proto__') refuseValue('ERR_VALUE_UNSUPPORTED', 'a field named __proto__')
      this.#spend(2 * key.length, 0)
      const field = ownValue(value, key)
      if (field !== undefined) fields.push([key, field])
    }
    if (fields.length > 1) fields.sort(([a], [b]) => compareKeys(a, b))
    this.#head(MAJOR.map, fields.length)
    for (const [key, field] of fields) {
      this.#text(key)
      this.value(field, depth + 1)
    }
  }

  #number(value: number): void {
    if (isSafeInteger(value) && !is(value, -0))
      return value >= 0 ? this.#head(MAJOR.unsigned, value) : this.#head(MAJOR.negative, -1 - value)
    if (!isFinite(value)) refuseValue('ERR_VALUE_UNSUPPORTED', 'a number that is not finite')
    this.ensure(9)
    const { size } = this
    if (Math.fround(value) !== value) {
      this.bytes[size] = SIMPLE.double
      this.#view.setFloat64(size + 1, value)
      this.size += 9
      return
    }
    const half = halfBits(value)
    this.bytes[size] = half < 0 ? SIMPLE.single : SIMPLE.half
    if (half < 0) this.#view.setFloat32(size + 1, value)
    else this.#view.setUint16(size + 1, half)
    this.size += half < 0 ? 5 : 3
  }

  #text(text: string): void {
    const size = utf8Size(text)
    this.#head(MAJOR.text, size)
    if (size === text.length && size <= 64) return this.ascii(text)
    this.ensure(size)
    textEncoder.encodeInto(text, this.bytes.subarray(this.size, this.size + size))
    this.size += size
  }

  /** RFC 8949 §3: the major type with its argument, in as few bytes as hold it. */
  #head(major: number, argument: number): void {
    this.ensure(9)
    const initial = major << 5
    const at = this.size
    if (argument < 24) {
      this.bytes[at] = initial | argument
      this.size += 1
    } else if (argument < 0x100) {
      this.bytes[at] = initial | 24
      this.bytes[at + 1] = argument
      this.size += 2
    } else if (argument < 0x1_0000) {
      this.bytes[at] = initial | 25
      this.#view.setUint16(at + 1, argument)
      this.size += 3
    } else if (argument < TWO_32) {
      this.bytes[at] = initial | 26
      this.#view.setUint32(at + 1, argument)
      this.size += 5
    } else {
      this.bytes[at] = initial | 27
      this.#view.setUint32(at + 1, Math.floor(argument / TWO_32))
      this.#view.setUint32(at + 5, argument % TWO_32)
      this.size += 9
    }
  }

  /** Makes room for `size` more bytes. */
  ensure(size: number): void {
    const needed = this.size + size
    if (needed <= this.bytes.length) return
    if (needed > 2 * MESSAGE_SIZE_BYTES_MAX) throw new KeyriseError('ERR_SIZE_LIMIT', { detail: 'bytes' })
    const { bytes } = this
    this.#use(allocate(Math.max(2 * bytes.length, needed + 64)))
    this.bytes.set(bytes.subarray(0, this.size))
  }

  #use(bytes: Bytes): void {
    this.bytes = bytes
    this.#view = new DataView(bytes.buffer)
  }
}
