import { basename, dirname } from 'node:path'
import { equalPublicBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { disposeAll } from '../protocol/live-secrets.js'
import type { Clock, FileSystem, KmsChannel, Random } from '../protocol/ports.js'
import { rootKeyObject } from '../protocol/crypto/root-private.js'
import { sha256 } from '../protocol/crypto/primitives.js'
import { approversOf, encodeRequest, type Approved } from './approvals.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { publish } from '../storage/index.js'
import { recordChange, type Change } from './change-keys.js'
import type { ConsoleKey } from './console/state.js'
import type { Shown } from './console-view.js'
import { FileLedger } from './file-ledger.js'
import { Keyring } from './keyring.js'
import {
  identify,
  keyringPath,
  openKeyringFile,
  readKeyringFile,
  type KmsIdentity,
  type PlaceOptions,
} from './place.js'
import type { Policy } from './policy.js'
import { checkPolicy, type CheckedPolicy } from './policy-file.js'
import { NitroVerifier } from './nitro-verifier.js'
import { putInForce } from './policy-in-force.js'
import { UnsealPool } from './pool.js'
import type { Receipts } from './receipts.js'
import { RenewableUnsealer } from './renewable-unsealer.js'
import { openingKeys, withoutDue } from './root-keys.js'
import { KmsService, type KmsEvent } from './service.js'
import type { Unsealer, UnsealKeys } from './unseal.js'
import { SimulatedVerifier, Verifiers, type Verifier } from './verifier.js'

export interface OpenKmsOptions extends PlaceOptions {
  readonly fs: FileSystem
  readonly policy: Policy
  readonly clock: Clock
  readonly random: Random
  /** Of formats that the policy may list beside `simulated` and `nitro`, or in their place. */
  readonly verifiers?: readonly Verifier[]
  readonly onEvent?: (event: KmsEvent) => void
  /** What opens envelopes; a pool of threads unless told. */
  readonly startUnsealer?: (keys: UnsealKeys) => Promise<Unsealer>
}

/** A running KMS: keyring open, ledger open, pool started. */
export interface OpenKms extends KmsIdentity, KmsChannel {
  /** Of what it does, and of what its operators do with it. */
  readonly receipts: Receipts
  /**
   * Keeps what approvers signed, durably; whether it counts is decided when it is made use of.
   * @returns the policy’s approvers among them, by name.
   */
  approve(approved: Approved): Promise<readonly string[]>
  /**
   * Changes its root keys while it runs: the keyring's file first, then what it opens with and certifies. One change at a time.
   * @param passphrase - of the keyring; borrowed. @returns the keys that there are now.
   * @throws {KeyriseError} what `change` throws; ERR_STORE_*, ERR_LEDGER_DAMAGED: another process took the place. Then nothing of
   * it is in use here.
   * Crash: the keyring before or after, whole.
   */
  changeKeys(passphrase: Secret, change: Change): Promise<KmsIdentity['keys']>
  /** What it is like now, for operators to look at. */
  look(): Shown
  /** Answers what is under way, then zero-fills every key. */
  close(): Promise<void>
  /** Zero-fills every secret that this process holds: for one that is about to end by a fault. */
  wipe(): void
}

/** @throws {KeyriseError} ERR_CONFIG_INVALID, and as `openKeyring` and `FileLedger.open`. */
export const openKms = async (options: OpenKmsOptions): Promise<OpenKms> => {
  const policy = checkPolicy(options.policy)
  const file = await readKeyringFile(options)
  const keyring = await openKeyringFile(options, file)
  try {
    const { startUnsealer = (keys: UnsealKeys) => UnsealPool.start(keys) } = options
    const unsealer = await startUnsealer(unsealKeys(keyring))
    try {
      // Last, because it takes the ledger from whoever has it open.
      const ledger = await FileLedger.open(options.fs, options.place.directory, keyring.identity)
      if (!equalPublicBytes(await readKeyringFile(options), file)) {
        // A rotation came between: this KMS would not open what is sealed to its key.
        await ledger.close()
        throw new KeyriseError('ERR_KMS_FAILED', { detail: 'its keyring was rotated while it started: start it again' })
      }
      const assembled = assemble(options, { policy, keyring, unsealer, ledger })
      try {
        await putInForce(policy, { ledger, receipts: assembled.receipts, identity: keyring.identity })
      } catch (error) {
        await ledger.close()
        throw error
      }
      return assembled
    } catch (error) {
      await unsealer.close()
      throw error
    }
  } catch (error) {
    keyring[Symbol.dispose]()
    throw error
  }
}

/** What the threads that unseal are given. */
export const unsealKeys = ({ identity, keys }: Pick<Keyring, 'identity' | 'keys'>): UnsealKeys => ({
  authority: identity,
  rootKeys: openingKeys(keys).map((root) => ({ key: root.key, suite: root.suite, privateKey: rootKeyObject(root) })),
})

const assemble = (
  options: OpenKmsOptions,
  parts: { policy: CheckedPolicy; keyring: Keyring; unsealer: Unsealer; ledger: FileLedger },
): OpenKms => {
  const { policy, keyring, ledger } = parts
  const unsealer = new RenewableUnsealer(parts.unsealer)
  const { random, clock, onEvent } = options
  const own = [new SimulatedVerifier(policy), new NitroVerifier({ clock })]
  const verifier = new Verifiers(policy.evidence, [...own, ...(options.verifiers ?? [])])
  const service = new KmsService({
    keyring,
    ledger,
    verifier,
    policy,
    unsealer,
    random,
    clock,
    ...(onEvent === undefined ? {} : { onEvent }),
  })
  const changeKeys = async (passphrase: Secret, change: Change): Promise<KmsIdentity['keys']> => {
    const { startUnsealer = (keys: UnsealKeys) => UnsealPool.start(keys), fs, place } = options
    const logN = Keyring.workFactor(await readKeyringFile(options))
    const known = keyring.keys
    const keys = withoutDue(change(known), clock.nowMs())
    const next = await startUnsealer(unsealKeys({ identity: keyring.identity, keys }))
    try {
      const file = keyring.seal({ passphrase, random, logN, keys })
      await recordChange(service.receipts, known, keys)
      await ledger.confirm()
      const path = keyringPath(place)
      await publish(fs, dirname(path), basename(path), file)
      await ledger.confirm()
    } catch (error) {
      await next.close()
      throw error
    }
    const renewed = unsealer.renew(next)
    keyring.change(keys)
    service.renew()
    await renewed
    return identify(keyring).keys
  }
  return {
    identity: keyring.identity,
    get keys() {
      return identify(keyring).keys
    },
    changeKeys,
    receipts: service.receipts,
    look: () => ({
      keys: keysShown(keyring),
      flows: ledger.flows,
      sessions: service.sessions,
      receipts: ledger.recentReceipts,
      policy,
    }),
    wipe: () => void disposeAll(),
    exchange: (frame) => service.exchange(frame),
    async approve(approved) {
      const approvers = approversOf(policy, approved)
      const fields = { operation: approved.request.kind, digest: sha256(encodeRequest(approved.request)) }
      const receipt = service.receipts.draft('approval', {
        ...fields,
        ...(approvers.length === 0 ? {} : { approvers }),
      })
      await ledger.addApproved(approved, receipt.make)
      return approvers
    },
    async close() {
      await service.close()
      await unsealer.close()
      await ledger.close()
      keyring[Symbol.dispose]()
    },
  }
}

const keysShown = (keyring: Keyring): ConsoleKey[] =>
  identify(keyring).keys.map(({ key, recipient }) => {
    const { suite = '', state = '' } = keyring.rootKeys.find((root) => root.key === key) ?? {}
    return { key, suite, state, recipient }
  })
