import type { IdentityFlags } from './envelope-options.js'
import { openInput, type Input } from './input.js'
import type { OpenThreads } from './open-threads.js'

export interface OpenFlags extends IdentityFlags {
  readonly out?: string
  readonly force?: boolean
  readonly json?: boolean
}

/** From here on threads share the work on a regular file: a smaller one is open before they have started. */
const PARALLEL_SIZE_BYTES_MIN = 32 * 1024 * 1024

/**
 * `keyrise envelope open`.
 * @throws {KeyriseError} as `openEnvelope`; ERR_CONFIG_INVALID, ERR_FILE_EXISTS, ERR_FILE_UNREADABLE, ERR_FILE_UNWRITABLE.
 */
export const openCommand = async (path: string | undefined, flags: OpenFlags): Promise<void> => {
  using input = openInput(path)
  using threads = await startThreads(input)
  // Threads start while this one loads the rest.
  const { openInto } = await import('./envelope-release.js')
  await openInto(input, threads, flags)
}

const startThreads = async ({ sizeBytes = 0 }: Input): Promise<OpenThreads | undefined> => {
  if (sizeBytes < PARALLEL_SIZE_BYTES_MIN) return undefined
  const { OpenThreads: Threads } = await import('./open-threads.js')
  return new Threads()
}
