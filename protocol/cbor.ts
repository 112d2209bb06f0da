import { decode, encode, rfc8949EncodeOptions } from 'cborg'
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
export const encodeCbor = (value: Cbor): Bytes => copyBytes(encode(value, rfc8949EncodeOptions))

const decodeStrict = (bytes: Uint8Array, useMaps: boolean): unknown => {
  try {
    const value: unknown = decode(bytes, {
      strict: true,
      useMaps,
      rejectDuplicateMapKeys: true,
      allowIndefinite: false,
      allowUndefined: false,
      allowBigInt: false,
      allowInfinity: false,
      allowNaN: false,
    })
    if (!equalPublicBytes(encode(value, rfc8949EncodeOptions), bytes))
      throw new KeyriseError('ERR_CBOR_INVALID', { detail: 'not deterministic' })
    return value
  } catch (error) {
    if (error instanceof KeyriseError) throw error
    throw new KeyriseError('ERR_CBOR_INVALID')
  }
}

/**
 * One value, deterministic, nothing after it. Public bytes only: secrets travel beside CBOR, never in it.
 * @throws {KeyriseError} ERR_CBOR_INVALID.
 */
export const decodeCbor = (claimed: Uint8Array): unknown => decodeStrict(claimed, false)

/** The same, with every map as a `Map`: for tokens, whose keys are integers. */
export const decodeCborMaps = (claimed: Uint8Array): unknown => decodeStrict(claimed, true)
