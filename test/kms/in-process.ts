import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { Keyring } from '../../kms/keyring.js'
import { unsealKeys } from '../../kms/unseal-keys.js'
import type { Policy } from '../../kms/policy.js'
import { KmsService, type KmsEvent } from '../../kms/service.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { SimulatedVerifier } from '../../kms/verifier.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import type { FileSystem, Store } from '../../protocol/ports.js'
import { AttestedClient, digestOf, TestPlatform, type ClientOptions } from './attested-client.js'

export const IMAGE = digestOf(1)
export const OTHER_IMAGE = digestOf(2)
export const UNLISTED_IMAGE = digestOf(3)

export interface InProcessOptions {
  /** Awaited before anything is unsealed. */
  readonly beforeUnseal?: () => Promise<void>
  readonly fs?: FileSystem
  readonly keyring?: Keyring
  readonly platform?: TestPlatform
  /** Registered, by id. */
  readonly stores?: ReadonlyMap<string, Store>
  /** In place of what the policy has, or beside it. */
  readonly policy?: Partial<Policy>
}

/** A KMS without its process: the service, on a simulated disk. */
class PatientUnsealer extends InlineUnsealer {
  readonly #before: (() => Promise<void>) | undefined

  constructor(keys: ConstructorParameters<typeof InlineUnsealer>[0], before: (() => Promise<void>) | undefined) {
    super(keys)
    this.#before = before
  }

  override async unseal(task: Parameters<InlineUnsealer['unseal']>[0]) {
    await this.#before?.()
    return super.unseal(task)
  }
}

export const startInProcess = async (options: InProcessOptions = {}) => {
  const fs = options.fs ?? new MemoryFileSystem()
  const keyring = options.keyring ?? Keyring.create(nodeRandom)
  const platform = options.platform ?? new TestPlatform()
  const clock = new SimulatedClock()
  const events: KmsEvent[] = []
  await fs.makeDirectory('/kms')
  if ((await FileLedger.inspect(fs, '/kms')) === undefined) await FileLedger.create(fs, '/kms', keyring.identity)
  const open = () => FileLedger.open(fs, '/kms', keyring.identity)
  const ledger = await open()
  const policy: Policy = {
    platforms: [platform.publicKey],
    images: [
      { name: 'party', measurement: IMAGE },
      { name: 'decryptor', measurement: OTHER_IMAGE },
    ],
    ...options.policy,
  }
  const service = new KmsService({
    keyring,
    ledger,
    verifier: new SimulatedVerifier(policy),
    policy,
    unsealer: new PatientUnsealer(unsealKeys(keyring), options.beforeUnseal),
    ...(options.stores === undefined ? {} : { stores: options.stores }),
    random: nodeRandom,
    clock,
    onEvent: (event) => events.push(event),
  })
  const connect = (client: Partial<ClientOptions> = {}) =>
    AttestedClient.connect({ kms: service, kmsIdentity: keyring.identity, platform, image: IMAGE, ...client })
  return { fs, keyring, platform, clock, events, ledger, open, service, connect }
}
