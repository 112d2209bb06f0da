import { equalPublicBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { ImageSigner } from '../protocol/image-signature.js'
import type { FlowId } from '../protocol/names.js'
import { ROOT_ID } from './root-keys.js'

/** Flows by name: a flow’s own, or a beginning and `*` for any ending. `*` alone is every flow. */
export type FlowPattern = string

/** An image that may hold flows, under the name that peers’ rosters show. */
export interface PolicyImage {
  readonly name: string
  /** SHA-256 of the image, 32 bytes. */
  readonly measurement: Uint8Array
  /** Those that it may hold; every flow unless told. */
  readonly flows?: readonly FlowPattern[]
}

/** Images of one signer and product, from a security version number on; each may take over flows of those with a lower one. */
export interface PolicyProduct extends ImageSigner {
  readonly name: string
  /** The lowest that gets keys. */
  readonly svn: number
  readonly flows?: readonly FlowPattern[]
}

/** Whose signatures count as approvals. */
export interface Approver {
  readonly name: string
  /** Ed25519, 32 bytes. */
  readonly key: Uint8Array
}

/** A root key, by its id, and the flows whose things are sealed to it. */
export interface PolicyKey {
  readonly id: string
  readonly flows: readonly FlowPattern[]
}

/** How many approvers must have signed, each at most once. */
export interface ApprovalCounts {
  /** For another policy to take this one’s place; 0 where the operator alone decides. */
  readonly change: number
  /** For a migration grant, 1 or more; that of a change, and at least 1, unless told. */
  readonly migration?: number
  /** For the root keys to leave the KMS, in an emergency; that of a change unless told. */
  readonly breakGlass?: number
  /** For each recovery of these flows, 1 or more. Where patterns overlap the highest counts. */
  readonly releases?: readonly { readonly flows: readonly FlowPattern[]; readonly count: number }[]
}

/**
 * Who gets keys. A flow opens only for an image that is listed for it, on a listed platform, and from then on only for the image
 * that has it, for a later version of its product, or under a migration grant (docs/policy.md). What is taken off the list gets
 * nothing any more.
 */
export interface Policy {
  /** Formats of evidence that count, by the names of their verifiers; `simulated` alone unless told. */
  readonly evidence?: readonly string[]
  /** Ed25519 keys of simulated platforms whose evidence counts, 32 bytes each. */
  readonly platforms: readonly Uint8Array[]
  readonly images: readonly PolicyImage[]
  readonly products?: readonly PolicyProduct[]
  /**
   * Debug images get keys too. They tell whoever runs them what goes on inside: for development alone, with keys that protect
   * nothing. False unless told.
   */
  readonly allowDebug?: boolean
  readonly approvers?: readonly Approver[]
  readonly approvals?: ApprovalCounts
  /** Root keys of flows that have their own, or share one: the first whose flows match counts, and `root` where none does. */
  readonly keys?: readonly PolicyKey[]
}

/** An image as evidence tells of it, or as the ledger remembers it. */
export interface KnownImage {
  /** 32 bytes. */
  readonly measurement: Uint8Array
  readonly svn: number
  /** Whose signature over it the platform verified; null where it has none. */
  readonly signed: ImageSigner | null
}

export const EVERY_FLOW: readonly FlowPattern[] = ['*']

export const matchesFlow = (patterns: readonly FlowPattern[] | undefined, flow: FlowId): boolean =>
  (patterns ?? EVERY_FLOW).some((pattern) =>
    pattern.endsWith('*') ? flow.startsWith(pattern.slice(0, -1)) : flow === pattern,
  )

/**
 * What lists an image: for a flow, or for any where none is named.
 * @throws {KeyriseError} ERR_POLICY_DENIED when nothing does.
 */
export const findImage = (policy: Policy, image: KnownImage, flow?: FlowId): PolicyImage | PolicyProduct => {
  const listed = listings(policy, image)
  if (listed.length === 0) throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'the image is not listed' })
  const found = listed.find(({ flows }) => flow === undefined || matchesFlow(flows, flow))
  if (found === undefined)
    throw new KeyriseError('ERR_POLICY_DENIED', { detail: 'the image is listed, but not for this flow' })
  return found
}

/** Everything that lists an image, whichever the flows: by measurement first. */
export const listings = (policy: Policy, image: KnownImage): readonly (PolicyImage | PolicyProduct)[] => [
  ...policy.images.filter(({ measurement }) => equalPublicBytes(measurement, image.measurement)),
  ...(policy.products ?? []).filter((product) => isOfProduct(product, image.signed) && image.svn >= product.svn),
]

/** What the policy calls the image that has a flow; undefined where it does not list it for that. */
export const imageName = (policy: Policy, image: KnownImage, flow: FlowId): string | undefined =>
  listings(policy, image).find(({ flows }) => matchesFlow(flows, flow))?.name

export const isOfProduct = (product: ImageSigner, signed: ImageSigner | null): boolean =>
  signed !== null && signed.productId === product.productId && equalPublicBytes(signed.signer, product.signer)

/**
 * True when a flow of `from` may be taken over by `to` because the policy lists their product, and `to` is the later one. Of two
 * builds with one SVN neither is the later: so no image that has given a flow up gets it back this way.
 */
export const isUpgrade = (policy: Policy, from: KnownImage, to: KnownImage, flow: FlowId): boolean =>
  to.svn > from.svn &&
  (policy.products ?? []).some(
    (product) =>
      isOfProduct(product, from.signed) &&
      isOfProduct(product, to.signed) &&
      to.svn >= product.svn &&
      matchesFlow(product.flows, flow),
  )

/** The id of the root key that a flow’s things are sealed to. */
export const keyIdOf = ({ keys = [] }: Policy, flow: FlowId): string =>
  keys.find(({ flows }) => matchesFlow(flows, flow))?.id ?? ROOT_ID

/** The same for an object of a store, whose name starts with its flow’s. */
export const keyIdOfName = (policy: Policy, name: string): string =>
  keyIdOf(policy, name.slice(0, Math.max(0, name.indexOf('/'))) as FlowId)

/** How many approvers a recovery of `flow` waits for; 0 where it waits for none. */
export const releaseCount = ({ approvals }: Policy, flow: FlowId): number =>
  Math.max(0, ...(approvals?.releases ?? []).filter(({ flows }) => matchesFlow(flows, flow)).map(({ count }) => count))

export const changeCount = ({ approvals }: Policy): number => approvals?.change ?? 0

export const breakGlassCount = (policy: Policy): number => policy.approvals?.breakGlass ?? changeCount(policy)

/** How many approvers a migration grant needs; with a policy that names none, no grant counts. */
export const migrationCount = (policy: Policy): number =>
  policy.approvals?.migration ?? Math.max(1, changeCount(policy))
