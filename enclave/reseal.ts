import type { ResealedEntry } from '../protocol/contract.js'
import type { Bytes } from '../protocol/bytes.js'
import { Secret } from '../protocol/crypto/secret.js'
import { isRuntimeEntry, type EntryName } from '../protocol/names.js'
import type { CancelSignal } from '../protocol/ports.js'
import type { Change, Checkpoints } from './checkpoint.js'
import { isOfItem } from './entry-failures.js'
import type { EpochState, Location } from './epoch-file.js'

/** One batch is one checkpoint, for which others wait, and all of it is held in memory. */
const BATCH_COUNT_MAX = 256
const BATCH_SIZE_BYTES_MAX = 16 * 1024 * 1024

export interface ResealEntriesOptions {
  readonly checkpoints: Checkpoints
  readonly read: (name: EntryName, location: Location, state: EpochState) => Promise<Bytes>
  /** The epoch from which entries count as resealed; one above the head unless told. */
  readonly since: number | undefined
  readonly signal: CancelSignal | undefined
}

/**
 * Checkpoints every entry that an epoch before `since` wrote again, as it is: under new file keys, what goes straight to the KMS
 * to its newest root key. Why, and what it does not cover: docs/adr/0004-rewrap-and-reseal.md.
 * @throws RangeError: `since` lies ahead. {KeyriseError} as `checkpoint` and `read`. The signal's reason.
 * Crash: whole batches are done, and the entries’ epochs tell which: a second run with the same `since` goes on.
 */
export async function* resealEntries(options: ResealEntriesOptions): AsyncGenerator<ResealedEntry, void, undefined> {
  const { checkpoints, signal } = options
  const { head } = await checkpoints.settled()
  const since = options.since ?? head.epoch + 1
  // What is resealed gets the next epoch: one further ahead would be resealed for ever.
  if (!Number.isSafeInteger(since) || since > head.epoch + 1) throw new RangeError(`since is ${head.epoch + 1} at most`)
  const skipped = new Set<EntryName>()
  for (;;) {
    if (signal?.aborted === true) throw signal.reason
    const batch = await resealBatch(options, since, skipped)
    if (batch.length === 0) break
    // The runtime’s own are resealed too, and nobody’s to know of.
    yield* batch.filter(({ name }) => !isRuntimeEntry(name))
  }
  await checkpoints.collect()
}

/** The next of those that are left; empty where none is. @param skipped - entries that failed, added to. */
const resealBatch = async (
  { checkpoints, read }: ResealEntriesOptions,
  since: number,
  skipped: Set<EntryName>,
): Promise<ResealedEntry[]> => {
  const changes: (Change & { readonly value: object })[] = []
  const failures: ResealedEntry[] = []
  try {
    const epoch = await checkpoints.commit(async (state) => {
      for (const [name, location] of chooseBatch(state, since, skipped)) {
        try {
          const bytes = Secret.own(await read(name, location, state))
          changes.push({ name, value: { bytes, direct: location.object.name.kind === 'direct' } })
        } catch (error) {
          if (!isOfItem(error)) throw error
          skipped.add(name)
          failures.push({ name, error })
        }
      }
      return changes
    })
    return [...failures, ...changes.map(({ name }) => ({ name, epoch }))]
  } finally {
    for (const { value } of changes) value.bytes[Symbol.dispose]()
  }
}

/** One entry at least, where there is one. */
const chooseBatch = ({ entries }: EpochState, since: number, skipped: ReadonlySet<EntryName>) => {
  const batch: [EntryName, Location][] = []
  let sizeBytes = 0
  for (const [name, location] of entries) {
    if (location.object.name.epoch >= since || skipped.has(name)) continue
    sizeBytes += location.sizeBytes
    if (batch.length > 0 && (batch.length === BATCH_COUNT_MAX || sizeBytes > BATCH_SIZE_BYTES_MAX)) break
    batch.push([name, location])
  }
  return batch
}
