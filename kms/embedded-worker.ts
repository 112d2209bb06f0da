import { workerData } from 'node:worker_threads'
import { copyBytes } from '../protocol/bytes.js'
import { isKeyriseError } from '../protocol/errors.js'
import { KMS_FRAME_SIZE_BYTES_MAX } from '../protocol/limits.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { nodeClock, nodeFileSystem } from '../storage/index.js'
import {
  CLOSE,
  type EmbeddedReady,
  type EmbeddedReply,
  type EmbeddedRequest,
  type EmbeddedStart,
} from './embedded-messages.js'
import { hardenThread } from './harden-thread.js'
import { openKms, type OpenKms } from './open-kms.js'
import { hasKeyring } from './custody-files.js'
import { createKms } from './place.js'

/** The thread of an embedded KMS: it opens, or makes, a KMS and answers frames until it is told to close. */
const { port, place, policy, passphrase, logN, suite } = workerData as EmbeddedStart
const secret = Secret.take(passphrase)
hardenThread()

const start = async (): Promise<OpenKms> => {
  const options = { place, passphrase: secret, fs: nodeFileSystem, random: nodeRandom }
  try {
    if (!(await hasKeyring(place, nodeFileSystem)))
      await createKms({
        ...options,
        ...(logN === undefined ? {} : { logN }),
        ...(suite === undefined ? {} : { suite }),
      })
    return await openKms({ ...options, policy, clock: nodeClock })
  } finally {
    secret[Symbol.dispose]()
  }
}

/** A frame to answer; undefined for anything else, shared memory included: its content could change while it is read. */
const readRequest = (claimed: unknown): EmbeddedRequest | undefined => {
  if (typeof claimed !== 'object' || claimed === null) return undefined
  const { id, frame } = claimed as Partial<Record<keyof EmbeddedRequest, unknown>>
  if (typeof id !== 'number' || !(frame instanceof Uint8Array) || !(frame.buffer instanceof ArrayBuffer))
    return undefined
  return frame.length <= KMS_FRAME_SIZE_BYTES_MAX ? { id, frame } : undefined
}

const serve = (opened: OpenKms): void => {
  const answer = async ({ id, frame }: EmbeddedRequest): Promise<void> => {
    const reply: EmbeddedReply = { id, frame: copyBytes(await opened.exchange(frame)) }
    port.postMessage(reply, [reply.frame.buffer])
  }
  port.on('message', (claimed: unknown) => {
    const request = readRequest(claimed)
    if (request !== undefined) void answer(request)
    else if (claimed === CLOSE) void opened.close().finally(() => port.close())
  })
}

try {
  const kms = await start()
  const { identity, keys } = kms
  serve(kms)
  port.postMessage({ type: 'ready', identity, keys } satisfies EmbeddedReady)
} catch (error) {
  const { code, detail } = isKeyriseError(error) ? error : { code: 'ERR_KMS_FAILED' as const, detail: undefined }
  port.postMessage({ type: 'failed', code, ...(detail === undefined ? {} : { detail }) } satisfies EmbeddedReady)
  port.close()
}
