/** Finds stretches of text that encode bytes, as logs, JSON and dumps do, and decodes them. */

export type Form = 'raw' | 'hex' | 'base64' | 'json'

/** What a byte of text is to one encoding. */
type Role = number
/** The byte ends a run. */
const OUTSIDE: Role = -1
/** The byte neither ends a run nor adds to it: a line break in base64, a colon in a fingerprint. */
const SILENT: Role = -2

interface Syntax {
  readonly form: Form
  /** By byte: a symbol's value, OUTSIDE or SILENT. */
  readonly roles: Int16Array
  /** Shorter runs hold no window of 16 bytes. */
  readonly symbolCountMin: number
  /** Symbols before the encoding starts over: a run may begin with the rest of a group. */
  readonly phaseCount: number
  readonly decode: (symbols: Uint8Array) => Uint8Array
}

const rolesOf = (symbols: Readonly<Record<string, number>>, silent: string): Int16Array => {
  const roles = new Int16Array(256).fill(OUTSIDE)
  for (const sign of silent) roles[sign.charCodeAt(0)] = SILENT
  for (const [sign, value] of Object.entries(symbols)) roles[sign.charCodeAt(0)] = value
  return roles
}

const numbered = (signs: string): Record<string, number> =>
  Object.fromEntries([...signs].map((sign, index) => [sign, index]))

/** Upper and lower case; `de:ad be ef` too, as fingerprints and printed Buffers are written. */
export const HEX_RUNS: Syntax = {
  form: 'hex',
  roles: rolesOf({ ...numbered('0123456789ABCDEF'), ...numbered('0123456789abcdef') }, ': \r\n'),
  symbolCountMin: 32,
  phaseCount: 2,
  decode: (symbols) => {
    const bytes = new Uint8Array(symbols.length >>> 1)
    for (let index = 0; index < bytes.length; index++)
      bytes[index] = ((symbols[2 * index] as number) << 4) | (symbols[2 * index + 1] as number)
    return bytes
  },
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'

/** RFC 4648 §4 and §5. Bytes at any alignment: decoding starts at each of four symbols. */
export const BASE64_RUNS: Syntax = {
  form: 'base64',
  roles: rolesOf({ ...numbered(LETTERS), '+': 62, '/': 63, '-': 62, _: 63 }, '\r\n'),
  symbolCountMin: 22,
  phaseCount: 4,
  decode: (symbols) => {
    const bytes = new Uint8Array((symbols.length * 6) >>> 3)
    let bits = 0
    let bitCount = 0
    let size = 0
    for (const symbol of symbols) {
      bits = ((bits << 6) | symbol) & 0xffff
      bitCount += 6
      if (bitCount >= 8) bytes[size++] = (bits >>> (bitCount -= 8)) & 0xff
    }
    return bytes
  },
}

const DIGIT = 0 // to 9
const SEPARATOR = 10
const QUOTE = 11
const COLON = 12
const SPACE = 13

/**
 * `[1,2,3]`, also printed on many lines, and `{"0":1,"1":2,"2":3}`, which JSON.stringify makes of a typed array: numbers up to
 * 255 with commas or spaces between, and before each perhaps a quoted index.
 */
export const DECIMAL_RUNS: Syntax = {
  form: 'json',
  roles: rolesOf(
    {
      ...numbered('0123456789'),
      ',': SEPARATOR,
      '"': QUOTE,
      ':': COLON,
      ' ': SPACE,
      '\t': SPACE,
      '\r': SPACE,
      '\n': SPACE,
    },
    '',
  ),
  symbolCountMin: 31,
  phaseCount: 1,
  decode: (symbols) => {
    const bytes: number[] = []
    let number = -1
    let quoted = false
    for (let index = 0; index <= symbols.length; index++) {
      const symbol = symbols[index] ?? SEPARATOR
      if (symbol < SEPARATOR) {
        number = (number === -1 ? 0 : number * 10) + (symbol - DIGIT)
        continue
      }
      if (symbol === QUOTE) quoted = !quoted
      // What stood in quotes was an index.
      if (number !== -1 && symbol !== QUOTE && !quoted) bytes.push(number)
      number = -1
    }
    // Over 255 it is no byte: 0 stands for it, which breaks a match there and nowhere else.
    return Uint8Array.from(bytes, (value) => (value > 255 ? 0 : value))
  },
}

/** A run that goes on for longer is decoded in pieces that overlap by enough for any window in any form. */
const PIECE_SIZE = 64 * 1024
const OVERLAP_SIZE = 512

/** Follows one encoding through a stream of chunks. */
export class TextRuns {
  readonly #syntax: Syntax
  readonly #found: (decoded: Uint8Array) => void
  readonly #symbols = new Uint8Array(PIECE_SIZE)
  #count = 0

  constructor(syntax: Syntax, found: (decoded: Uint8Array) => void) {
    this.#syntax = syntax
    this.#found = found
  }

  push(chunk: Uint8Array): void {
    const { roles, symbolCountMin } = this.#syntax
    const symbols = this.#symbols
    let count = this.#count
    for (let index = 0; index < chunk.length; index++) {
      const role = roles[chunk[index] as number] as number
      if (role >= 0) {
        symbols[count++] = role
        if (count < PIECE_SIZE) continue
        this.#decode(count)
        symbols.copyWithin(0, PIECE_SIZE - OVERLAP_SIZE)
        count = OVERLAP_SIZE
      } else if (role === OUTSIDE) {
        if (count >= symbolCountMin) this.#decode(count)
        count = 0
      }
    }
    this.#count = count
  }

  /** The stream ends, and with it the run. */
  end(): void {
    if (this.#count >= this.#syntax.symbolCountMin) this.#decode(this.#count)
    this.#count = 0
  }

  #decode(count: number): void {
    for (let phase = 0; phase < this.#syntax.phaseCount; phase++)
      this.#found(this.#syntax.decode(this.#symbols.subarray(phase, count)))
  }
}
