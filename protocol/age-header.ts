import type { Bytes } from './bytes.js'

/** One recipient's wrapping of the file key, or an extension: C2SP age, "Recipient stanza". */
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
  readonly sizeBytes: number
}

/** Reads the header that `claimed` starts with. @throws {KeyriseError} ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT. */
export const parseHeader = (_claimed: Uint8Array): Header => {
  throw new Error('being written')
}
export const encodeMacInput = (_stanzas: readonly Stanza[]): Bytes => {
  throw new Error('being written')
}
export const encodeHeader = (_stanzas: readonly Stanza[], _mac: Uint8Array): Bytes => {
  throw new Error('being written')
}
