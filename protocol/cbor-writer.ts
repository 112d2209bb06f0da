import { copyBytes, type Bytes } from './bytes.js'
import type { Cbor } from './cbor.js'

/** RFC 8949 §3.1. */
const MAJOR = { unsigned: 0, negative: 1, bytes: 2, text: 3, list: 4, map: 5 } as const
const FALSE = 0xf4
const TRUE = 0xf5
const NULL = 0xf6
const TWO_32 = 0x1_0000_0000
const HEAD_SIZE_MAX = 9
const KEPT_SIZE_MAX = 64 * 1024
const { isSafeInteger } = Number
const { keys: keysOf, getPrototypeOf, is, prototype } = Object

let scratch = new Uint8Array(4096)
let length = 0

/**
 * Deterministic CBOR of what nearly all of our structures consist of: integers, ASCII text, bytes, lists, maps of text keys. Ten
 * times as fast as a general encoder, for which it leaves the rest.
 * @returns undefined where there is anything else in `value`.
 */
export const writeCbor = (value: Cbor): Bytes | undefined => {
  length = 0
  try {
    return write(value) ? copyBytes(scratch.subarray(0, length)) : undefined
  } finally {
    if (scratch.length > KEPT_SIZE_MAX) scratch = new Uint8Array(4096)
  }
}

const reserve = (size: number): void => {
  if (length + size <= scratch.length) return
  const larger = new Uint8Array(Math.max(2 * scratch.length, length + size))
  larger.set(scratch.subarray(0, length))
  scratch = larger
}

/** The shortest head: RFC 8949 §4.2.1. */
const writeHead = (major: number, argument: number): void => {
  const initial = major << 5
  if (argument < 24) scratch[length++] = initial | argument
  else if (argument < 0x100) writeArgument(initial | 24, argument, 1)
  else if (argument < 0x1_0000) writeArgument(initial | 25, argument, 2)
  else if (argument < TWO_32) writeArgument(initial | 26, argument, 4)
  else {
    writeArgument(initial | 27, Math.floor(argument / TWO_32), 4)
    writeUint(argument % TWO_32, 4)
  }
}

const writeArgument = (initial: number, argument: number, size: number): void => {
  scratch[length++] = initial
  writeUint(argument, size)
}

const writeUint = (value: number, size: number): void => {
  for (let shift = 8 * (size - 1); shift >= 0; shift -= 8) scratch[length++] = value >>> shift
}

const write = (value: unknown): boolean => {
  reserve(HEAD_SIZE_MAX)
  switch (typeof value) {
    case 'string':
      return writeText(value)
    case 'number':
      return writeInteger(value)
    case 'boolean':
      scratch[length++] = value ? TRUE : FALSE
      return true
    case 'object':
      return writeObject(value)
    default:
      return false
  }
}

const writeObject = (value: object | null): boolean => {
  if (value === null) {
    scratch[length++] = NULL
    return true
  }
  if (value instanceof Uint8Array) return writeBytes(value)
  if (Array.isArray(value)) return writeList(value)
  const type = getPrototypeOf(value) as unknown
  return (type === prototype || type === null) && writeMap(value as Record<string, unknown>)
}

const writeInteger = (value: number): boolean => {
  if (!isSafeInteger(value) || is(value, -0)) return false
  writeHead(value < 0 ? MAJOR.negative : MAJOR.unsigned, value < 0 ? -1 - value : value)
  return true
}

const writeText = (text: string): boolean => {
  reserve(HEAD_SIZE_MAX + text.length)
  writeHead(MAJOR.text, text.length)
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code > 0x7f) return false
    scratch[length++] = code
  }
  return true
}

const writeBytes = (bytes: Uint8Array): boolean => {
  reserve(HEAD_SIZE_MAX + bytes.length)
  writeHead(MAJOR.bytes, bytes.length)
  scratch.set(bytes, length)
  length += bytes.length
  return true
}

const writeList = (items: readonly unknown[]): boolean => {
  writeHead(MAJOR.list, items.length)
  for (let index = 0; index < items.length; index++) if (!write(items[index])) return false
  return true
}

const writeMap = (fields: Readonly<Record<string, unknown>>): boolean => {
  const keys = keysOf(fields).sort(compareKeys)
  writeHead(MAJOR.map, keys.length)
  for (const key of keys) if (!writeText(key) || !write(fields[key])) return false
  return true
}

/** By their encoded bytes, which begin with the length: RFC 8949 §4.2.1. */
const compareKeys = (a: string, b: string): number => (a.length === b.length ? (a < b ? -1 : 1) : a.length - b.length)
