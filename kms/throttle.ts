import { join } from 'node:path'
import { decodeCbor, encodeCbor } from '../protocol/cbor.js'
import { FieldReader } from '../protocol/check.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { Clock, FileSystem } from '../protocol/ports.js'
import { discard, publish, readWhole, syncDirectory } from '../storage/index.js'

/** The file in the KMS’s directory that counts wrong passphrases; none where the last one was right. */
const ATTEMPTS_NAME = 'passphrase-attempts'
const ATTEMPTS_SIZE_BYTES_MAX = 256
const TAG = 'keyrise/v1/passphrase-attempts'
/** So many may be mistyped in a row before anybody has to wait. */
const FREE_COUNT = 2
const FIRST_WAIT_MS = 1000
export const WAIT_MS_MAX = 15 * 60 * 1000
const COUNT_MAX = 1_000_000

interface Attempts {
  /** Wrong ones in a row. */
  readonly count: number
  /** When the last was answered. */
  readonly lastMs: number
}

export interface ThrottleOptions {
  readonly fs: FileSystem
  /** The KMS’s. */
  readonly directory: string
  readonly clock: Clock
}

/** Doubles with each wrong one after the free ones, up to a quarter of an hour. */
const waitAfter = (count: number): number =>
  count <= FREE_COUNT ? 0 : Math.min(WAIT_MS_MAX, FIRST_WAIT_MS * 2 ** Math.min(30, count - FREE_COUNT - 1))

/**
 * Runs `attempt`, which tries a passphrase, unless wrong ones before it ask for a wait. A wrong one is on the disk before it is
 * told, so that neither a restart nor a crash gives more attempts; a right one ends the waiting. It slows down whoever asks the
 * KMS; who has the file itself tries as fast as scrypt goes.
 * @throws {KeyriseError} ERR_PASSPHRASE_THROTTLED, ERR_STORE_*; what `attempt` throws.
 */
export const throttled = async <T extends object>(options: ThrottleOptions, attempt: () => T): Promise<T> => {
  const attempts = await readAttempts(options)
  await refuseWhileWaiting(options, attempts)
  let result: T
  try {
    result = attempt()
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_PASSPHRASE_WRONG')) throw error
    // Read again: another process may have counted one meanwhile.
    const now = await readAttempts(options)
    await writeAttempts(options, (now?.count ?? 0) + 1)
    throw error
  }
  if (attempts !== undefined) await forgetAttempts(options)
  return result
}

/** What is left of the wait, in milliseconds; 0 where none is asked for. */
export const throttleWaitMs = async (options: ThrottleOptions): Promise<number> => {
  const attempts = await readAttempts(options)
  if (attempts === undefined) return 0
  const [waitMs, passedMs] = [waitAfter(attempts.count), options.clock.nowMs() - attempts.lastMs]
  return passedMs < 0 ? waitMs : Math.max(0, waitMs - passedMs)
}

const refuseWhileWaiting = async (options: ThrottleOptions, attempts: Attempts | undefined): Promise<void> => {
  if (attempts === undefined) return
  const leftMs = await throttleWaitMs(options)
  if (leftMs === 0) return
  // A clock that was set back would make the wait longer than it is: it begins again, once.
  if (options.clock.nowMs() < attempts.lastMs) await writeAttempts(options, attempts.count)
  throw new KeyriseError('ERR_PASSPHRASE_THROTTLED', {
    detail: `${String(attempts.count)} in a row; wait ${String(Math.ceil(leftMs / 1000))} s`,
  })
}

/** Undefined where there are none to count. A damaged file counts as the longest wait, from now on. */
const readAttempts = async (options: ThrottleOptions): Promise<Attempts | undefined> => {
  const { fs, directory } = options
  const file = await readWhole(fs, join(directory, ATTEMPTS_NAME), ATTEMPTS_SIZE_BYTES_MAX)
  if (file === undefined) return undefined
  try {
    const value = decodeCbor(file)
    if (!Array.isArray(value) || value.length !== 2 || value[0] !== TAG) throw new KeyriseError('ERR_CBOR_INVALID')
    const f = new FieldReader(value[1], ['count', 'lastMs'], 'ERR_CBOR_INVALID')
    return { count: f.count('count', COUNT_MAX), lastMs: f.count('lastMs') }
  } catch {
    return writeAttempts(options, COUNT_MAX)
  }
}

const writeAttempts = async ({ fs, directory, clock }: ThrottleOptions, count: number): Promise<Attempts> => {
  const attempts = { count: Math.min(COUNT_MAX, count), lastMs: Math.max(0, Math.trunc(clock.nowMs())) }
  await publish(fs, directory, ATTEMPTS_NAME, encodeCbor([TAG, attempts]))
  return attempts
}

const forgetAttempts = async ({ fs, directory }: ThrottleOptions): Promise<void> => {
  await discard(fs, directory, ATTEMPTS_NAME)
  await syncDirectory(fs, directory)
}
