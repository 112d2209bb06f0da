import { isKeyriseError, type ErrorCode } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import type { ReceiptFields } from '../protocol/receipts.js'
import type { Receipts } from './receipts.js'

/** Refusals that say something of who asked. A request that is malformed, or came too soon, is none. */
const DENIED: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_EVIDENCE_REFUSED',
  'ERR_POLICY_DENIED',
  'ERR_APPROVAL_NEEDED',
  'ERR_FENCED',
  'ERR_FORK',
  'ERR_FLOW_DESTROYED',
  'ERR_LEDGER_CONFLICT',
])

/** Denials of one moment that leave a receipt each, and how soon another may: 1.5 MB of them a day at most. */
const BURST_COUNT = 32
const REFILL_MS = 60_000

/** Strangers’ denials are bounded apart from those of attested enclaves, so that they cannot crowd these out. */
type Source = 'stranger' | 'enclave'

/** What is refused leaves a receipt; what is refused too fast for that is counted, and the next receipt says how often. */
export class Denials {
  readonly #receipts: Receipts
  readonly #clock: Pick<Clock, 'nowMs'>
  readonly #buckets: Readonly<Record<Source, Bucket>>
  readonly #failed: (error: unknown) => void

  /** @param options.failed - told why a receipt could not be written: a denial is answered all the same. */
  constructor(options: {
    readonly receipts: Receipts
    readonly clock: Pick<Clock, 'nowMs'>
    readonly failed: (error: unknown) => void
  }) {
    const { receipts, clock, failed } = options
    this.#receipts = receipts
    this.#clock = clock
    this.#failed = failed
    this.#buckets = { stranger: new Bucket(clock.nowMs()), enclave: new Bucket(clock.nowMs()) }
  }

  /** Resolves when the receipt of a denial is durable, or needs none now. Never rejects. */
  async deny(source: Source, error: unknown, fields: ReceiptFields): Promise<void> {
    if (!isKeyriseError(error) || !DENIED.has(error.code)) return
    const bucket = this.#buckets[source]
    const isCounted = bucket.counts.size > 0
    const mayRecord = bucket.take(this.#clock.nowMs())
    if (isCounted || !mayRecord) bucket.counts.set(error.code, (bucket.counts.get(error.code) ?? 0) + 1)
    if (!mayRecord) return
    if (isCounted) await this.#flush(bucket)
    else await this.#record(() => this.#receipts.record('denial', { ...fields, outcome: error.code }))
  }

  /** Says what was counted and not said yet. Never rejects. */
  async flush(): Promise<void> {
    for (const bucket of Object.values(this.#buckets)) if (bucket.counts.size > 0) await this.#flush(bucket)
  }

  async #flush(bucket: Bucket): Promise<void> {
    const counts = Object.fromEntries(bucket.counts)
    bucket.counts.clear()
    await this.#record(() => this.#receipts.record('denials', { counts }))
  }

  async #record(write: () => Promise<unknown>): Promise<void> {
    try {
      await write()
    } catch (error) {
      this.#failed(error)
    }
  }
}

class Bucket {
  /** Of what left no receipt yet, by code. */
  readonly counts = new Map<ErrorCode, number>()
  #tokenCount = BURST_COUNT
  #refilledMs: number

  constructor(nowMs: number) {
    this.#refilledMs = nowMs
  }

  take(nowMs: number): boolean {
    const elapsedCount = Math.max(0, Math.floor((nowMs - this.#refilledMs) / REFILL_MS))
    this.#refilledMs += elapsedCount * REFILL_MS
    this.#tokenCount = Math.min(BURST_COUNT, this.#tokenCount + elapsedCount)
    if (this.#tokenCount === 0) return false
    this.#tokenCount--
    return true
  }
}
