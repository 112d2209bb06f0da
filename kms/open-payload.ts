import { KeyriseError } from '../protocol/errors.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  openedSize,
  PAYLOAD_KEY_SIZE,
  PAYLOAD_NONCE_SIZE,
  PAYLOAD_SIZE_MIN,
  SEALED_CHUNK_SIZE,
} from '../protocol/crypto/payload.js'
import { TAG_SIZE } from '../protocol/crypto/primitives.js'
import type { Secret } from '../protocol/crypto/secret.js'
import type { OpenTask } from './reseal.js'

/** 16 MiB: a thread is busy with them for twenty milliseconds. Tasks of 4 MiB took 5 to 10 % longer in all. */
const TASK_CHUNK_COUNT = 256

/** A whole payload, nonce first, and as much memory as its plaintext takes. */
export interface SharedPayload {
  /** Borrowed. */
  readonly fileKey: Secret
  readonly payload: Uint8Array<SharedArrayBuffer>
  readonly into: Uint8Array<SharedArrayBuffer>
}

interface Chunks {
  readonly first: number
  /** Behind the last. */
  readonly end: number
}

/** Opens `payload` in tasks, `laneCount` of them at once. @throws {KeyriseError} as `UnsealPool.openPayload`. */
export const openOnLanes = async (
  { fileKey, payload, into }: SharedPayload,
  options: {
    readonly laneCount: number
    readonly open: (task: OpenTask) => Promise<boolean>
    readonly signal?: AbortSignal
  },
): Promise<void> => {
  const { laneCount, open, signal } = options
  const chunks = payload.subarray(PAYLOAD_NONCE_SIZE)
  const count = chunkCount(payload)
  if (into.length !== openedSize(chunks.length)) throw new RangeError('Size of the output')
  const key = new Uint8Array(new SharedArrayBuffer(PAYLOAD_KEY_SIZE))
  const openRun = ({ first, end }: Chunks): Promise<boolean> =>
    open({
      kind: 'open',
      key,
      run: { first, isEnd: end === count },
      sealed: chunks.subarray(first * SEALED_CHUNK_SIZE, end * SEALED_CHUNK_SIZE),
      into: into.subarray(first * CHUNK_SIZE, end * CHUNK_SIZE),
    })
  let isOpen = false
  try {
    const derived = derivePayloadKey(fileKey, payload.slice(0, PAYLOAD_NONCE_SIZE))
    key.set(derived)
    derived.fill(0)
    signal?.throwIfAborted()
    if (!(await openRun({ first: count - 1, end: count }))) throw new KeyriseError('ERR_PAYLOAD_INVALID')
    const work = runsOf(count - 1)
    const lanes = await Promise.allSettled(Array.from({ length: laneCount }, () => openInTurn(work, openRun, signal)))
    for (const lane of lanes) if (lane.status === 'rejected') throw lane.reason
    isOpen = true
  } finally {
    key.fill(0)
    if (!isOpen) into.fill(0)
  }
}

/** @throws {KeyriseError} ERR_PAYLOAD_TRUNCATED: no payload is so small, nor has so short a last chunk. */
const chunkCount = (payload: Uint8Array): number => {
  if (payload.length < PAYLOAD_SIZE_MIN) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
  const sizeBytes = payload.length - PAYLOAD_NONCE_SIZE
  const count = Math.ceil(sizeBytes / SEALED_CHUNK_SIZE)
  const lastSize = sizeBytes - (count - 1) * SEALED_CHUNK_SIZE
  if (lastSize < TAG_SIZE) throw new KeyriseError('ERR_PAYLOAD_TRUNCATED')
  return count
}

/** The first `count` chunks, cut into tasks: each is taken once. */
function* runsOf(count: number): Generator<Chunks> {
  for (let first = 0; first < count; first += TASK_CHUNK_COUNT)
    yield { first, end: Math.min(first + TASK_CHUNK_COUNT, count) }
}

/** Takes from `work`, which lanes share, until it ends; a failure ends it for all. */
const openInTurn = async (
  work: Generator<Chunks>,
  openRun: (chunks: Chunks) => Promise<boolean>,
  signal: AbortSignal | undefined,
): Promise<void> => {
  try {
    for (;;) {
      const next = work.next()
      if (next.done === true) return
      signal?.throwIfAborted()
      if (!(await openRun(next.value))) throw new KeyriseError('ERR_PAYLOAD_INVALID')
    }
  } finally {
    work.return(undefined)
  }
}
