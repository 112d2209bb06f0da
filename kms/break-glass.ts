import { asciiBytes, concatBytes, toHex, type Bytes } from '../protocol/bytes.js'
import type { Clock } from '../protocol/ports.js'
import { decodeReceiptBody, splitReceipt, type Receipt } from '../protocol/receipts.js'
import { encodeRootIdentity } from '../protocol/crypto/root-private.js'
import { encodeRootRecipient } from '../protocol/crypto/root-public.js'
import { Secret } from '../protocol/crypto/secret.js'
import { FileLedger } from './file-ledger.js'
import type { Keyring } from './keyring.js'
import { openKeyring, type PlaceOptions } from './place.js'
import { checkReason } from './reason.js'
import { Receipts } from './receipts.js'
import type { RootKey } from './root-keys.js'

export interface BreakGlassOptions extends PlaceOptions {
  readonly clock: Clock
  /** Why; 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
  /**
   * Asked once everything is known and before anything is done: who approves, by name. To refuse, it throws.
   * @param identity - whose keys are about to leave the KMS.
   */
  readonly approve: (identity: Bytes) => Promise<readonly string[]>
}

/** Root keys outside the KMS. */
export interface BrokenGlass {
  /** An identity file as `age -i` takes it, ASCII: a line for each root key, newest first. The caller disposes of it. */
  readonly identities: Secret
  /** One for each RSA key, which does not go into the other file. The caller disposes of them. */
  readonly pemFiles: readonly { readonly key: string; readonly pem: Secret }[]
  readonly keys: readonly string[]
  /** What the log holds of it, durably. */
  readonly receipt: Receipt
}

/**
 * Takes the root keys out of the KMS, for an emergency in which there is no KMS: the `age` command opens with them whatever is
 * sealed to them. The receipt is durable before there is anything to take. Takes the ledger, as a start does: a KMS that runs on it
 * answers nothing more until it is started again.
 * @throws {KeyriseError} as `openKeyring` and `FileLedger.open`; ERR_CONFIG_INVALID: a reason of another length; what `approve` throws.
 * Crash: there may be a receipt of keys that nobody got; never the other way round.
 */
export const breakGlass = async (options: BreakGlassOptions): Promise<BrokenGlass> => {
  const { place, fs, clock, reason, approve } = options
  checkReason(reason)
  using keyring = await openKeyring(options)
  const approvers = await approve(keyring.identity)
  const ledger = await FileLedger.open(fs, place.directory, keyring.identity)
  try {
    const receipts = new Receipts({ ledger, signer: keyring, clock })
    const keys = keyring.rootKeys.map(({ key }) => key)
    const signed = await receipts.record('break-glass', { reason, approvers, itemCount: keys.length })
    const receipt = decodeReceiptBody(splitReceipt(signed).body)
    return { identities: identityFile(keyring), pemFiles: pemFiles(keyring), keys, receipt }
  } finally {
    await ledger.close()
  }
}

const identityFile = (keyring: Keyring): Secret => {
  const lines = [asciiBytes(`# root keys of the KMS ${toHex(keyring.identity)}\n`)]
  for (const rootKey of keyring.rootKeys) if (!isRsa(rootKey)) lines.push(...identityLines(rootKey))
  const file = concatBytes(...lines)
  for (const line of lines) line.fill(0)
  return Secret.take(file)
}

/** What `age` takes RSA keys from: a PEM file for each. */
const pemFiles = (keyring: Keyring): BrokenGlass['pemFiles'] =>
  keyring.rootKeys.filter(isRsa).map((rootKey) => ({ key: rootKey.key, pem: Secret.take(encodeRootIdentity(rootKey)) }))

const isRsa = ({ suite }: RootKey): boolean => suite.startsWith('rsa-')

const identityLines = (rootKey: RootKey): Bytes[] => [
  asciiBytes(`# ${rootKey.key}, public key: ${encodeRootRecipient(rootKey.certificate)}\n`),
  encodeRootIdentity(rootKey),
  asciiBytes('\n'),
]
