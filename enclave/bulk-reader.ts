import type { BulkItem } from '../protocol/contract.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import type { EntryName } from '../protocol/names.js'
import type { CancelSignal, Clock, SegmentChannel } from '../protocol/ports.js'
import { BulkPayload } from './bulk-payload.js'
import { BulkStreams } from './bulk-streams.js'
import { copiesOf } from './copies.js'
import { DirectObjects, type Place } from './direct-objects.js'
import { isOfItem, lost, mismatch } from './entry-failures.js'
import type { Location } from './epoch-file.js'
import type { KmsClient, PayloadStream } from './kms-client.js'
import { isTransient, RETRY_DELAYS_MS, sleep } from './kms-session.js'

/** Segments of one read that are on their way, or have come for payloads behind the one that is waited for. */
const WINDOW_COUNT = 8
/** Payloads whose streams are opened together: more make the KMS hold more, fewer make more round trips. */
const BATCH_COUNT_MAX = 32
/** For one segment: the KMS was restarted again, or somebody says so. */
const RENEWAL_COUNT_MAX = 4

export interface BulkReaderOptions extends Place {
  readonly kms: KmsClient
  readonly segments: SegmentChannel
  readonly clock: Clock
}

/** What one bulk read is to give. */
export interface BulkRequest {
  readonly names: readonly EntryName[]
  readonly signal: CancelSignal | undefined
  /** Where an entry was when the read began. */
  readonly locate: (name: EntryName) => Location | undefined
  /** For an entry that is not streamed. */
  readonly read: (name: EntryName) => Promise<BulkItem>
  /** Whether the entry is still where it was: an object that no state lists any more may be gone. */
  readonly isCurrent: (name: EntryName, location: Location) => boolean
}

/** Bulk reads of one flow: payloads come through the KMS's pool, segment by segment. */
export class BulkReader {
  readonly #options: BulkReaderOptions
  readonly #runs = new Set<BulkRun>()

  constructor(options: BulkReaderOptions) {
    this.#options = options
  }

