import { equalPublicBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { ShareCollector, type CustodianSet, type ShareProgress } from './custodians.js'

/** How long shares are kept for the custodians that are still to come. */
const KEPT_MS = 10 * 60_000

/** The shares that custodians give a KMS that runs sealed, each from where he sits. They are forgotten when no other comes. */
export class PendingShares implements Disposable {
  readonly #read: () => Promise<CustodianSet | undefined>
  readonly #clock: Clock
  #collector: ShareCollector | undefined
  #forgetting: Disposable | undefined

  /** @param read - who the custodians are now; undefined where the passphrase is not shared. */
  constructor(read: () => Promise<CustodianSet | undefined>, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** Whose shares are there. */
  get submitted(): readonly number[] {
    return this.#collector?.progress.submitted ?? []
  }

  /**
   * One submission at a time.
   * @param claimed - borrowed.
   * @returns how far the custodians are and, with the last share, the passphrase, which the caller disposes of.
   * @throws {KeyriseError} ERR_SHARE_INVALID: those that were right stay; ERR_CUSTODIANS_INVALID.
   */
  async submit(claimed: Uint8Array): Promise<{ progress: ShareProgress; passphrase?: Secret }> {
    const collector = await this.#collect()
    const progress = collector.submit(claimed)
    this.#forgetting?.[Symbol.dispose]()
    this.#forgetting = this.#clock.timer(KEPT_MS, () => this[Symbol.dispose]())
    if (!collector.isComplete) return { progress }
    const passphrase = await collector.join()
    this[Symbol.dispose]()
    return { progress, passphrase }
  }

  [Symbol.dispose](): void {
    this.#forgetting?.[Symbol.dispose]()
    this.#collector?.[Symbol.dispose]()
    this.#forgetting = this.#collector = undefined
  }

  /** Of who the custodians are now: a rekey meanwhile has made other shares. */
  async #collect(): Promise<ShareCollector> {
    const custodians = await this.#read()
    if (custodians === undefined)
      throw new KeyriseError('ERR_CUSTODIANS_INVALID', { detail: 'nobody shares the passphrase of this keyring' })
    const held = this.#collector
    if (held !== undefined && equalPublicBytes(held.custodians.set, custodians.set)) return held
    this[Symbol.dispose]()
    return (this.#collector = new ShareCollector(custodians))
  }
}
