import { KeyriseError } from '../protocol/errors.js'
import { approversOf } from './approvals.js'
import type { FileLedger } from './file-ledger.js'
import { formatPolicy, parsePolicy, policyDigest, type CheckedPolicy } from './policy-file.js'
import { changeCount } from './policy.js'
import type { Receipts } from './receipts.js'
import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'

/**
 * Puts a policy in force, durably and with a receipt, where as many approvers of the one before have signed the change as that asks
 * for. The first policy of a KMS is its operator’s own to choose.
 * @throws {KeyriseError} ERR_APPROVAL_NEEDED: the policy before stays in force.
 */
export const putInForce = async (
  policy: CheckedPolicy,
  {
    ledger,
    receipts,
    identity,
  }: { readonly ledger: FileLedger; readonly receipts: Receipts; readonly identity: Bytes },
): Promise<void> => {
  const text = formatPolicy(policy)
  if (ledger.policy === text) return
  const before = ledger.policy === undefined ? undefined : parsePolicy(ledger.policy)
  const digest = policyDigest(policy)
  const needed = before === undefined ? 0 : changeCount(before)
  const approved = before && findChange(ledger, before, { identity, digest })
  const approvers = before === undefined || approved === undefined ? [] : approversOf(before, approved)
  if (approvers.length < needed)
    throw new KeyriseError('ERR_APPROVAL_NEEDED', {
      detail: `this policy is not the one in force: ${approvers.length} of ${needed} approvals of the change`,
    })
  const receipt = receipts.draft('policy', { digest, ...(approvers.length === 0 ? {} : { approvers }) })
  await ledger.setPolicy(text, approved ?? null, receipt.make)
}

/** Of all requests for just this change, the one that most approvers signed. */
const findChange = (
  ledger: FileLedger,
  before: CheckedPolicy,
  { identity, digest }: { readonly identity: Bytes; readonly digest: Bytes },
) => {
  const from = policyDigest(before)
  return ledger
    .approved()
    .filter(
      ({ request }) =>
        request.kind === 'policy-change' &&
        equalPublicBytes(request.kms, identity) &&
        equalPublicBytes(request.from, from) &&
        equalPublicBytes(request.to, digest),
    )
    .sort((a, b) => approversOf(before, b).length - approversOf(before, a).length)
    .at(0)
}