  async *read(request: BulkRequest): AsyncGenerator<BulkItem, void, undefined> {
    const { signal } = request
    if (signal?.aborted === true) throw signal.reason
    const run = new BulkRun(this.#options, request)
    const cancel = (): void => run.end(signal?.reason)
    signal?.addEventListener('abort', cancel)
    this.#runs.add(run)
    try {
      for (const name of request.names) yield await run.take(name)
    } finally {
      this.#runs.delete(run)
      signal?.removeEventListener('abort', cancel)
      run.end(new KeyriseError('ERR_ENCLAVE_CLOSED'))
    }
  }

  /** Reads that are under way fail with `reason`, and what has arrived is zero-filled. */
  end(reason: KeyriseError): void {
    for (const run of this.#runs) run.end(reason)
  }
}

/** One bulk read: it pulls segments while somebody waits for an item, in order, and gives up what it holds when it ends. */
class BulkRun {
  readonly #options: BulkReaderOptions
  readonly #request: BulkRequest
  readonly #objects: DirectObjects
  readonly #streams: BulkStreams
  /** Planned and not yet handed over, in order. */
  readonly #queue: BulkPayload[] = []
  /** Of these, those whose streams nobody has asked for. */
  #unopened: BulkPayload[] = []
  /** The first of the request's names that is not planned. */
  #nextName = 0
  #inFlightCount = 0
  #isOpening = false
  #isWanted = false
  #ended: { readonly reason: unknown } | undefined

  constructor(options: BulkReaderOptions, request: BulkRequest) {
    this.#options = options
    this.#request = request
    this.#objects = new DirectObjects(options)
    this.#streams = new BulkStreams({ ...options, objects: this.#objects })
  }

  /** The next of the names, which is `name`. */
  async take(name: EntryName): Promise<BulkItem> {
    this.#assertGoingOn()
    const location = this.#request.locate(name)
    const item = isStreamed(location) ? await this.#takePayload(name, location) : undefined
    return item ?? this.#request.read(name)
  }

  /** What has arrived is zero-filled, and whoever waits hears `reason`. The first reason stays. */
  end(reason: unknown): void {
    this.#ended ??= { reason }
    this.#unopened = []
    for (const payload of this.#queue.splice(0)) payload[Symbol.dispose]()
    this.#streams.close()
  }

  /** @returns undefined where `read` must say: the entry has changed meanwhile, or another of its headers or copies may serve. */
  async #takePayload(name: EntryName, location: Location): Promise<BulkItem | undefined> {
    if (this.#queue.length === 0) this.#plan()
    this.#isWanted = true
    this.#pump()
    const outcome = await this.#queue[0]?.settled
    this.#isWanted = false
    this.#assertGoingOn()
    const payload = this.#queue.shift()
    payload?.handOver()
    if (outcome !== undefined && 'bytes' in outcome) return { name, bytes: outcome.bytes }
    const isFinal = payload?.isAmbiguous === false && this.#request.isCurrent(name, location)
    if (outcome === undefined || !isFinal) return undefined
    return (await copiesOf(this.#options.store)).length > 1 ? undefined : { name, error: outcome.error }
  }

  #assertGoingOn(): void {
    if (this.#ended !== undefined) throw this.#ended.reason
  }

  /** Starts what there is room for: nothing while nobody waits. */
  #pump(): void {
    if (!this.#isWanted || this.#ended !== undefined) return
    this.#openNext()
    for (let payload = this.#choose(); payload !== undefined; payload = this.#choose()) void this.#pull(payload)
  }

  #plan(): void {
    const { names, locate } = this.#request
    for (let room = BATCH_COUNT_MAX; room > 0 && this.#nextName < names.length; this.#nextName++) {
      const location = locate(names[this.#nextName] as EntryName)
      if (!isStreamed(location)) continue
      const payload = new BulkPayload(location.object, location.sizeBytes)
      void payload.settled.then(() => this.#streams.release(payload))
      this.#queue.push(payload)
      this.#unopened.push(payload)
      room--
    }
  }

  /** Opens streams before the window runs out of payloads. */
  #openNext(): void {
    const pullableCount = this.#queue.filter(({ isPullable }) => isPullable).length
    if (this.#isOpening || pullableCount >= WINDOW_COUNT || this.#queue.length > BATCH_COUNT_MAX) return
    if (this.#unopened.length === 0) this.#plan()
    const batch = this.#unopened.splice(0, BATCH_COUNT_MAX)
    if (batch.length === 0) return
    this.#isOpening = true
    void this.#streams
      .open(batch)
      .catch((error: unknown) => this.end(error))
      .finally(() => {
        this.#isOpening = false
        this.#pump()
      })
  }

  /** Whose next segment is to be pulled: the payload that is waited for has the window, and others what they need of one more. */
  #choose(): BulkPayload | undefined {
    let aheadCount = 0
    if (this.#inFlightCount >= WINDOW_COUNT) return undefined
    for (const [place, payload] of this.#queue.entries()) {
      if (place > 0) aheadCount += payload.nextIndex
      if (aheadCount >= WINDOW_COUNT) return undefined
      if (payload.isPullable) return payload
    }
    return undefined
  }

  async #pull(payload: BulkPayload): Promise<void> {
    const index = payload.nextIndex++
    this.#inFlightCount++
    try {
      await this.#fetch(payload, index)
      if (payload.assembly.isWhole) payload.finish()
    } catch (error) {
      if (isOfItem(error)) payload.settle({ error })
      else this.end(error)
    }
    this.#inFlightCount--
    this.#pump()
  }

  /** Until the segment is there and verified, or the payload is settled otherwise. */
  async #fetch(payload: BulkPayload, index: number): Promise<void> {
    let [retryCount, renewalCount] = [0, 0]
    for (;;) {
      const { stream } = payload
      const failure = stream && (await this.#attempt(payload, index, stream))
      if (stream === undefined || failure === undefined) return
      // Renewed meanwhile: what came was sealed under the key before.
      if (payload.stream !== stream) continue
      const delayMs = RETRY_DELAYS_MS[retryCount]
      if (failure.code === 'ERR_SESSION_INVALID' && renewalCount++ < RENEWAL_COUNT_MAX) {
        await this.#streams.renew(payload, stream)
      } else if (isPassing(failure) && delayMs !== undefined) {
        retryCount++
        await sleep(this.#options.clock, delayMs)
      } else throw failure
    }
  }

  /** @returns why there is no such segment, this time; undefined where it is there, or nobody waits for it any more. */
  async #attempt(payload: BulkPayload, index: number, stream: PayloadStream): Promise<KeyriseError | undefined> {
    const { segments } = this.#options
    const { object, assembly } = payload
    try {
      const name = this.#objects.payloadNameOf(object)
      const claimed = await segments.exchange({ name, ...assembly.placeOf(index), stream: stream.id, index })
      if (payload.isSettled) return undefined
      if (claimed === undefined) return lost(object)
      // A key that was disposed of since opens nothing.
      if (payload.stream === stream && assembly.add(index, stream.key, claimed)) return undefined
      return new KeyriseError('ERR_KMS_FAILED', { detail: 'not the segment' })
    } catch (error) {
      if (!isKeyriseError(error)) throw error
      if (payload.isSettled) return undefined
      // Whoever says so: this flow sealed what opens, so what does not is not what it sealed.
      return error.code === 'ERR_ENVELOPE_INVALID' ? mismatch(object) : error
    }
  }
}

const isStreamed = (location: Location | undefined): location is Location => location?.object.name.kind === 'direct'

const isPassing = (failure: KeyriseError): boolean => isTransient(failure) || failure.code === 'ERR_CALLS_LIMIT'
