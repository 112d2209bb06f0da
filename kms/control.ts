import { toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { disposeAll } from '../protocol/live-secrets.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { ConsoleFeed, type ConsoleView } from './console-feed.js'
import { consoleView } from './console-view.js'
import { FileLedger } from './file-ledger.js'
import { openKms, type OpenKms, type OpenKmsOptions } from './open-kms.js'
import type { Metrics } from './metrics.js'
import type { ShareProgress } from './custodians.js'
import type { Policy } from './policy.js'
import { PendingShares } from './pending-shares.js'
import { hasKeyring, keyringPath, readCustodians } from './custody-files.js'
import type { KmsIdentity } from './place.js'
import type { KmsEvent } from './service.js'

/** Before what could not be destroyed in its time is tried again. */
const RETRY_MS = 60_000
const LOOK_MS = 60 * 60_000

/** Where, and under which policy, a KMS runs: all but what unlocks it. */
export type KmsControlOptions = Omit<OpenKmsOptions, 'passphrase' | 'onLedgerAppend'> & {
  /** The policy as its file has it now: without it, the policy is the one that it was started with. */
  readonly readPolicy?: () => Promise<Policy>
  /** Told of requests by whoever has the listeners. */
  readonly metrics: Metrics
}

export interface KmsStatus extends KmsIdentity {
  readonly state: 'sealed' | 'unlocked'
  /** When it came into this state, by its clock. */
  readonly sinceMs: number
  /** While it is sealed, the custodians whose shares are there, by their numbers. */
  readonly submitted: readonly number[]
}

interface Unlocked {
  readonly kms: OpenKms
  /** Of the keyring, so that a change of it can be sealed again. */
  readonly passphrase: Secret
}

/** A KMS as its operators see it: sealed, or unlocked and then with every key in memory. One change of it at a time. */
export class KmsControl implements AsyncDisposable {
  readonly options: KmsControlOptions
  /** Of what its operators see in a browser. */
  readonly console: ConsoleFeed
  readonly #startedMs: number
  readonly #shares: PendingShares
  #identity: Bytes
  /** Of the KMS that runs, or that is unlocked next. */
  #policy: Policy
  #unlocked: Unlocked | undefined
  #sinceMs: number
  #isClosed = false
  #due: Disposable | undefined
  #changed: Promise<unknown> = Promise.resolve()

  private constructor(options: KmsControlOptions, identity: Bytes, unlocked?: Unlocked) {
    this.options = options
    options.metrics.gauges = () => this.kms?.gauges()
    this.#identity = identity
    this.#policy = options.policy
    this.#unlocked = unlocked
    this.#startedMs = this.#sinceMs = options.clock.nowMs()
    this.console = new ConsoleFeed(() => this.#view(), options.clock)
    this.#shares = new PendingShares(() => readCustodians(options.place, options.fs), options.clock)
  }

  /**
   * A KMS that nobody has unlocked yet; it opens neither keyring nor ledger.
   * @throws {KeyriseError} ERR_LEDGER_MISSING, ERR_LEDGER_DAMAGED, ERR_KEYRING_MISSING, ERR_STORE_*.
   */
  static async sealed(options: KmsControlOptions): Promise<KmsControl> {
    const { fs, place } = options
    const ledger = await FileLedger.inspect(fs, place.directory)
    if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: place.directory })
    if (!(await hasKeyring(place, fs))) throw new KeyriseError('ERR_KEYRING_MISSING', { detail: keyringPath(place) })
    return new KmsControl(options, ledger.identity)
  }

  /** @param passphrase - taken over. @throws {KeyriseError} as `openKms`. */
  static async unlocked(options: KmsControlOptions, passphrase: Secret): Promise<KmsControl> {
    let control: KmsControl | undefined
    const unlocked = await open(options, passphrase, () => control?.console.changed())
    const made = (control = new KmsControl(options, unlocked.kms.identity, unlocked))
    made.#awaitDestruction(0)
    return made
  }

  status(): KmsStatus {
    const [identity, sinceMs] = [this.#identity, this.#sinceMs]
    const keys = this.#unlocked?.kms.keys ?? []
    const state = this.#unlocked === undefined ? 'sealed' : 'unlocked'
    return { state, identity, keys, sinceMs, submitted: this.#shares.submitted }
  }

  /** What answers enclaves; undefined while it is sealed. */
  get kms(): OpenKms | undefined {
    return this.#unlocked?.kms
  }

  /** @throws {KeyriseError} ERR_KMS_SEALED. */
  get openKms(): OpenKms {
    return this.#demand().kms
  }

  /** @param passphrase - taken over. @throws {KeyriseError} ERR_KMS_UNLOCKED, and as `openKms`. */
  unlock(passphrase: Secret): Promise<void> {
    return this.#change(() => this.#unlock(passphrase))
  }

  /**
   * Takes a custodian's share; the last one that is needed unlocks.
   * @param claimed - borrowed.
   * @throws {KeyriseError} ERR_SHARE_INVALID, ERR_CUSTODIANS_INVALID, and as `unlock`.
   */
  submitShare(claimed: Uint8Array): Promise<ShareProgress> {
    return this.#change(async () => {
      this.#checkSealed()
      const { progress, passphrase } = await this.#shares.submit(claimed)
      if (passphrase !== undefined) await this.#unlock(passphrase)
      return progress
    })
  }

  /**
   * Answers what is under way, then zero-fills every key, also where the log takes no receipt of it.
   * @throws {KeyriseError} ERR_KMS_SEALED; why there is no receipt: it is sealed all the same.
   */
  seal(): Promise<void> {
    return this.#change(async () => {
      const { kms } = this.#demand()
      try {
        await kms.receipts.record('seal')
      } finally {
        await this.#wipeKeys()
      }
    })
  }

  /**
   * Runs a change of an unlocked KMS, such as one of its keyring, while no other runs.
   * @param work - borrows the passphrase.
   * @throws {KeyriseError} ERR_KMS_SEALED; what `work` throws.
   */
  change<T>(work: (kms: OpenKms, passphrase: Secret) => Promise<T>): Promise<T> {
    return this.#change(() => {
      const { kms, passphrase } = this.#demand()
      return work(kms, passphrase)
    })
  }

  /**
   * Puts in force what its policy’s file has now; enclaves attest themselves anew under it.
   * @returns the policy’s digest.
   * @throws {KeyriseError} ERR_KMS_SEALED, ERR_CONFIG_INVALID, ERR_KEY_UNKNOWN, ERR_APPROVAL_NEEDED: the one before stays in force.
   */
  reloadPolicy(): Promise<Bytes> {
    return this.change(async (kms) => {
      const { readPolicy } = this.options
      if (readPolicy === undefined) throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'no policy file to read' })
      const policy = await readPolicy()
      const digest = await kms.changePolicy(policy)
      this.#policy = policy
      return digest
    })
  }

  /** For good: as `seal`, without a receipt, for a process that ends. Safe to repeat. */
  close(): Promise<void> {
    this.#isClosed = true
    return this.#change(async () => {
      this.#shares[Symbol.dispose]()
      await this.#wipeKeys()
      this.console[Symbol.dispose]()
    })
  }

  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void {
    disposeAll()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #wipeKeys(): Promise<void> {
    const unlocked = this.#unlocked
    if (unlocked === undefined) return
    // From here on nothing new is taken.
    this.#unlocked = undefined
    this.#sinceMs = this.options.clock.nowMs()
    unlocked.passphrase[Symbol.dispose]()
    await unlocked.kms.close()
  }

  async #unlock(passphrase: Secret): Promise<void> {
    try {
      this.#checkSealed()
      this.#unlocked = await open({ ...this.options, policy: this.#policy }, passphrase, () => this.console.changed())
      this.#identity = this.#unlocked.kms.identity
      this.#sinceMs = this.options.clock.nowMs()
      this.#shares[Symbol.dispose]()
    } catch (error) {
      passphrase[Symbol.dispose]()
      throw error
    }
  }

  #checkSealed(): void {
    if (this.#isClosed) throw new KeyriseError('ERR_KMS_FAILED', { detail: 'it is stopping' })
    if (this.#unlocked !== undefined) throw new KeyriseError('ERR_KMS_UNLOCKED')
  }

  #view(): ConsoleView {
    const { state: custody, identity } = this.status()
    return consoleView({ custody, identity: toHex(identity), startedMs: this.#startedMs }, this.kms?.look())
  }

  #demand(): Unlocked {
    if (this.#unlocked === undefined) throw new KeyriseError('ERR_KMS_SEALED')
    return this.#unlocked
  }

  #change<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changed.then(work)
    this.#changed = done.then(
      () => this.#settled(0),
      () => this.#settled(RETRY_MS),
    )
    return done
  }

  #settled(delayMsMin: number): void {
    this.console.changed()
    this.#awaitDestruction(delayMsMin)
  }

  /** Ends the root keys whose time has come, when it has. A clock that is set is noticed within LOOK_MS. */
  #awaitDestruction(delayMsMin: number): void {
    this.#due?.[Symbol.dispose]()
    const dueMs = this.#unlocked?.kms.nextDueMs
    if (dueMs === undefined) return
    const { clock } = this.options
    const delayMs = Math.max(delayMsMin, Math.min(dueMs - clock.nowMs(), LOOK_MS), 0)
    this.#due = clock.timer(delayMs, () => {
      // What goes wrong is tried again.
      this.change((kms, passphrase) => kms.changeKeys(passphrase, (keys) => keys)).catch(() => undefined)
    })
  }
}

/** Disposes of the passphrase where it does not open. */
const open = async (options: KmsControlOptions, passphrase: Secret, happened: () => void): Promise<Unlocked> => {
  try {
    const onEvent = (event: KmsEvent): void => {
      happened()
      options.onEvent?.(event)
    }
    const onLedgerAppend = (seconds: number): void => options.metrics.appended(seconds)
    const kms = await openKms({ ...options, passphrase, onEvent, onLedgerAppend })
    await kms.receipts.record('unlock')
    return { kms, passphrase }
  } catch (error) {
    passphrase[Symbol.dispose]()
    throw error
  }
}
