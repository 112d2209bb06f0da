import type { Header } from '../protocol/age-header.js'
import { allocate } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { unwrapHeader } from '../protocol/crypto/file-key.js'
import {
  checkNonce,
  derivePayloadKey,
  isCutThere,
  openChunks,
  PAYLOAD_NONCE_SIZE,
  SEALED_CHUNK_SIZE,
} from '../protocol/crypto/payload.js'
import { TAG_SIZE } from '../protocol/crypto/primitives.js'
import type { ClaimedEnvelope } from './claimed-envelope.js'
import { readAt } from './file-io.js'
import { unreadable, type Input } from './input.js'
import type { Identities } from './key-files.js'
import type { TaskFailure } from './open-tasks.js'
import type { OpenThreads } from './open-threads.js'
import { outputFailure, type Output } from './output.js'

export interface FileOpening {
  readonly input: Input
  readonly envelope: ClaimedEnvelope
  readonly output: Output
  readonly identities: Identities
}

/**
 * Opens a regular file that is no armor and no layer, the last chunk first: nothing is released of a file that was cut.
 * @throws {KeyriseError} as `openEnvelope`; ERR_FILE_UNREADABLE, ERR_FILE_UNWRITABLE.
 */
export const releaseFile = async (
  threads: OpenThreads,
  { input, envelope: { header }, output, identities }: FileOpening,
  onProgress: (sizeBytes: number) => void,
): Promise<void> => {
  using fileKey = unwrapHeader(header, identities.list)
  await checkContext(header)
  const payloadSize = (input.sizeBytes ?? 0) - header.sizeBytes
  checkNonce(payloadSize)
  const nonce = allocate(PAYLOAD_NONCE_SIZE)
  readInput(input, nonce, header.sizeBytes)
  const key = derivePayloadKey(fileKey, nonce)
  const chunksOffset = header.sizeBytes + PAYLOAD_NONCE_SIZE
  const sealedSizeBytes = payloadSize - PAYLOAD_NONCE_SIZE
  try {
    checkLastChunk(key, input, chunksOffset, sealedSizeBytes)
    const files = { input: input.descriptor, output: output.descriptor }
    const failed = await threads.run({ ...files, chunksOffset, sealedSizeBytes }, key, onProgress)
    if (failed !== undefined) throw failureOf(failed, input, output)
  } finally {
    key.fill(0)
  }
}

/** Few files have a context, and what reads one takes a while to load. @throws {KeyriseError} ERR_HEADER_MALFORMED. */
const checkContext = async (header: Header): Promise<void> => {
  if (!header.stanzas.some(({ args: [type] }) => type.startsWith('keyrise/'))) return
  const { claimedContext } = await import('../protocol/crypto/origin.js')
  claimedContext(header)
}

const readInput = (input: Input, into: Uint8Array, position: number): void => {
  try {
    readAt(input.descriptor, into, position)
  } catch (error) {
    throw unreadable(input.name, error)
  }
}

/** @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED, where it can be told; else ERR_PAYLOAD_INVALID. */
const checkLastChunk = (key: Uint8Array, input: Input, chunksOffset: number, sealedSizeBytes: number): void => {
  const last = Math.ceil(sealedSizeBytes / SEALED_CHUNK_SIZE) - 1
  const chunk = allocate(sealedSizeBytes - last * SEALED_CHUNK_SIZE)
  if (chunk.length < TAG_SIZE) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
  readInput(input, chunk, chunksOffset + last * SEALED_CHUNK_SIZE)
  const plaintext = allocate(chunk.length - TAG_SIZE)
  const isAuthentic = openChunks(key, { first: last, isEnd: true }, chunk, plaintext)
  plaintext.fill(0)
  if (!isAuthentic)
    throw new KeyriseError(isCutThere(key, last, chunk) ? 'ERR_PAYLOAD_TRUNCATED' : 'ERR_PAYLOAD_INVALID')
}

const failureOf = ({ kind, systemCode }: TaskFailure, input: Input, output: Output): Error => {
  const error = Object.assign(new Error(kind), { code: systemCode })
  if (kind === 'damaged') return new KeyriseError('ERR_PAYLOAD_INVALID')
  return kind === 'read' ? unreadable(input.name, error) : outputFailure(output.name, error)
}
