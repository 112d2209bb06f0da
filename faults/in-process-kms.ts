import { copyBytes, equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { ed25519Signer, type KeyPairSigner } from '../protocol/crypto/keys.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import type { KmsLink } from '../protocol/ports.js'
import { FileLedger } from '../kms/file-ledger.js'
import { Keyring } from '../kms/keyring.js'
import { unsealKeys } from '../kms/unseal-keys.js'
import type { PolicyImage } from '../kms/policy.js'
import { KmsService } from '../kms/service.js'
import { InlineUnsealer } from '../kms/unseal.js'
import { SimulatedVerifier } from '../kms/verifier.js'
import { nodeClock } from '../storage/index.js'
import { MemoryFileSystem } from './memory-file-system.js'

/**
 * A KMS in this very thread, for `launchInProcess`: the real service, ledger and keyring, on a disk in memory, without a
 * passphrase. It gives keys to whatever is launched with it, and forgets everything when it is closed.
 */
export interface InProcessKms extends KmsLink {
  readonly identity: Bytes
  /** What signs the evidence that it believes. @internal */
  readonly platform: KeyPairSigner
  /** Lists an image in its policy. @internal */
  readonly allow: (image: PolicyImage) => void
}

const PLACE = '/kms'

/** Pass one to several `launchInProcess` calls where their enclaves are members of one task, or to open a flow again. */
export const startInProcessKms = async (): Promise<InProcessKms> => {
  const fs = new MemoryFileSystem()
  const keyring = Keyring.create(nodeRandom)
  await fs.makeDirectory(PLACE)
  await FileLedger.create(fs, PLACE, keyring.identity)
  const ledger = await FileLedger.open(fs, PLACE, keyring.identity)
  using seed = Secret.random(32, nodeRandom)
  const platform = ed25519Signer(seed)
  const images: PolicyImage[] = []
  const policy = { platforms: [platform.publicKey], images, allowDebug: true }
  const service = new KmsService({
    keyring,
    ledger,
    policy,
    verifier: new SimulatedVerifier(policy),
    unsealer: new InlineUnsealer(unsealKeys(keyring)),
    random: nodeRandom,
    clock: nodeClock,
  })
  const end = async (): Promise<void> => {
    await service.close()
    await ledger.close()
    keyring[Symbol.dispose]()
    platform[Symbol.dispose]()
  }
  let ended: Promise<void> | undefined
  const close = (): Promise<void> => (ended ??= end())
  return {
    identity: copyBytes(keyring.identity),
    platform,
    allow: (image) => {
      if (!images.some(({ measurement }) => equalPublicBytes(measurement, image.measurement))) images.push(image)
    },
    exchange: (frame) => service.exchange(frame),
    close,
    [Symbol.asyncDispose]: close,
  }
}
