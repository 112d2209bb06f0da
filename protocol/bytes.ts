/** A view whose ArrayBuffer is its own: never shared memory, never a slice of a pool. */
export type Bytes = Uint8Array<ArrayBuffer>

/** `size` zero bytes outside the V8 heap, so that a later `fill(0)` reaches the only copy (security.md, finding 4). */
export const allocate = (size: number): Bytes => new Uint8Array(new ArrayBuffer(size))

/** An exact copy outside the V8 heap. */
export const copyBytes = (source: Uint8Array): Bytes => {
  const copy = allocate(source.length)
  copy.set(source)
  return copy
}

export const concatBytes = (...parts: readonly Uint8Array[]): Bytes => {
  const whole = allocate(parts.reduce((size, part) => size + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

/** The bytes of ASCII text: labels and headers, never secrets. */
export const asciiBytes = (text: string): Bytes => {
  const bytes = allocate(text.length)
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code > 0x7f) throw new TypeError('Not ASCII')
    bytes[index] = code
  }
  return bytes
}

/** The text of public bytes, each a character: ASCII, where the caller checks or has checked. */
export const asciiText = (bytes: Uint8Array): string => {
  if (bytes.length <= ARGUMENT_COUNT_MAX) return Reflect.apply(String.fromCharCode, undefined, bytes) as string
  let text = ''
  for (let offset = 0; offset < bytes.length; offset += ARGUMENT_COUNT_MAX)
    text += asciiText(bytes.subarray(offset, offset + ARGUMENT_COUNT_MAX))
  return text
}
/** As many as any stack takes. */
const ARGUMENT_COUNT_MAX = 4096

/** Equality of public bytes; it stops at the first difference. Secrets compare with `Secret.equals`. */
export const equalPublicBytes = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false
  return true
}

const HEX = /^(?:[0-9a-f]{2})*$/

export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** Public hex text to bytes; undefined when it is not lower-case hex. */
export const fromHex = (claimed: string): Bytes | undefined => {
  if (!HEX.test(claimed)) return undefined
  const bytes = allocate(claimed.length / 2)
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = Number.parseInt(claimed.slice(index * 2, index * 2 + 2), 16)
  return bytes
}
