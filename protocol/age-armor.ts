import { base64 } from '@scure/base'
import { ChunkCutter, guarded, type ByteSink } from './age-stream.js'
import { allocate, asciiBytes, concatBytes, copyBytes, type Bytes } from './bytes.js'
import { KeyriseError } from './errors.js'

/**
 * ASCII armor: C2SP age, "ASCII armor", a strict PEM (RFC 7468 §3, figure 3). Written with LF; read with LF or CRLF, and with
 * white space around the block. Otherwise a file has one armor: whatever else differs from it is refused.
 */

const BEGIN = '-----BEGIN AGE ENCRYPTED FILE-----'
const END = '-----END AGE ENCRYPTED FILE-----'
const COLUMNS = 64
const LINE_SIZE = 48
/** Lines that are encoded together. */
const BLOCK_LINE_COUNT = 1024
/** Each side of the block. */
const WHITE_SPACE_SIZE_MAX = 1024
const [TAB, LF, CR, SPACE, HYPHEN] = [0x09, 0x0a, 0x0d, 0x20, 0x2d] as const

const invalid = (detail: string): never => {
  throw new KeyriseError('ERR_ARMOR_INVALID', { detail })
}

const isWhiteSpace = (byte: number): boolean => byte === SPACE || byte === TAB || byte === LF || byte === CR

/** True when `start`, the first bytes of a file, can only be armor: a binary age file starts with a letter. */
export const isArmored = (start: Uint8Array): boolean => start.find((byte) => !isWhiteSpace(byte)) === HYPHEN

const encodeLines = (bytes: Uint8Array): Bytes => {
  const lines: string[] = []
  for (let offset = 0; offset < bytes.length; offset += LINE_SIZE)
    lines.push(`${base64.encode(bytes.subarray(offset, offset + LINE_SIZE))}\n`)
  return asciiBytes(lines.join(''))
}

/** Armors what is pushed; `next` gets lines. */
export const armorWriter = (next: ByteSink): ByteSink => {
  const cutter = new ChunkCutter(allocate(BLOCK_LINE_COUNT * LINE_SIZE))
  next.push(asciiBytes(`${BEGIN}\n`))
  return guarded({
    push: (bytes) => cutter.push(bytes, (block) => next.push(encodeLines(block))),
    end() {
      next.push(concatBytes(encodeLines(cutter.last), asciiBytes(`${END}\n`)))
      next.end()
    },
    [Symbol.dispose]: () => next[Symbol.dispose](),
  })
}

const decodeLines = (text: string): Bytes => {
  try {
    return copyBytes(base64.decode(text))
  } catch {
    return invalid('base64')
  }
}

/** The lines of a block, without the white space around it. */
class ArmorLines {
  readonly #flush: (bytes: Bytes) => void
  #place: 'before' | 'begin' | 'body' | 'last' | 'after' = 'before'
  #whiteSpaceSize = 0
  #line = ''
  /** Full lines that wait to be decoded together. */
  #text = ''

  /** @param flush - gets what is decoded. */
  constructor(flush: (bytes: Bytes) => void) {
    this.#flush = flush
  }

  get isWhole(): boolean {
    return this.#place === 'after'
  }

  push(bytes: Uint8Array): void {
    for (const byte of bytes) this.#take(byte)
    this.#decode()
  }

  #take(byte: number): void {
    if (this.#place === 'before' || this.#place === 'after') {
      if (isWhiteSpace(byte)) {
        if (++this.#whiteSpaceSize > WHITE_SPACE_SIZE_MAX) invalid('too much white space')
        return
      }
      if (this.#place === 'after') invalid('something after the block')
      this.#place = 'begin'
    }
    if (byte === LF) {
      this.#endLine(this.#line.endsWith('\r') ? this.#line.slice(0, -1) : this.#line)
      this.#line = ''
      return
    }
    this.#line += String.fromCharCode(byte)
    if (this.#line.length === END.length && this.#line === END && this.#place !== 'begin') this.#endBlock()
    else if (this.#line.length > COLUMNS + 1) invalid('a long line')
  }

  #endLine(line: string): void {
    if (this.#place === 'begin') {
      if (line !== BEGIN) invalid('no armor')
      this.#place = 'body'
      return
    }
    if (this.#place === 'last') invalid('a line after the last one')
    if (line.length === 0 || line.length > COLUMNS) invalid('the size of a line')
    if (line.length < COLUMNS || line.endsWith('=')) this.#place = 'last'
    this.#text += line
  }

  #endBlock(): void {
    this.#place = 'after'
    this.#whiteSpaceSize = 0
    this.#line = ''
  }

  #decode(): void {
    if (this.#text === '') return
    const text = this.#text
    this.#text = ''
    this.#flush(decodeLines(text))
  }
}

/**
 * Takes armor, in pieces of any size, and passes on the bytes in it.
 * @throws {KeyriseError} ERR_ARMOR_INVALID, from `push` and `end`.
 */
export const armorReader = (next: ByteSink): ByteSink => {
  const lines = new ArmorLines((bytes) => next.push(bytes))
  return guarded({
    push: (bytes) => lines.push(bytes),
    end() {
      if (!lines.isWhole) invalid('no end')
      next.end()
    },
    [Symbol.dispose]: () => next[Symbol.dispose](),
  })
}

/** `stage` over all of `bytes`. */
const whole = (bytes: Uint8Array, stage: (next: ByteSink) => ByteSink): Bytes => {
  const parts: Uint8Array[] = []
  using sink = stage({
    push: (part) => {
      parts.push(part)
    },
    end: () => undefined,
    [Symbol.dispose]: () => undefined,
  })
  sink.push(bytes)
  sink.end()
  return concatBytes(...parts)
}

/** The armor of a file, as ASCII. */
export const encodeArmor = (file: Uint8Array): Bytes => whole(file, armorWriter)

/** The file in an armor. @throws {KeyriseError} ERR_ARMOR_INVALID. */
export const decodeArmor = (claimed: Uint8Array): Bytes => whole(claimed, armorReader)
