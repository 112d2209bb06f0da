import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { allocate } from '../protocol/bytes.js'
import { checkNonce, claimedContext, unwrapHeader } from '../protocol/crypto/envelope.js'
import {
  derivePayloadKey,
  isCutThere,
  openChunks,
  PAYLOAD_NONCE_SIZE,
  SEALED_CHUNK_SIZE,
} from '../protocol/crypto/payload.js'
import { TAG_SIZE } from '../protocol/crypto/primitives.js'
import { KeyriseError } from '../protocol/errors.js'
import type { ClaimedEnvelope } from './claimed-envelope.js'
import { readAt } from './file-io.js'
import { unreadable, type Input } from './input.js'
import type { Identities } from './key-files.js'
import { CELL_COUNT, TaskRunner, type OpenJob, type TaskFailure } from './open-tasks.js'
import { outputFailure, type Output } from './output.js'

/** Beyond these the disk is the limit, and each thread takes a while to start. */
const THREAD_COUNT_MAX = 4
const TURN_TIMEOUT_MS = 20

/**
 * Threads that open one large file together: the calling one and, where the machine has more cores, workers, which start while
 * the key is still being looked for. Plain workers and no Piscina: they share one counter and no message passes until the end,
 * so there is nothing for a pool to do, and to load one takes as long as opening 50 MB.
 */
export class ParallelOpener implements Disposable {
  readonly #workers: readonly Worker[]

  constructor() {
    const count = Math.min(THREAD_COUNT_MAX, availableParallelism()) - 1
    this.#workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL('./open-worker.js', import.meta.url))
      worker.unref()
      return worker
    })
  }

  /**
   * @param key - the payload key, 32 bytes, borrowed.
   * @param onProgress - told now and then how many bytes of plaintext were written.
   * @returns the first failure; what was written until then is authentic and, to an ordered output, a beginning.
   */
  async run(
    job: Omit<OpenJob, 'control' | 'key'>,
    key: Uint8Array,
    onProgress: (sizeBytes: number) => void,
  ): Promise<TaskFailure | undefined> {
    const shared = new Uint8Array(new SharedArrayBuffer(key.length))
    shared.set(key)
    try {
      const control = new SharedArrayBuffer(CELL_COUNT * Int32Array.BYTES_PER_ELEMENT)
      return await this.#run({ ...job, control, key: shared.buffer }, onProgress)
    } finally {
      shared.fill(0)
    }
  }

  async #run(job: OpenJob, onProgress: (sizeBytes: number) => void): Promise<TaskFailure | undefined> {
    using runner = new TaskRunner(job)
    const others = Promise.all(this.#workers.map((worker) => runOn(worker, job))).catch((error: unknown) => {
      // What the thread had taken will never be written: nobody may wait for it.
      runner.stop()
      throw error
    })
    // Until this thread has done its part, nobody listens to a thread that failed.
    others.catch(() => undefined)
    for (let state = runner.step(); state !== 'over'; state = runner.step()) {
      if (state === 'wait') runner.waitForTurn(TURN_TIMEOUT_MS)
      onProgress(runner.writtenSizeBytes)
      await setImmediate()
    }
    const failures = [...(await others), runner.failure].filter((failure) => failure !== undefined)
    if (failures.length === 0 && !runner.isFinished) throw new Error('A task was lost')
    return failures.reduce<TaskFailure | undefined>(
      (first, one) => (first && first.task < one.task ? first : one),
      undefined,
    )
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) void worker.terminate()
  }
}

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
  threads: ParallelOpener,
  { input, envelope: { header }, output, identities }: FileOpening,
  onProgress: (sizeBytes: number) => void,
): Promise<void> => {
  using fileKey = unwrapHeader(header, identities.list)
  claimedContext(header)
  const payloadSize = (input.sizeBytes ?? 0) - header.sizeBytes
  checkNonce(payloadSize)
  const nonce = allocate(PAYLOAD_NONCE_SIZE)
  readInput(input, nonce, header.sizeBytes)
  const key = derivePayloadKey(fileKey, nonce)
  const chunksOffset = header.sizeBytes + PAYLOAD_NONCE_SIZE
  const sealedSizeBytes = payloadSize - PAYLOAD_NONCE_SIZE
  try {
    checkLastChunk(key, input, chunksOffset, sealedSizeBytes)
    const files = { input: input.descriptor, output: output.descriptor, isOrdered: output.isOrdered }
    const failed = await threads.run({ ...files, chunksOffset, sealedSizeBytes }, key, onProgress)
    if (failed !== undefined) throw failureOf(failed, input, output)
  } finally {
    key.fill(0)
  }
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

const runOn = (worker: Worker, job: OpenJob): Promise<TaskFailure | undefined> =>
  new Promise((resolve, reject) => {
    worker.ref()
    worker.once('message', ({ failure }: { failure: TaskFailure | undefined }) => resolve(failure))
    worker.once('error', reject)
    worker.once('exit', () => reject(new Error('A thread ended early')))
    worker.postMessage(job)
  })
