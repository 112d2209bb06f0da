import { equalPublicBytes, toHex } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import { approversOf, isGranted, type ApprovalContext, type Approved } from './approvals.js'
import type { FlowState } from './ledger.js'
import {
  EVERY_FLOW,
  findImage,
  isOfProduct,
  isUpgrade,
  listings,
  matchesFlow,
  migrationCount,
  releaseCount,
  type FlowPattern,
  type KnownImage,
  type Policy,
} from './policy.js'

/** One thing that a policy lets happen, or does not; or something to know beside that. */
export interface Reason {
  readonly effect: 'allows' | 'forbids' | 'notes'
  readonly text: string
}

export interface Explanation {
  /** True where a launch would be given the keys, approvals and evidence apart. */
  readonly allowed: boolean
  readonly reasons: readonly Reason[]
}

/** What the ledger knows of a flow and of grants, where it is at hand. */
export interface FlowKnowledge extends Omit<ApprovalContext, 'policy'> {
  readonly state: FlowState | undefined
  readonly approved: readonly Approved[]
}

/** What `image` could do, with all flows or with one, and why not. */
export const explainImage = (
  policy: Policy,
  image: KnownImage & { readonly debug: boolean },
  { flow, known }: { readonly flow?: FlowId | undefined; readonly known?: FlowKnowledge | undefined } = {},
): Explanation => {
  const reasons = [...explainEvidence(policy, image.debug), ...explainListings(policy, image, flow)]
  if (flow !== undefined && known?.state !== undefined)
    reasons.push(...explainState(policy, image, flow, { ...known, state: known.state }))
  if (flow !== undefined) reasons.push(...explainReleases(policy, flow))
  return { allowed: reasons.every(({ effect }) => effect !== 'forbids'), reasons }
}

const explainEvidence = (
  { evidence = ['simulated'], platforms, allowDebug = false }: Policy,
  debug: boolean,
): Reason[] => [
  ...(evidence.length === 1 && evidence[0] === 'simulated'
    ? []
    : [notes(`its evidence must be of a format that the policy lists: ${evidence.join(', ')}`)]),
  ...(evidence.includes('simulated') ? [explainPlatforms(platforms, evidence)] : []),
  ...(!debug
    ? []
    : [
        allowDebug
          ? allows('it is a debug image, and allowDebug lets those have keys')
          : forbids('it is a debug image, and allowDebug is not set'),
      ]),
]

const explainPlatforms = (platforms: Policy['platforms'], evidence: readonly string[]): Reason => {
  if (platforms.length > 0)
    return notes(
      `${evidence.length === 1 ? 'its' : 'simulated'} evidence must come from ${oneOf(platforms.length, 'platform')} that the policy lists`,
    )
  const text = 'the policy lists no platform, so nobody’s simulated evidence counts'
  return evidence.length === 1 ? forbids(text) : notes(text)
}

const explainListings = (policy: Policy, image: KnownImage, flow: FlowId | undefined): Reason[] => {
  const listed = listings(policy, image)
  const reasons = listed.map((listing) => {
    const how =
      'measurement' in listing
        ? `its measurement is listed as ${listing.name}`
        : `it is of the product ${listing.name}, from SVN ${listing.svn} on, and has SVN ${image.svn}`
    const isFor = flow === undefined || matchesFlow(listing.flows, flow)
    return isFor
      ? allows(`${how}, for ${flowsText(listing.flows)}`)
      : notes(`${how}, but for ${flowsText(listing.flows)}`)
  })
  if (reasons.some(({ effect }) => effect === 'allows')) return reasons
  if (listed.length > 0) return [...reasons, forbids(`nothing lists it for the flow ${String(flow)}`)]
  return [forbids('its measurement is not listed'), ...nearProducts(policy, image)]
}

/** Why none of the products is the image’s. */
const nearProducts = ({ products = [] }: Policy, { signed, svn }: KnownImage): Reason[] => {
  if (products.length === 0) return []
  if (signed === null) return [forbids('it is not signed, so it is of no product')]
  return products.map((product) => {
    if (isOfProduct(product, signed))
      return forbids(`it is of the product ${product.name}, but has SVN ${svn}: ${product.svn} or later gets keys`)
    return equalPublicBytes(product.signer, signed.signer)
      ? forbids(
          `the product ${product.name} has its signer, but the id ${product.productId}; it has ${signed.productId}`,
        )
      : forbids(`the product ${product.name} is another signer’s`)
  })
}

const explainState = (
  policy: Policy,
  image: KnownImage,
  flow: FlowId,
  { state, approved, identity, nowMs }: FlowKnowledge & { readonly state: FlowState },
): Reason[] => {
  if (state.destroyed) return [forbids(`the flow ${flow} was destroyed`)]
  const { image: from, svn, signed } = state
  if (equalPublicBytes(from, image.measurement)) return [allows(`it has the flow ${flow}`)]
  const has = `the image ${toHex(from)}, SVN ${svn}, has the flow ${flow}`
  if (isUpgrade(policy, { measurement: from, svn, signed }, image, flow))
    return [allows(`${has}; this one is the later version of its product, and takes it over`)]
  const context = { policy, identity, nowMs }
  if (isGranted(context, approved, { flow, from, to: image }))
    return [allows(`${has}; a migration grant lets this one take it over`)]
  return [
    forbids(`${has}; this one is no later version of a product that the policy lists for it`),
    ...explainGrants(context, approved, flow),
  ]
}

const explainGrants = (context: ApprovalContext, approved: readonly Approved[], flow: FlowId): Reason[] => {
  const needed = migrationCount(context.policy)
  const grants = approved.flatMap((each) => {
    const { request } = each
    return request.kind === 'migration' && matchesFlow(request.flows, flow) ? [{ ...each, request }] : []
  })
  if (grants.length === 0) return [forbids(`there is no migration grant for the flow ${flow}`)]
  return grants.map((grant) => {
    const names = approversOf(context.policy, grant)
    const until = new Date(grant.request.notAfterMs).toISOString()
    const by = `signed by ${names.length} of ${needed} approvers${names.length === 0 ? '' : ` (${names.join(', ')})`}`
    return forbids(`a migration grant from ${toHex(grant.request.from)}, until ${until}, ${by}, is not for this`)
  })
}

const explainReleases = (policy: Policy, flow: FlowId): Reason[] => {
  const count = releaseCount(policy, flow)
  const names = (policy.approvers ?? []).map(({ name }) => name).join(', ')
  return count === 0 ? [] : [notes(`each recovery of the flow ${flow} waits for ${count} approvals, by ${names}`)]
}

/** True when `image` could recover the flow that it, or another image, has. */
export const mayRecover = (
  policy: Policy,
  image: KnownImage & { readonly debug: boolean },
  flow: FlowId,
  state: FlowState,
): boolean => {
  if (state.destroyed || (image.debug && policy.allowDebug !== true)) return false
  try {
    findImage(policy, image, flow)
  } catch {
    return false
  }
  const { image: measurement, svn, signed } = state
  return (
    equalPublicBytes(measurement, image.measurement) || isUpgrade(policy, { measurement, svn, signed }, image, flow)
  )
}

export const flowsText = (flows: readonly FlowPattern[] = EVERY_FLOW): string =>
  flows.includes('*') ? 'every flow' : `the flows ${flows.join(', ')}`

const oneOf = (count: number, what: string): string => (count === 1 ? `the one ${what}` : `one of ${count} ${what}s`)

const allows = (text: string): Reason => ({ effect: 'allows', text })
const forbids = (text: string): Reason => ({ effect: 'forbids', text })
const notes = (text: string): Reason => ({ effect: 'notes', text })
