import test from 'ava'
import { diffFlows, diffPolicies } from '../../kms/policy-diff.js'
import { explainImage } from '../../kms/policy-explain.js'
import type { Policy } from '../../kms/policy.js'
import { parseFlowId } from '../../protocol/names.js'
import { digestOf } from './attested-client.js'
import { flowState } from './flow-state.js'

const FLOW = parseFlowId('credit-2026')
const SIGNED = { signer: digestOf(8), productId: 7 }
const PRODUCT = { name: 'credit', ...SIGNED, svn: 2, flows: ['credit-*'] }
const IMAGE = { measurement: digestOf(1), svn: 2, signed: null, debug: false }
const LISTED = { name: 'party', measurement: digestOf(1) }
const POLICY: Policy = { platforms: [digestOf(9)], images: [LISTED] }
const STATE = flowState({ task: FLOW, svn: 2, incarnation: 1 })
const KNOWN = { state: STATE, approved: [], identity: digestOf(5), nowMs: 0 }

/** The sentences, each after its effect. */
const said = (...args: Parameters<typeof explainImage>): string[] =>
  explainImage(...args).reasons.map(({ effect, text }) => `${effect}: ${text}`)

test('an image that is listed: how, for which flows, and on whose evidence', (t) => {
  t.true(explainImage(POLICY, IMAGE).allowed)
  t.deepEqual(said(POLICY, IMAGE), [
    'notes: its evidence must come from the one platform that the policy lists',
    'allows: its measurement is listed as party, for every flow',
  ])
  const limited = { ...POLICY, images: [{ ...LISTED, flows: ['payroll-*'] }] }
  t.false(explainImage(limited, IMAGE, { flow: FLOW }).allowed)
  t.deepEqual(said(limited, IMAGE, { flow: FLOW }).slice(1), [
    'notes: its measurement is listed as party, but for the flows payroll-*',
    'forbids: nothing lists it for the flow credit-2026',
  ])
})

test('an image that is not listed: what each product lacks of it', (t) => {
  const policy = { platforms: [digestOf(9)], images: [], products: [PRODUCT] }
  const why = (image: Partial<typeof IMAGE> | { signed: typeof SIGNED }) =>
    said(policy, { ...IMAGE, ...image }).slice(1)
  t.deepEqual(why({}), ['forbids: its measurement is not listed', 'forbids: it is not signed, so it is of no product'])
  t.regex(why({ signed: SIGNED, svn: 1 } as never)[1] ?? '', /of the product credit, but has SVN 1: 2 or later/)
  t.regex(why({ signed: { ...SIGNED, productId: 6 } })[1] ?? '', /has its signer, but the id 7; it has 6/)
  t.regex(why({ signed: { ...SIGNED, signer: digestOf(3) } })[1] ?? '', /another signer’s/)
  t.deepEqual(why({ signed: SIGNED }), [
    'allows: it is of the product credit, from SVN 2 on, and has SVN 2, for the flows credit-*',
  ])
})

test('a debug image, a policy without platforms, and recoveries that wait for approvals are said', (t) => {
  const debug = { ...IMAGE, debug: true }
  t.false(explainImage(POLICY, debug).allowed)
  t.true(explainImage({ ...POLICY, allowDebug: true }, debug).allowed)
  t.false(explainImage({ ...POLICY, platforms: [] }, IMAGE).allowed)
  const approvers = [1, 2].map((byte) => ({ name: `approver-${byte}`, key: digestOf(byte) }))
  const approvals = { change: 0, releases: [{ flows: ['credit-*'], count: 2 }] }
  const sensitive = { ...POLICY, approvers, approvals }
  t.is(
    said(sensitive, IMAGE, { flow: FLOW }).at(-1),
    'notes: each recovery of the flow credit-2026 waits for 2 approvals, by approver-1, approver-2',
  )
})

test('who has the flow decides: the image itself, a lower SVN of its product, or nobody who may pass it on', (t) => {
  const asked = { flow: FLOW, known: KNOWN }
  t.is(said(POLICY, IMAGE, asked).at(-1), 'allows: it has the flow credit-2026')
  const other = { ...IMAGE, measurement: digestOf(2), signed: SIGNED, svn: 3 }
  const policy = { ...POLICY, products: [PRODUCT] }
  t.false(explainImage(policy, other, asked).allowed)
  t.is(said(policy, other, asked).at(-1), 'forbids: there is no migration grant for the flow credit-2026')
  const ofProduct = { ...KNOWN, state: { ...STATE, signed: SIGNED } }
  t.true(explainImage(policy, other, { flow: FLOW, known: ofProduct }).allowed)
  t.false(
    explainImage(policy, other, { flow: FLOW, known: { ...KNOWN, state: { ...STATE, destroyed: true } } }).allowed,
  )
})

test('what a change of policy would allow and forbid', (t) => {
  const changes = (before: Policy, after: Policy) =>
    diffPolicies(before, after).map(({ effect, text }) => `${effect}: ${text.replaceAll(/[0-9a-f]{64}/g, 'H')}`)
  const [anna, ben] = [1, 2].map((byte) => ({ name: byte === 1 ? 'anna' : 'ben', key: digestOf(byte) })) as [
    never,
    never,
  ]
  t.deepEqual(changes(POLICY, POLICY), [])
  t.deepEqual(changes(POLICY, { platforms: [], images: [{ ...LISTED, measurement: digestOf(2) }] }), [
    'forbids: evidence of the platform H would no longer count',
    'allows: the image H, as party, would get keys for every flow',
    'forbids: the image H, as party, would no longer be listed by its measurement',
  ])
  t.deepEqual(
    changes(POLICY, { ...POLICY, images: [{ ...LISTED, name: 'bank', flows: ['a', 'b'] }], allowDebug: true }),
    [
      'notes: the image H would be called bank, not party',
      'forbids: the image H would get keys for the flows a, b alone, no longer for every flow',
      'allows: debug images would get keys',
    ],
  )
  const before = { ...POLICY, products: [PRODUCT], approvers: [anna, ben], approvals: { change: 2 } }
  const releases = [{ flows: ['credit-*'], count: 1 }]
  const after = { ...before, products: [{ ...PRODUCT, svn: 4 }], approvers: [anna], approvals: { change: 1, releases } }
  t.deepEqual(changes(before, after), [
    'forbids: images of the product credit with SVN 2 to 3 would get no keys',
    `forbids: ben (H) would no longer be an approver`,
    'allows: a change of the policy would need 1 approval, not 2',
    'allows: a migration grant would need 1 approval, not 2',
    'allows: breaking the glass would need 1 approval, not 2',
    'forbids: each recovery of the flows credit-* would need 1 approval',
  ])
  t.deepEqual(
    changes(after, before).map((text) => text.slice(0, 6)),
    ['allows', 'allows', 'forbid', 'forbid', 'forbid', 'allows'],
  )
})

test('a change of policy names the flows that could no longer be recovered, or could again', (t) => {
  const flows = new Map([[FLOW, STATE]])
  const without = { ...POLICY, images: [] }
  t.like(diffFlows(POLICY, without, flows), [{ effect: 'forbids' }])
  t.like(diffFlows(without, POLICY, flows), [{ effect: 'allows' }])
  t.deepEqual(diffFlows(POLICY, POLICY, flows), [])
  t.deepEqual(diffFlows(POLICY, without, new Map([[FLOW, { ...STATE, destroyed: true }]])), [])
})
