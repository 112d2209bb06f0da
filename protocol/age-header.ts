import { decodeBase64Lines, decodeBase64NoPad, encodeBase64NoPad } from './base64.js'
import { allocate, asciiBytes, asciiText, concatBytes, copyBytes, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'
import { HEADER_SIZE_BYTES_MAX, STANZA_COUNT_MAX } from './limits.js'

/** The header of an age v1 file, as bytes only: C2SP age, "Textual file header". No cryptography happens here. */

/** The file key wrapped for one recipient, or an extension that other implementations ignore. */
export interface Stanza {
  readonly args: readonly [type: string, ...rest: string[]]
  readonly body: Bytes
}

/** A header as claimed: nothing in it counts before its MAC was verified with the file key. */
export interface Header {
  readonly stanzas: readonly Stanza[]
  /** 32 bytes. */
  readonly mac: Bytes
  /** What the MAC covers: everything through `---`. */
  readonly macInput: Bytes
  /** Where the payload starts. */
  readonly sizeBytes: number
}

const VERSION_LINE = 'age-encryption.org/v1'
const STANZA_START = '-> '
const STANZA_MARK = asciiBytes(STANZA_START)
const MAC_MARK = asciiBytes('--- ')
/** Of the mark, what the MAC covers. */
const MAC_MARK_SIZE = 3
const MAC_SIZE = 32
const BODY_COLUMNS = 64
const [LF, HYPHEN] = [0x0a, 0x2d] as const
/** ABNF `1*VCHAR`. */
const ARGUMENT = /^[\x21-\x7e]+$/

const malformed = (detail: string): never => {
  throw new KeyriseError('ERR_HEADER_MALFORMED', { detail })
}
const beyondLimit = (detail: string): never => {
  throw new KeyriseError('ERR_HEADER_LIMIT', { detail })
}

/** Lines of printable ASCII that end with LF, none read beyond the header’s limit. */
class LineReader {
  readonly #claimed: Uint8Array
  readonly #isCut: boolean
  #start = 0
  #end = -1

  constructor(claimed: Uint8Array) {
    this.#claimed = claimed.subarray(0, HEADER_SIZE_BYTES_MAX)
    this.#isCut = claimed.length > HEADER_SIZE_BYTES_MAX
  }

  /** Where the line starts. */
  get start(): number {
    return this.#start
  }

  /** Where its LF is. */
  get end(): number {
    return this.#end
  }

  /** Goes to the next line. Only the lines that hold text are made strings, by `text`. */
  next(): void {
    const claimed = this.#claimed
    let end = this.#end + 1
    this.#start = end
    for (; end < claimed.length && claimed[end] !== LF; end++) {
      const code = claimed[end] as number
      if (code < 0x20 || code > 0x7e) malformed('a character that is not printable ASCII')
    }
    if (end === claimed.length) return this.#isCut ? beyondLimit('header size') : malformed('no end')
    this.#end = end
  }

  startsWith(mark: Uint8Array): boolean {
    for (let index = 0; index < mark.length; index++)
      if (this.#claimed[this.#start + index] !== mark[index]) return false
    return true
  }

  /** The line behind its first `skipped` characters. */
  text(skipped: number): string {
    return asciiText(this.#claimed.subarray(this.#start + skipped, this.#end))
  }

  /** What stands from `start` to the end of the line. */
  since(start: number): Uint8Array {
    return this.#claimed.subarray(start, this.#end)
  }
}

/**
 * Canonical base64 without padding, as RFC 4648 §4 and C2SP age demand: one text for each value.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED.
 */
export const decodeBase64 = (claimed: string): Bytes => decodeBase64NoPad(claimed) ?? malformed('base64')

export { encodeBase64NoPad as encodeBase64 } from './base64.js'

const readBody = (lines: LineReader): Bytes => {
  const start = lines.end + 1
  for (;;) {
    lines.next()
    const length = lines.end - lines.start
    if (length > BODY_COLUMNS) return malformed('a body line is too long')
    if (length < BODY_COLUMNS) return decodeBase64Lines(lines.since(start), BODY_COLUMNS) ?? malformed('base64')
  }
}

const readStanza = (lines: LineReader): Stanza => {
  const [type, ...rest] = lines.text(STANZA_MARK.length).split(' ')
  if (type === undefined || type === '' || rest.includes('')) return malformed('an empty argument')
  return { args: [type, ...rest], body: readBody(lines) }
}

/**
 * Reads the header that `claimed` starts with; what follows it is not looked at. Bounded in time and memory by
 * HEADER_SIZE_BYTES_MAX and STANZA_COUNT_MAX, whatever `claimed` holds.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT.
 */
export const parseHeader = (claimed: Uint8Array): Header => {
  const lines = new LineReader(claimed)
  lines.next()
  if (lines.text(0) !== VERSION_LINE) return malformed('not an age v1 file')
  const stanzas: Stanza[] = []
  for (;;) {
    lines.next()
    if (lines.startsWith(STANZA_MARK)) {
      if (stanzas.length === STANZA_COUNT_MAX) return beyondLimit('stanza count')
      stanzas.push(readStanza(lines))
    } else if (lines.startsWith(MAC_MARK) && stanzas.length > 0) {
      const mac = decodeBase64(lines.text(MAC_MARK.length))
      if (mac.length !== MAC_SIZE) return malformed('MAC size')
      const macInput = copyBytes(claimed.subarray(0, lines.start + MAC_MARK_SIZE))
      return { stanzas, mac, macInput, sizeBytes: lines.end + 1 }
    } else return malformed('neither a stanza nor a MAC')
  }
}

/** Gathers a header that comes in pieces of any size, and reads it once. */
export class HeaderGatherer {
  /** A byte above the limit tells a header that is too long from one that has not ended. */
  readonly #held = allocate(HEADER_SIZE_BYTES_MAX + 1)
  #size = 0
  #lineStart = 0

  /**
   * Takes what `bytes` has of the header.
   * @returns the header, and what stands behind it in `bytes`; undefined while its end has not come.
   * @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT.
   */
  push(bytes: Uint8Array): { header: Header; rest: Uint8Array } | undefined {
    for (let offset = 0; offset < bytes.length; offset++) {
      if (this.#size === this.#held.length) break
      const byte = bytes[offset] as number
      this.#held[this.#size++] = byte
      if (byte !== LF) continue
      // The first line that starts as the MAC’s does ends the header, or spoils it.
      if (this.#startsAsMac()) return { header: this.read(), rest: bytes.subarray(offset + 1) }
      this.#lineStart = this.#size
    }
    if (this.#size === this.#held.length) this.read()
    return undefined
  }

  /** The header, or why what has come is none. @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT. */
  read(): Header {
    return parseHeader(this.#held.subarray(0, this.#size))
  }

  #startsAsMac(): boolean {
    const mark = this.#held.subarray(this.#lineStart, this.#lineStart + MAC_MARK_SIZE)
    return mark.every((byte) => byte === HYPHEN)
  }
}

/** The body’s base64 in lines of 64 columns, the last one shorter, and empty where the others leave nothing. */
const wrapBody = (body: Uint8Array): string => {
  const text = encodeBase64NoPad(body)
  const lines: string[] = []
  for (let column = 0; column <= text.length; column += BODY_COLUMNS)
    lines.push(text.slice(column, column + BODY_COLUMNS))
  return lines.join('\n')
}

const encodeStanza = ({ args, body }: Stanza): string => {
  if (!args.every((argument) => ARGUMENT.test(argument))) return malformed('an argument')
  return `${STANZA_START}${args.join(' ')}\n${wrapBody(body)}\n`
}

/**
 * What the MAC is made over. Headers that `parseHeader` would refuse are not written.
 * @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT.
 */
export const encodeMacInput = (stanzas: readonly Stanza[]): Bytes => {
  if (stanzas.length === 0) return malformed('no stanza')
  if (stanzas.length > STANZA_COUNT_MAX) return beyondLimit('stanza count')
  const text = `${VERSION_LINE}\n${stanzas.map(encodeStanza).join('')}---`
  const macLineRestSize = 1 + encodeBase64NoPad(new Uint8Array(MAC_SIZE)).length + 1
  return text.length + macLineRestSize > HEADER_SIZE_BYTES_MAX ? beyondLimit('header size') : asciiBytes(text)
}

/** @param macInput - from `encodeMacInput`. */
export const encodeHeader = (macInput: Uint8Array, mac: Uint8Array): Bytes =>
  concatBytes(macInput, asciiBytes(` ${encodeBase64NoPad(mac)}\n`))
