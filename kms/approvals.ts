import { equalPublicBytes, type Bytes } from '../protocol/bytes.js'
import { encodeCbor } from '../protocol/cbor.js'
import { verifyEd25519 } from '../protocol/crypto/keys.js'
import type { ImageSigner } from '../protocol/image-signature.js'
import type { FlowId } from '../protocol/names.js'
import {
  isOfProduct,
  matchesFlow,
  migrationCount,
  releaseCount,
  type FlowPattern,
  type KnownImage,
  type Policy,
} from './policy.js'

/** That another policy takes the place of the one in force: neither counts for any other pair. */
export interface PolicyChange {
  readonly kind: 'policy-change'
  /** The KMS’s identity, 32 bytes. */
  readonly kms: Bytes
  /** Digests (`policyDigest`), 32 bytes each. */
  readonly from: Bytes
  readonly to: Bytes
}

/** That flows may pass from one image to another: docs/upgrading.md. */
export interface MigrationGrant {
  readonly kind: 'migration'
  readonly kms: Bytes
  readonly flows: readonly FlowPattern[]
  /** The measurement of the image that has the flow. */
  readonly from: Bytes
  readonly to: { readonly measurement: Bytes } | (ImageSigner & { readonly svn: number })
  /** Milliseconds since the epoch, by the KMS’s clock. */
  readonly notAfterMs: number
}

/** That one image may recover one flow once: the recovery that makes this incarnation of it, and none after. */
export interface ReleaseApproval {
  readonly kind: 'release'
  readonly kms: Bytes
  readonly flow: FlowId
  /** One above the ledger’s. */
  readonly incarnation: number
  readonly measurement: Bytes
  readonly notAfterMs: number
}

/** That the root keys may leave the KMS, for this reason. */
export interface BreakGlassApproval {
  readonly kind: 'break-glass'
  readonly kms: Bytes
  /** 1 to REASON_LENGTH_MAX characters. */
  readonly reason: string
  readonly notAfterMs: number
}

/** What approvers sign. */
export type ApprovalRequest = PolicyChange | MigrationGrant | ReleaseApproval | BreakGlassApproval

/** An approver’s signature over a request. */
export interface Approval {
  /** Ed25519, 32 bytes: one of the policy’s approvers, or it does not count. */
  readonly key: Bytes
  readonly signature: Bytes
}

/** A request and what approvers made of it. */
export interface Approved<Request extends ApprovalRequest = ApprovalRequest> {
  readonly request: Request
  readonly approvals: readonly Approval[]
}

/** What an approver signs: it names itself, the KMS that it is for, and all that it lets happen. */
export const encodeRequest = (request: ApprovalRequest): Bytes => {
  switch (request.kind) {
    case 'policy-change': {
      const { kms, from, to } = request
      return encodeCbor(['keyrise/v1/approve-policy-change', { kms, from, to }])
    }
    case 'migration': {
      const { kms, flows, from, to, notAfterMs } = request
      return encodeCbor(['keyrise/v1/approve-migration', { kms, flows: [...flows], from, to: { ...to }, notAfterMs }])
    }
    case 'release': {
      const { kms, flow, incarnation, measurement, notAfterMs } = request
      return encodeCbor(['keyrise/v1/approve-release', { kms, flow, incarnation, measurement, notAfterMs }])
    }
    case 'break-glass': {
      const { kms, reason, notAfterMs } = request
      return encodeCbor(['keyrise/v1/approve-break-glass', { kms, reason, notAfterMs }])
    }
  }
}

/** The policy’s approvers who signed `request`, each once, by name. */
export const approversOf = ({ approvers = [] }: Policy, { request, approvals }: Approved): readonly string[] => {
  const message = encodeRequest(request)
  return approvers
    .filter(({ key }) =>
      approvals.some(
        (approval) => equalPublicBytes(approval.key, key) && verifyEd25519(key, message, approval.signature),
      ),
    )
    .map(({ name }) => name)
}

/** Who asks, and when. */
export interface ApprovalContext {
  readonly policy: Policy
  /** The KMS identity, 32 bytes. */
  readonly identity: Uint8Array
  readonly nowMs: number
}

/** True when an approved grant lets `to` take `flow` over from the image of the measurement `from`. */
export const isGranted = (
  context: ApprovalContext,
  approved: readonly Approved[],
  { flow, from, to }: { readonly flow: FlowId; readonly from: Uint8Array; readonly to: KnownImage },
): boolean =>
  approved.some(
    (each) =>
      isMigration(each) &&
      isValid(context, each.request) &&
      matchesFlow(each.request.flows, flow) &&
      equalPublicBytes(each.request.from, from) &&
      isTarget(each.request.to, to) &&
      approversOf(context.policy, each).length >= migrationCount(context.policy),
  )

/** How many approvers signed the recovery of `flow` as `incarnation` by an image: of all requests for it, the most. */
export const countReleases = (
  context: ApprovalContext,
  approved: readonly Approved[],
  wanted: Pick<ReleaseApproval, 'flow' | 'incarnation'> & { readonly measurement: Uint8Array },
): { readonly count: number; readonly needed: number } => {
  const counts = approved.map((each) => {
    const { request } = each
    const isWanted =
      request.kind === 'release' &&
      isValid(context, request) &&
      request.flow === wanted.flow &&
      request.incarnation === wanted.incarnation &&
      equalPublicBytes(request.measurement, wanted.measurement)
    return isWanted ? approversOf(context.policy, each).length : 0
  })
  return { count: Math.max(0, ...counts), needed: releaseCount(context.policy, wanted.flow) }
}

/** Who approves that the root keys leave the KMS for `reason`: of all requests for it, those of the one that most signed. */
export const breakGlassApprovers = (
  context: ApprovalContext,
  approved: readonly Approved[],
  reason: string,
): readonly string[] =>
  approved
    .filter(({ request }) => request.kind === 'break-glass' && isValid(context, request) && request.reason === reason)
    .map((each) => approversOf(context.policy, each))
    .reduce((most, names) => (names.length > most.length ? names : most), [])

const isMigration = (approved: Approved): approved is Approved<MigrationGrant> => approved.request.kind === 'migration'

const isValid = (
  { identity, nowMs }: ApprovalContext,
  request: MigrationGrant | ReleaseApproval | BreakGlassApproval,
): boolean => equalPublicBytes(request.kms, identity) && nowMs <= request.notAfterMs

const isTarget = (target: MigrationGrant['to'], image: KnownImage): boolean =>
  'measurement' in target
    ? equalPublicBytes(target.measurement, image.measurement)
    : isOfProduct(target, image.signed) && image.svn >= target.svn
