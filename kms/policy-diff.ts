import { toHex } from '../protocol/bytes.js'
import type { FlowId } from '../protocol/names.js'
import type { FlowState } from './ledger.js'
import { flowsText, mayRecover, type Reason } from './policy-explain.js'
import {
  breakGlassCount,
  changeCount,
  migrationCount,
  type ApprovalCounts,
  type Policy,
  type PolicyKey,
} from './policy.js'

/** What a change of policy would do, in sentences: `allows` and `forbids` are changes of who gets keys, or of who decides that. */
export const diffPolicies = (before: Policy, after: Policy): readonly Reason[] => [
  ...diffLists(before.evidence ?? ['simulated'], after.evidence ?? ['simulated'], (format) => ({
    id: format,
    added: `evidence of the format ${format} would count`,
    removed: `evidence of the format ${format} would no longer count`,
  })),
  ...diffLists(before.platforms, after.platforms, (key) => ({
    id: toHex(key),
    added: `evidence of the platform ${toHex(key)} would count`,
    removed: `evidence of the platform ${toHex(key)} would no longer count`,
  })),
  ...diffLists(before.images, after.images, ({ name, measurement, flows }) => ({
    id: toHex(measurement),
    added: `the image ${toHex(measurement)}, as ${name}, would get keys for ${flowsText(flows)}`,
    removed: `the image ${toHex(measurement)}, as ${name}, would no longer be listed by its measurement`,
  })),
  ...diffPairs(before.images, after.images, ({ measurement }) => toHex(measurement), diffImage),
  ...diffLists(before.products ?? [], after.products ?? [], (product) => ({
    id: productId(product),
    added: `images of the product ${product.name} (signer ${toHex(product.signer)}, id ${product.productId}) would get keys from SVN ${product.svn} on, for ${flowsText(product.flows)}, and take flows over from lower ones`,
    removed: `images of the product ${product.name} (signer ${toHex(product.signer)}, id ${product.productId}) would no longer be listed by it`,
  })),
  ...diffPairs(before.products ?? [], after.products ?? [], productId, diffProduct),
  ...diffDebug(before, after),
  ...diffLists(before.approvers ?? [], after.approvers ?? [], ({ name, key }) => ({
    id: toHex(key),
    added: `${name} (${toHex(key)}) would be an approver`,
    removed: `${name} (${toHex(key)}) would no longer be an approver`,
  })),
  ...diffCounts(before, after),
]

/** Which flows of a ledger the image that has them could no longer recover, or could again. */
export const diffFlows = (before: Policy, after: Policy, flows: ReadonlyMap<FlowId, FlowState>): readonly Reason[] =>
  [...flows].flatMap(([flow, state]): Reason[] => {
    // What has a flow now was no debug image, or was let in as one: that is a sentence of its own.
    const image = { measurement: state.image, svn: state.svn, signed: state.signed, debug: false }
    const [could, can] = [mayRecover(before, image, flow, state), mayRecover(after, image, flow, state)]
    if (could === can) return []
    const text = `the flow ${flow} (image ${toHex(state.image)}) would ${can ? 'be recovered again' : 'no longer be recovered'}`
    return [{ effect: can ? 'allows' : 'forbids', text }]
  })

interface Described {
  readonly id: string
  readonly added: string
  readonly removed: string
}

/** What is in one list and not in the other. */
const diffLists = <T>(before: readonly T[], after: readonly T[], describe: (item: T) => Described): Reason[] => {
  const [old, now] = [before.map(describe), after.map(describe)]
  return [
    ...now
      .filter(({ id }) => !old.some((one) => one.id === id))
      .map(({ added }): Reason => ({ effect: 'allows', text: added })),
    ...old
      .filter(({ id }) => !now.some((one) => one.id === id))
      .map(({ removed }): Reason => ({ effect: 'forbids', text: removed })),
  ]
}

/** What is in both, and is not the same in both. */
const diffPairs = <T>(
  before: readonly T[],
  after: readonly T[],
  idOf: (item: T) => string,
  diff: (old: T, now: T) => Reason[],
): Reason[] =>
  after.flatMap((now) => {
    const old = before.find((one) => idOf(one) === idOf(now))
    return old === undefined ? [] : diff(old, now)
  })

