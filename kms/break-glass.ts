import { asciiBytes, concatBytes, toHex, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { Clock } from '../protocol/ports.js'
import { decodeReceiptBody, splitReceipt, type Receipt } from '../protocol/receipts.js'
import { encodeRootIdentity } from '../protocol/crypto/root-private.js'
import { encodeRootRecipient } from '../protocol/crypto/root-public.js'
import { Secret } from '../protocol/crypto/secret.js'
import { breakGlassApprovers } from './approvals.js'
import { FileLedger } from './file-ledger.js'
import type { Keyring } from './keyring.js'
import { parsePolicy } from './policy-file.js'
import { breakGlassCount } from './policy.js'
import { openKeyring, type PlaceOptions } from './place.js'
import { checkReason } from './reason.js'
import { Receipts } from './receipts.js'
import type { RootKey } from './root-keys.js'

export interface BreakGlassOptions extends PlaceOptions {
  readonly clock: Clock
  /** Why; 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
  /**
   * Asked once everything is known and before anything is done; to refuse, it throws.
   * @param identity - whose keys are about to leave the KMS.
   */
  readonly confirm: (identity: Bytes) => Promise<void>
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
 * sealed to them. As many approvers as the policy in force asks for must have signed that for this very reason. The receipt is durable before there is anything to take. Takes the ledger, as a start does: a KMS that runs on it
 * answers nothing more until it is started again.
 * @throws {KeyriseError} as `openKeyring` and `FileLedger.open`; ERR_CONFIG_INVALID: a reason of another length; ERR_APPROVAL_NEEDED; what
 * `confirm` throws.
 * Crash: there may be a receipt of keys that nobody got; never the other way round.
 */
export const breakGlass = async (options: BreakGlassOptions): Promise<BrokenGlass> => {
  const { place, fs, clock, reason, confirm } = options
  checkReason(reason)
  using keyring = await openKeyring(options)
  const approvers = await demandApproval(options, keyring.identity)
  await confirm(keyring.identity)
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

/** By the log as it is, which is not taken yet: a KMS that runs goes on where this is refused. */
const demandApproval = async (
  { place, fs, clock, reason }: BreakGlassOptions,
  identity: Bytes,
): Promise<readonly string[]> => {
  const known = await FileLedger.inspect(fs, place.directory)
  if (known?.policy === undefined) return []
  const policy = parsePolicy(known.policy)
  const approvers = breakGlassApprovers({ policy, identity, nowMs: clock.nowMs() }, known.approved, reason)
  const needed = breakGlassCount(policy)
  if (approvers.length < needed)
    throw new KeyriseError('ERR_APPROVAL_NEEDED', {
      detail: `to break the glass for this reason: ${approvers.length} of ${needed} approvals`,
    })
  return approvers
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
