import { RUNTIME_OCALLS, type RuntimeOcallName } from '../protocol/calls.js'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../protocol/errors.js'
import { DELIVERED_SEGMENT_SIZE_BYTES_MAX, STORE_COPY_COUNT_MAX } from '../protocol/limits.js'
import { parsePath } from '../protocol/names.js'
import {
  STORE_ERROR_CODES,
  type Attester,
  type CommitChannel,
  type KmsChannel,
  type SegmentChannel,
  type Store,
} from '../protocol/ports.js'
import type { Bytes } from '../protocol/bytes.js'
import type { Finding } from './copies.js'
import type { OutputLine } from './diagnostics.js'
import type { OutgoingCalls } from './ocalls.js'

/** What the host does for the runtime: it keeps sealed bytes and relays frames. Both are checked for shape here; what they say is checked by whoever opens them. */

const STORE_DEADLINE_MS = 30_000
const KMS_DEADLINE_MS = 30_000
const ATTEST_DEADLINE_MS = 10_000
const PRINT_DEADLINE_MS = 10_000
/** Then it asks again. */
const START_DEADLINE_MS = 24 * 60 * 60 * 1000

const KMS_CODES: readonly ErrorCode[] = ['ERR_KMS_UNREACHABLE']

/** An answer that is not one counts as a failure of the service, of which `code` is the name. */
const expectBytes = (reply: unknown, code: ErrorCode): Bytes => {
  if (!(reply instanceof Uint8Array)) throw new KeyriseError(code, { detail: 'not bytes' })
  // `admitValue` made it, so its buffer is its own.
  return reply as Bytes
}

export const hostStore = (calls: OutgoingCalls): Store => {
  const call = (name: RuntimeOcallName, argument: unknown): Promise<unknown> =>
    calls
      .call(name, argument, { deadlineMs: STORE_DEADLINE_MS, codes: STORE_ERROR_CODES, otherwise: 'ERR_STORE_IO' })
      .catch((error: unknown) => {
        // A host that does not answer, or answers nonsense, is a store that failed.
        throw error instanceof KeyriseError && STORE_ERROR_CODES.includes(error.code)
          ? error
          : new KeyriseError('ERR_STORE_IO', { cause: error })
      })
  const listed = (reply: unknown, prefix: string): string[] => {
    try {
      if (Array.isArray(reply))
        return [...new Set(reply.map(parsePath))].filter((name) => name.startsWith(prefix)).sort()
    } catch {
      // Not a name: the answer is nonsense as a whole.
    }
    throw new KeyriseError('ERR_STORE_IO', { detail: 'not a list of names' })
  }
  const counted = (reply: unknown): number => {
    if (Number.isSafeInteger(reply) && (reply as number) >= 1 && (reply as number) <= STORE_COPY_COUNT_MAX)
      return reply as number
    throw new KeyriseError('ERR_STORE_IO', { detail: 'not a number of copies' })
  }
  /** @param which - names one copy, or none, which is the store as a whole. */
  const storeOf = (which: { readonly copy?: number }): Store => ({
    put: async (name, bytes) => {
      await call(RUNTIME_OCALLS.storePut, { name, bytes, ...which })
    },
    get: async (name) => {
      const reply = await call(RUNTIME_OCALLS.storeGet, { name, ...which })
      return reply === null ? undefined : expectBytes(reply, 'ERR_STORE_IO')
    },
    read: async (name, offset, sizeBytes) => {
      const reply = await call(RUNTIME_OCALLS.storeRead, { name, offset, sizeBytes, ...which })
      const bytes = reply === null ? undefined : expectBytes(reply, 'ERR_STORE_IO')
      if (bytes !== undefined && bytes.length > sizeBytes)
        throw new KeyriseError('ERR_STORE_IO', { detail: 'more bytes than were asked for' })
      return bytes
    },
    list: async (prefix) => listed(await call(RUNTIME_OCALLS.storeList, { prefix, ...which }), prefix),
    delete: async (name) => {
      await call(RUNTIME_OCALLS.storeDelete, { name, ...which })
    },
  })
  let copies: Promise<readonly Store[]> | undefined
  const askCopies = async (): Promise<readonly Store[]> => {
    const count = counted(await call(RUNTIME_OCALLS.storeCopies, undefined))
    return count === 1 ? [] : Array.from({ length: count }, (_, copy) => storeOf({ copy }))
  }
  return {
    ...storeOf({}),
    copies: () => {
      const asked = (copies ??= askCopies())
      // Where the host did not answer, the next asks again.
      asked.catch(() => (copies = undefined))
      return asked
    },
  }
}

