import type { ByteSink } from '../../protocol/age-stream.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import type { EnvelopeContext } from '../../protocol/context.js'
import { isKeyriseError, type ErrorCode } from '../../protocol/errors.js'
import { parseFlowId } from '../../protocol/names.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'

/** A secret of known bytes; the argument stays as it is. */
export const secretOf = (bytes: Uint8Array): Secret => Secret.take(copyBytes(bytes))

export const randomSecret = (size = 32): Secret => Secret.random(size, nodeRandom)

export const randomBytes = (size: number): Bytes => nodeRandom.fill(allocate(size))

export const fromText = (text: string): Bytes => copyBytes(Buffer.from(text))

export const toText = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

export const flipBit = (bytes: Uint8Array, bit: number): Bytes => {
  const flipped = copyBytes(bytes)
  flipped[bit >>> 3] = (flipped[bit >>> 3] ?? 0) ^ (1 << (bit & 7))
  return flipped
}

export const CONTEXT: EnvelopeContext = {
  flow: parseFlowId('credit-2026'),
  task: parseFlowId('credit'),
  kind: 'intermediate-result',
  name: 'intermediate-result/round-3',
  epoch: 7,
  incarnation: 2,
  image: allocate(32).fill(0xa5),
}

/** @throws when they differ, without printing either. */
export const expectEqual = (actual: Uint8Array, expected: Uint8Array): void => {
  if (!Buffer.from(actual).equals(expected)) throw new Error('The plaintexts differ')
}

/** The code with which `work` fails; undefined when it does not fail. Errors that are not ours are thrown on. */
export const codeOf = (work: () => unknown): ErrorCode | undefined => {
  try {
    work()
    return undefined
  } catch (error) {
    if (isKeyriseError(error)) return error.code
    throw error
  }
}

export const codeOfAsync = async (work: () => Promise<unknown>): Promise<ErrorCode | undefined> => {
  try {
    await work()
    return undefined
  } catch (error) {
    if (isKeyriseError(error)) return error.code
    throw error
  }
}

/** A sink that keeps what it takes. */
export const collect = (): { sink: ByteSink; taken: () => Bytes; isEnded: () => boolean } => {
  const parts: Bytes[] = []
  let isEnded = false
  return {
    sink: {
      push: (bytes) => {
        parts.push(copyBytes(bytes))
      },
      end() {
        isEnded = true
      },
      [Symbol.dispose]: () => undefined,
    },
    taken: () => concatBytes(...parts),
    isEnded: () => isEnded,
  }
}

/** `bytes` in pieces that are gone when the next one is asked for. @param sizes - of each piece in turn. */
export function* inPieces(bytes: Uint8Array, sizes: () => number): Generator<Uint8Array, void, undefined> {
  const single = allocate(1)
  for (let offset = 0, size = 0; offset < bytes.length; offset += size) {
    size = sizes()
    if (size === 1) {
      single[0] = bytes[offset] as number
      yield single
    } else {
      const piece = copyBytes(bytes.subarray(offset, offset + size))
      yield piece
      piece.fill(0)
    }
  }
}

/** Pushes all of `bytes`, then ends. */
export const pushAll = (stage: ByteSink, bytes: Uint8Array, sizes: () => number = () => bytes.length): void => {
  for (const piece of inPieces(bytes, sizes)) stage.push(piece)
  stage.end()
}
