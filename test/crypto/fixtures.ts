import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
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
