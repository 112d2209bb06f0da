import { encodeRequest, type Approved, type ApprovalRequest } from '../../kms/approvals.js'
import type { Approver } from '../../kms/policy.js'
import { ed25519Signer, type KeyPairSigner } from '../../protocol/crypto/keys.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { digestOf } from './attested-client.js'

export interface TestApprover extends Approver {
  readonly signer: KeyPairSigner
}

/** An approver whose key follows from its name. */
export const approverOf = (name: string): TestApprover => {
  using seed = Secret.take(digestOf(name.charCodeAt(0)))
  const signer = ed25519Signer(seed)
  return { name, key: signer.publicKey, signer }
}

export const [ANNA, BEN, CARL] = ['anna', 'ben', 'carl'].map(approverOf) as [TestApprover, TestApprover, TestApprover]

/** What `approvers` sign. */
export const approve = (request: ApprovalRequest, ...approvers: readonly TestApprover[]): Approved => ({
  request,
  approvals: approvers.map(({ signer }) => ({ key: signer.publicKey, signature: signer.sign(encodeRequest(request)) })),
})
