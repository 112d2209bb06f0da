import { decode, encode, rfc8949EncodeOptions } from 'cborg'
import { writeCbor } from './cbor-writer.js'
import { copyBytes, equalPublicBytes, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'

/** What our CBOR carries. Maps have text keys (`Cbor` objects) or, in tokens, integer keys (`Map`). */
export type Cbor =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly Cbor[]
  | { readonly [key: string]: Cbor }
  | ReadonlyMap<number, Cbor>

/** RFC 8949 §4.2.1, core deterministic encoding: equal values have equal bytes, so bytes can be signed and hashed. */
export const encodeCbor = (value: Cbor): Bytes => writeCbor(value) ?? copyBytes(encode(value, rfc8949EncodeOptions))

/** Enough for every structure of ours but an epoch's index; a frame of a few bytes an item would take the reader minutes. */
const ITEM_COUNT_MAX = 65_536
/** Bytes of a head's argument by its additional information: RFC 8949 §3. */
const ARGUMENT_SIZES = new Map([
  [24, 1],
  [25, 2],
  [26, 4],
  [27, 8],
])
const BYTE_STRING = 2
const TEXT_STRING = 3

/** Counts the items of claimed bytes without making one: heads are read, strings skipped. What is malformed, `decode` refuses. */
const checkItemCount = (bytes: Uint8Array, itemCountMax: number): void => {
  let count = 0
  for (let offset = 0; offset < bytes.length;) {
    if (++count > itemCountMax) throw new KeyriseError('ERR_CBOR_INVALID', { detail: 'too many items' })
    const initial = bytes[offset++] ?? 0
    const [major, information] = [initial >> 5, initial & 31]
    const argumentSize = ARGUMENT_SIZES.get(information) ?? 0
    let argument = information
    if (argumentSize > 0) {
      argument = 0
      for (let index = 0; index < argumentSize; index++) argument = argument * 256 + (bytes[offset + index] ?? 0)
    }
    offset += argumentSize + (major === BYTE_STRING || major === TEXT_STRING ? argument : 0)
  }
}

const STRICT = {
  strict: true,
  rejectDuplicateMapKeys: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowBigInt: false,
  allowInfinity: false,
  allowNaN: false,
} as const

const decodeStrict = (bytes: Uint8Array, useMaps: boolean, itemCountMax: number): unknown => {
  checkItemCount(bytes, itemCountMax)
  try {
    const value: unknown = decode(bytes, { ...STRICT, useMaps })
    if (!equalPublicBytes(encodeCbor(value as Cbor), bytes))
      throw new KeyriseError('ERR_CBOR_INVALID', { detail: 'not deterministic' })
    return value
  } catch (error) {
    if (error instanceof KeyriseError) throw error
    throw new KeyriseError('ERR_CBOR_INVALID')
  }
}

/**
 * One value, deterministic, nothing after it. Public bytes only: secrets travel beside CBOR, never in it.
 * @param itemCountMax - checked before anything is allocated: 65,536 where a structure has no bound of its own.
 * @throws {KeyriseError} ERR_CBOR_INVALID.
 */
export const decodeCbor = (claimed: Uint8Array, itemCountMax = ITEM_COUNT_MAX): unknown =>
  decodeStrict(claimed, false, itemCountMax)

/**
 * The same of bytes that `encodeCbor` made, as their authenticated envelope proves: they are not encoded once more to see that they
 * are deterministic, which takes longer than the reading.
 */
export const decodeOwnCbor = (bytes: Uint8Array, itemCountMax = ITEM_COUNT_MAX): unknown => {
  checkItemCount(bytes, itemCountMax)
  try {
    return decode(bytes, STRICT)
  } catch {
    throw new KeyriseError('ERR_CBOR_INVALID')
  }
}

/** As `decodeCbor`, with every map as a `Map`: for tokens, whose keys are integers. */
export const decodeCborMaps = (claimed: Uint8Array, itemCountMax = ITEM_COUNT_MAX): unknown =>
  decodeStrict(claimed, true, itemCountMax)

/** Of formats that others define, and that need not be deterministic. */
const FOREIGN = {
  ...STRICT,
  // RFC 8949 §4.1 prefers the shortest integers, and asks nobody for them.
  strict: false,
  useMaps: true,
  /** RFC 9052 §2: a COSE_Sign1 may say that it is one. */
  tags: { 18: (item: () => unknown): unknown => item() },
} as const

/** One value of a token that another’s hardware made, with every map as a `Map`. @throws {KeyriseError} ERR_CBOR_INVALID. */
export const decodeForeignCbor = (claimed: Uint8Array, itemCountMax: number): unknown => {
  checkItemCount(claimed, itemCountMax)
  try {
    return decode(claimed, FOREIGN)
  } catch {
    throw new KeyriseError('ERR_CBOR_INVALID')
  }
}
