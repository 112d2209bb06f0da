import { disposeAll } from '../protocol/live-secrets.js'
import { toHex, type Bytes } from '../protocol/bytes.js'
import type { Store } from '../protocol/ports.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { approversOf, encodeRequest, type Approved } from './approvals.js'
import { writeKeys, type Change } from './change-keys.js'
import type { Shown } from './console-view.js'
import { dependentsOf } from './dependents.js'
import type { FileLedger } from './file-ledger.js'
import type { Keyring } from './keyring.js'
import { NitroVerifier } from './nitro-verifier.js'
import type { Gauges, OpenKms, OpenKmsOptions, StartUnsealer } from './open-kms.js'
import { identify, type KmsIdentity } from './place.js'
import { putInForce } from './policy-in-force.js'
import { keyIdOfName, type Policy } from './policy.js'
import { checkPolicy, policyDigest, type CheckedPolicy } from './policy-file.js'
import type { Receipts } from './receipts.js'
import type { RequestNote } from './request-note.js'
import { RenewableUnsealer } from './renewable-unsealer.js'
import { checkKeysOf, describeKeys, findKey, nextDueMs, withoutDue, type KeyDescription } from './root-keys.js'
import { KmsService, type Rules } from './service.js'
import type { Unsealer } from './unseal.js'
import { StoreRewraps } from './store-rewraps.js'
import { unsealKeys } from './unseal-keys.js'
import { SimulatedVerifier, Verifiers } from './verifier.js'

/** What a KMS runs on; it ends them, in the order in which they need each other. */
export interface RunningParts {
  readonly policy: CheckedPolicy
  readonly keyring: Keyring
  readonly ledger: FileLedger
  readonly unsealer: Unsealer
  readonly startUnsealer: StartUnsealer
}

export class RunningKms implements OpenKms {
  readonly #options: OpenKmsOptions
  readonly #parts: RunningParts
  #policy: CheckedPolicy
  readonly #unsealer: RenewableUnsealer
  readonly #service: KmsService
  readonly rewraps: StoreRewraps

  constructor(options: OpenKmsOptions, parts: RunningParts) {
    this.#options = options
    this.#parts = parts
    this.#policy = parts.policy
    this.#unsealer = new RenewableUnsealer(parts.unsealer)
    const { random, clock, onEvent } = options
    const { keyring, ledger, policy } = parts
    const stores = options.stores ?? new Map<string, Store>()
    this.#service = new KmsService({
      keyring,
      ledger,
      ...this.#rulesOf(policy),
      unsealer: this.#unsealer,
      stores,
      random,
      clock,
      ...(onEvent === undefined ? {} : { onEvent }),
    })
    this.rewraps = new StoreRewraps({
      keyring,
      stores,
      receipts: this.receipts,
      clock,
      random,
      fs: options.fs,
      directory: options.place.directory,
      keyIdOf: (name) => keyIdOfName(this.#policy, name),
      done: (detail) => onEvent?.({ event: 'rewrap', detail }),
      failed: (error) => void this.#service.report(error),
    })
  }

  get identity(): Bytes {
    return this.#parts.keyring.identity
  }

  get keys(): KmsIdentity['keys'] {
    return identify(this.#parts.keyring).keys
  }

  get rootKeys(): readonly KeyDescription[] {
    return describeKeys(this.#parts.keyring.keys)
  }

  get nextDueMs(): number | undefined {
    return nextDueMs(this.#parts.keyring.keys)
  }

  get receipts(): Receipts {
    return this.#service.receipts
  }

  exchange(frame: Uint8Array, note?: RequestNote): Promise<Bytes> {
    return this.#service.exchange(frame, note)
  }

  get isServing(): boolean {
    return !this.#parts.ledger.hasFailed
  }

  gauges(): Gauges {
    const { receiptCount, sizeBytes: ledgerSizeBytes } = this.#parts.ledger
    const [sessionCount, queueCount] = [this.#service.sessions.length, this.#unsealer.queueCount]
    return { sessionCount, queueCount, receiptCount, ledgerSizeBytes }
  }

  async approve(approved: Approved): Promise<readonly string[]> {
    const { ledger } = this.#parts
    const approvers = approversOf(this.#policy, approved)
    const fields = { operation: approved.request.kind, digest: sha256(encodeRequest(approved.request)) }
    const receipt = this.receipts.draft('approval', { ...fields, ...(approvers.length === 0 ? {} : { approvers }) })
    await ledger.addApproved(approved, receipt.make)
    return approvers
  }

  async changeKeys(passphrase: Secret, change: Change): Promise<KmsIdentity['keys']> {
    const { keyring, ledger, startUnsealer } = this.#parts
    const { place, fs, random, clock } = this.#options
    const keys = change(withoutDue(keyring.keys, clock.nowMs()))
    if (keys === keyring.keys) return this.keys
    const next = await startUnsealer(unsealKeys({ identity: keyring.identity, keys }))
    const isRotation = keys.live[0] !== keyring.keys.live[0]
    try {
      if (isRotation) await this.rewraps.expect()
      await writeKeys({ place, passphrase, fs, random, clock }, { keyring, ledger, receipts: this.receipts }, keys)
    } catch (error) {
      await next.close()
      throw error
    }
    const renewed = this.#unsealer.renew(next)
    keyring.change(keys)
    this.#service.renew()
    if (isRotation) this.rewraps.start()
    else this.rewraps.renew()
    await renewed
    return this.keys
  }

  async changePolicy(claimed: Policy): Promise<Bytes> {
    const { ledger, keyring } = this.#parts
    const policy = checkPolicy(claimed)
    checkKeysOf(policy, keyring.keys)
    const rules = this.#rulesOf(policy)
    await putInForce(policy, { ledger, receipts: this.receipts, identity: keyring.identity })
    this.#policy = policy
    this.#service.govern(rules)
    const digest = policyDigest(policy)
    this.#options.onEvent?.({ event: 'policy', detail: toHex(digest) })
    return digest
  }

  async *dependentsOf(key: string): AsyncGenerator<{ store: string; name: string }, void, undefined> {
    const { keys } = this.#parts.keyring
    findKey(keys, key)
    for (const [id, store] of this.#options.stores ?? [])
      for await (const name of dependentsOf({ keys, key, store })) yield { store: id, name }
  }

  look(): Shown {
    const { ledger } = this.#parts
    const { sessions } = this.#service
    return {
      keys: this.keys,
      flows: ledger.flows,
      sessions,
      receipts: ledger.recentReceipts,
      policy: this.#policy,
      rewrap: this.rewraps.progress,
    }
  }

  async close(): Promise<void> {
    try {
      await this.rewraps.close()
      await this.#service.close()
      await this.#unsealer.close()
      await this.#parts.ledger.close()
    } finally {
      this.#parts.keyring[Symbol.dispose]()
    }
  }

  wipe(): void {
    disposeAll()
  }

  #rulesOf(policy: CheckedPolicy): Rules {
    const { clock, verifiers = [] } = this.#options
    const own = [new SimulatedVerifier(policy), new NitroVerifier({ clock })]
    return { policy, verifier: new Verifiers(policy.evidence, [...own, ...verifiers]) }
  }
}
