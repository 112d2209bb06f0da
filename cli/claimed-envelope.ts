import { armorReader, isArmored } from '../protocol/age-armor.js'
import { HeaderGatherer, type Header } from '../protocol/age-header.js'
import { pull, type ByteSink } from '../protocol/age-stream.js'
import { allocate, concatBytes, copyBytes } from '../protocol/bytes.js'
import { piecesOf, type Input } from './input.js'

/** An envelope as it comes from a file or a pipe, armored or not: its header can be looked at before anything is opened. */

export interface ClaimedEnvelope {
  readonly header: Header
  readonly isArmored: boolean
  /** The whole file from its first byte, without armor. To be asked for once; a piece is valid until the next. */
  readonly pieces: AsyncIterable<Uint8Array>
}

const SPACE = 0x20
const WHITE_SPACE_SIZE_MAX = 1024

/** Takes a file’s armor off where it has one: `next` gets what is in it. */
const dearmor =
  (onDetected: (isArmored: boolean) => void) =>
  (next: ByteSink): ByteSink => {
    let stage: ByteSink | undefined
    let start: Uint8Array = allocate(0)
    const begin = (): ByteSink => {
      const armored = isArmored(start)
      onDetected(armored)
      stage = armored ? armorReader(next) : next
      stage.push(start)
      return stage
    }
    return {
      push(bytes) {
        if (stage !== undefined) {
          stage.push(bytes)
          return
        }
        start = concatBytes(start, bytes)
        // White space may stand before armor, and says nothing.
        if (start.length > WHITE_SPACE_SIZE_MAX || start.some((byte) => byte > SPACE)) begin()
      },
      end: () => (stage ?? begin()).end(),
      [Symbol.dispose]: () => stage?.[Symbol.dispose](),
    }
  }

/**
 * Reads as far as the header goes.
 * @throws {KeyriseError} ERR_ARMOR_INVALID, ERR_HEADER_MALFORMED, ERR_HEADER_LIMIT, ERR_FILE_UNREADABLE.
 */
export const readHead = async (input: Input): Promise<ClaimedEnvelope> => {
  let armored = false
  const source = pull(
    piecesOf(input),
    dearmor((found) => (armored = found)),
  )
  const held: Uint8Array[] = []
  const gatherer = new HeaderGatherer()
  for (;;) {
    const { value, done } = await source.next()
    // Without its last line, a header only says what is wrong with it.
    if (done === true) return { header: gatherer.read(), isArmored: armored, pieces: joined(held, source) }
    held.push(copyBytes(value))
    const gathered = gatherer.push(value)
    if (gathered !== undefined) return { header: gathered.header, isArmored: armored, pieces: joined(held, source) }
  }
}

async function* joined(
  held: Uint8Array[],
  rest: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  while (held.length > 0) yield held.shift() as Uint8Array
  yield* rest
}