type Image = Policy['images'][number]
type Product = NonNullable<Policy['products']>[number]

const productId = ({ signer, productId: id }: Product): string => `${toHex(signer)} ${id}`

const diffImage = (old: Image, now: Image): Reason[] => [
  ...diffName(`the image ${toHex(now.measurement)}`, old.name, now.name),
  ...diffFlowPatterns(`the image ${toHex(now.measurement)}`, old, now),
]

const diffProduct = (old: Product, now: Product): Reason[] => [
  ...diffName(`the product ${old.name}`, old.name, now.name),
  ...(now.svn < old.svn
    ? [reason('allows', `images of the product ${now.name} would get keys from SVN ${now.svn} on, not ${old.svn}`)]
    : []),
  ...(now.svn > old.svn
    ? [reason('forbids', `images of the product ${now.name} with SVN ${old.svn} to ${now.svn - 1} would get no keys`)]
    : []),
  ...diffFlowPatterns(`images of the product ${now.name}`, old, now),
]

const diffName = (what: string, old: string, now: string): Reason[] =>
  old === now ? [] : [reason('notes', `${what} would be called ${now}, not ${old}`)]

const diffFlowPatterns = (what: string, old: Pick<Image, 'flows'>, now: Pick<Image, 'flows'>): Reason[] => {
  const [before, after] = [flowsText(old.flows), flowsText(now.flows)]
  if (before === after) return []
  const [had, has] = [old.flows ?? ['*'], now.flows ?? ['*']]
  return [
    ...(has.some((flow) => !had.includes('*') && !had.includes(flow))
      ? [reason('allows', `${what} would get keys for ${after}, not for ${before} alone`)]
      : []),
    ...(had.some((flow) => !has.includes('*') && !has.includes(flow))
      ? [reason('forbids', `${what} would get keys for ${after} alone, no longer for ${before}`)]
      : []),
  ]
}

const diffDebug = ({ allowDebug: old = false }: Policy, { allowDebug: now = false }: Policy): Reason[] => {
  if (old === now) return []
  return [now ? reason('allows', 'debug images would get keys') : reason('forbids', 'debug images would get no keys')]
}

const diffCounts = (before: Policy, after: Policy): Reason[] => [
  ...diffCount('a change of the policy', changeCount(before), changeCount(after)),
  ...diffCount('a migration grant', migrationCount(before), migrationCount(after)),
  ...diffCount('breaking the glass', breakGlassCount(before), breakGlassCount(after)),
  ...diffReleases(before.approvals?.releases ?? [], after.approvals?.releases ?? []),
  ...diffKeys(before.keys ?? [], after.keys ?? []),
]

const diffKeys = (before: readonly PolicyKey[], after: readonly PolicyKey[]): Reason[] =>
  diffLists(before, after, ({ id, flows }) => ({
    id: `${id} ${flows.join(' ')}`,
    added: `${flowsText(flows)} would be sealed to the root key ${id}`,
    removed: `${flowsText(flows)} would no longer be sealed to the root key ${id}`,
  })).map(({ text }) => reason('notes', text))

/** To need fewer approvals allows something. */
const diffCount = (what: string, old: number, now: number): Reason[] =>
  old === now ? [] : [reason(now < old ? 'allows' : 'forbids', `${what} would need ${approvals(now)}, not ${old}`)]

type Releases = NonNullable<ApprovalCounts['releases']>

const diffReleases = (before: Releases, after: Releases): Reason[] => {
  const text = ({ flows, count }: Releases[number]): Described => ({
    id: `${flows.join(' ')} ${count}`,
    added: `each recovery of ${flowsText(flows)} would need ${approvals(count)}`,
    removed: `a recovery of ${flowsText(flows)} would no longer need ${approvals(count)}`,
  })
  // A rule that is added forbids, and one that is removed allows.
  return diffLists(before, after, text).map(({ effect, text: sentence }) =>
    reason(effect === 'allows' ? 'forbids' : 'allows', sentence),
  )
}

const approvals = (count: number): string => (count === 1 ? '1 approval' : `${count} approvals`)

const reason = (effect: Reason['effect'], text: string): Reason => ({ effect, text })
