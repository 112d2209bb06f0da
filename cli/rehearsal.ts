import { openFlow, type OpenedFlow } from '../enclave/flow.js'
import { MemoryFileSystem } from '../faults/memory-file-system.js'
import { commitChannel } from '../host/commits.js'
import { segmentChannel } from '../host/segments.js'
import { FileLedger, LEDGER_NAME } from '../kms/file-ledger.js'
import type { Keyring } from '../kms/keyring.js'
import type { FlowState } from '../kms/ledger.js'
import { unsealKeys } from '../kms/unseal-keys.js'
import type { Policy } from '../kms/policy.js'
import { KmsService } from '../kms/service.js'
import { InlineUnsealer } from '../kms/unseal.js'
import { SimulatedVerifier } from '../kms/verifier.js'
import { copyBytes } from '../protocol/bytes.js'
import type { FoundStatus, VerifiedObject } from '../protocol/contract.js'
import { ed25519Signer, type KeyPairSigner } from '../protocol/crypto/keys.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { prepareEvidence } from '../protocol/evidence.js'
import type { ImageSigner } from '../protocol/image-signature.js'
import type { FlowId } from '../protocol/names.js'
import type { Store } from '../protocol/ports.js'
import { MirrorStore, nodeClock, publish } from '../storage/index.js'

/** The image that a flow would be launched with. */
export interface RehearsedImage {
  readonly name: string
  readonly svn: number
  readonly debug: boolean
  /** 32 bytes. */
  readonly measurement: Uint8Array
  /** Whose signature lies beside it. */
  readonly signed: ImageSigner | null
}

export interface RehearsalOptions {
  readonly keyring: Keyring
  /** The ledger’s file, as it is now. */
  readonly ledger: Uint8Array
  /** Who gets keys; platforms apart, of which the rehearsal has one of its own. */
  readonly policy: Policy
  /** Each copy of the store; none of them is changed. */
  readonly copies: readonly Store[]
}

const PLACE = '/kms'

/**
 * Recovers flows as enclaves would, by the code that they would run: a KMS in this very thread, with the real keyring and a copy of
 * the ledger, and the real store, which only seems to take what is written. So the ledger, the store and whoever holds the flows
 * now see nothing of it.
 */
export class Rehearsal implements AsyncDisposable {
  readonly #options: RehearsalOptions
  readonly #ledger: FileLedger
  readonly #service: KmsService
  readonly #platform: KeyPairSigner
  readonly #store: Store

  private constructor(options: RehearsalOptions, ledger: FileLedger) {
    const { keyring } = options
    using seed = Secret.random(32, nodeRandom)
    this.#platform = ed25519Signer(seed)
    const policy = { ...options.policy, platforms: [this.#platform.publicKey] }
    this.#options = options
    this.#ledger = ledger
    this.#store = new MirrorStore(options.copies.map(untouched))
    this.#service = new KmsService({
      keyring,
      ledger,
      policy,
      verifier: new SimulatedVerifier(policy),
      unsealer: new InlineUnsealer(unsealKeys(keyring)),
      random: nodeRandom,
      clock: nodeClock,
    })
  }

  /** @throws {KeyriseError} ERR_LEDGER_DAMAGED. */
  static async start(options: RehearsalOptions): Promise<Rehearsal> {
    const fs = new MemoryFileSystem()
    await fs.makeDirectory(PLACE)
    await publish(fs, PLACE, LEDGER_NAME, options.ledger)
    return new Rehearsal(options, await FileLedger.open(fs, PLACE, options.keyring.identity))
  }

  /**
   * Recovers one flow and opens everything in it.
   * @param found - told of objects by name, as they are found to be missing or damaged.
   * @throws {KeyriseError} why it would not recover: ERR_STATE_LOST, ERR_ROLLBACK, ERR_FORK, ERR_POLICY_DENIED, …
   */
  async *recover(
    flow: FlowId,
    { task }: FlowState,
    image: RehearsedImage,
    found: (object: string, status: FoundStatus) => void,
  ): AsyncGenerator<VerifiedObject> {
    const opened = await this.#open(flow, task, image, found)
    try {
      yield* opened.flow.verify()
    } finally {
      opened.wipe()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service.close()
    await this.#ledger.close()
    this.#platform[Symbol.dispose]()
  }

  #open(
    flow: FlowId,
    task: FlowId,
    { measurement, ...image }: RehearsedImage,
    found: (object: string, status: FoundStatus) => void,
  ): Promise<OpenedFlow> {
    const own = copyBytes(measurement)
    return openFlow({
      store: this.#store,
      kms: this.#service,
      commits: commitChannel(this.#store, this.#service),
      segments: segmentChannel(this.#store, this.#service),
      attester: {
        attest: ({ nonce, confirmationKey }) => {
          const evidence = prepareEvidence({
            ...image,
            nonce: copyBytes(nonce),
            confirmationKey: copyBytes(confirmationKey),
            measurement: own,
            configDigest: new Uint8Array(32),
          })
          return Promise.resolve(evidence.join(this.#platform.sign(evidence.toSign)))
        },
      },
      kmsIdentity: this.#options.keyring.identity,
      flow,
      task,
      image: own,
      random: nodeRandom,
      clock: nodeClock,
      found,
      // What a newer image would take over is read as it is: the rehearsal has not its code.
      migrate: 'later',
    })
  }
}

/** What is written counts as written, and is dropped; nothing that a recovery writes is read by it. */
const untouched = (store: Store): Store => ({
  get: (name) => store.get(name),
  read: (name, offset, sizeBytes) => store.read(name, offset, sizeBytes),
  list: (prefix) => store.list(prefix),
  put: () => Promise.resolve(),
  delete: () => Promise.resolve(),
})