/** Tells the host what was found out about an object. Nobody waits for it, and nothing depends on it. */
export const hostFindings =
  (calls: OutgoingCalls): Finding =>
  (object, status) => {
    calls
      .call(
        RUNTIME_OCALLS.storeFinding,
        { object, status },
        { deadlineMs: STORE_DEADLINE_MS, codes: [], otherwise: 'ERR_OCALL_FAILED' },
      )
      .catch(() => undefined)
  }

export const hostKms = (calls: OutgoingCalls): KmsChannel => ({
  exchange: async (frame) => {
    try {
      const reply = await calls.call(
        RUNTIME_OCALLS.kmsExchange,
        { frame },
        { deadlineMs: KMS_DEADLINE_MS, codes: KMS_CODES, otherwise: 'ERR_KMS_UNREACHABLE' },
      )
      return expectBytes(reply, 'ERR_KMS_UNREACHABLE')
    } catch (error) {
      throw new KeyriseError('ERR_KMS_UNREACHABLE', { cause: error })
    }
  },
})

/** What may be said of a commit: either, and a host that does not answer may have done both. */
const COMMIT_CODES: readonly ErrorCode[] = [...STORE_ERROR_CODES, ...KMS_CODES]

export const hostCommits = (calls: OutgoingCalls): CommitChannel => ({
  commit: async (name, bytes, frame) => {
    try {
      const reply = await calls.call(
        RUNTIME_OCALLS.storeCommit,
        { name, bytes, frame },
        { deadlineMs: STORE_DEADLINE_MS + KMS_DEADLINE_MS, codes: COMMIT_CODES, otherwise: 'ERR_STORE_IO' },
      )
      return expectBytes(reply, 'ERR_STORE_IO')
    } catch (error) {
      throw isKeyriseError(error, ...COMMIT_CODES) ? error : new KeyriseError('ERR_STORE_IO', { cause: error })
    }
  },
})

/** What may be said of a segment: unauthenticated, and it decides no more than whether and how to ask again. */
const SEGMENT_CODES: readonly ErrorCode[] = [
  ...STORE_ERROR_CODES,
  'ERR_ENVELOPE_INVALID',
  'ERR_SESSION_INVALID',
  'ERR_CALLS_LIMIT',
  'ERR_KMS_UNREACHABLE',
  'ERR_KMS_FAILED',
]

export const hostSegments = (calls: OutgoingCalls): SegmentChannel => ({
  exchange: async (request) => {
    try {
      const reply = await calls.call(RUNTIME_OCALLS.bulkSegment, request, {
        deadlineMs: KMS_DEADLINE_MS,
        limits: { sizeBytesMax: DELIVERED_SEGMENT_SIZE_BYTES_MAX },
        codes: SEGMENT_CODES,
        otherwise: 'ERR_KMS_FAILED',
      })
      return reply === null ? undefined : expectBytes(reply, 'ERR_KMS_FAILED')
    } catch (error) {
      throw isKeyriseError(error, ...SEGMENT_CODES) ? error : new KeyriseError('ERR_KMS_FAILED', { cause: error })
    }
  },
})

/** Resolves when the host has use for this instance. It can be asked early or late, and decides nothing by it but when. */
export const untilStarted = async (calls: OutgoingCalls): Promise<void> => {
  for (;;) {
    try {
      await calls.call(RUNTIME_OCALLS.start, undefined, {
        deadlineMs: START_DEADLINE_MS,
        codes: [],
        otherwise: 'ERR_OCALL_FAILED',
      })
      return
    } catch (error) {
      if (!isKeyriseError(error, 'ERR_DEADLINE')) throw error
    }
  }
}

/** The platform signs evidence; `calls` go to it on a port of its own, which the host does not see. */
export const platformAttester = (calls: OutgoingCalls): Attester => ({
  attest: async (claims) => {
    const reply = await calls.call('attest', claims, {
      deadlineMs: ATTEST_DEADLINE_MS,
      codes: [],
      otherwise: 'ERR_LAUNCH_FAILED',
    })
    return expectBytes(reply, 'ERR_LAUNCH_FAILED')
  },
})

/** What a debug image prints. Only a host that launched one has this OCALL. */
export const printOnHost = (calls: OutgoingCalls, lines: readonly OutputLine[]): Promise<unknown> =>
  calls.call(
    RUNTIME_OCALLS.print,
    { lines },
    { deadlineMs: PRINT_DEADLINE_MS, codes: [], otherwise: 'ERR_OCALL_FAILED' },
  )
