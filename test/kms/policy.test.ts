import test from 'ava'
import { diffPolicies } from '../../kms/policy-diff.js'
import {
  findImage,
  isUpgrade,
  keyIdOf,
  keyIdOfName,
  matchesFlow,
  migrationCount,
  releaseCount,
  type KnownImage,
} from '../../kms/policy.js'
import { checkPolicy, formatPolicy, parsePolicy, policyDigest } from '../../kms/policy-file.js'
import { parseFlowId, type FlowId } from '../../protocol/names.js'
import { digestOf } from './attested-client.js'

const HEX = '07'.repeat(32)
const write = (policy: unknown): string => JSON.stringify(policy)
const imageOf = (byte: number, svn = 1, signed: KnownImage['signed'] = null): KnownImage => ({
  measurement: digestOf(byte),
  svn,
  signed,
})
const [CREDIT, PAYROLL] = ['credit-2026', 'payroll-2026'].map(parseFlowId) as [FlowId, FlowId]

test('a policy file lists platforms and images', (t) => {
  const policy = parsePolicy(write({ platforms: [HEX], images: [{ name: 'party', measurement: '01'.repeat(32) }] }))
  t.deepEqual(policy, {
    evidence: ['simulated'],
    platforms: [digestOf(7)],
    images: [{ name: 'party', measurement: digestOf(1), flows: ['*'] }],
    products: [],
    allowDebug: false,
    approvers: [],
    approvals: { change: 0, migration: 1, releases: [] },
    keys: [],
  })
  t.is(findImage(policy, imageOf(1)).name, 'party')
  t.throws(() => findImage(policy, imageOf(2)), { code: 'ERR_POLICY_DENIED', message: /not listed/ })
})

test('debug images get keys only where a policy says so, in so many words', (t) => {
  t.true(parsePolicy(write({ platforms: [], images: [], allowDebug: true })).allowDebug)
  t.false(parsePolicy(write({ platforms: [], images: [], allowDebug: false })).allowDebug)
  for (const allowDebug of ['true', 1, {}])
    t.throws(() => parsePolicy(write({ platforms: [], images: [], allowDebug })), {
      code: 'ERR_CONFIG_INVALID',
      message: /allowDebug/,
    })
  const meant = { platforms: [], images: [], allowDebug: 'no' as unknown as boolean }
  t.false(checkPolicy(meant).allowDebug)
})

test('what is wrong in a policy file is named', (t) => {
  const image = { name: 'party', measurement: HEX }
  const cases: readonly (readonly [text: string, named: RegExp])[] = [
    ['', /JSON/],
    ['null', /policy: an object/],
    ['[]', /policy: an object/],
    [write({ platforms: [] }), /images: a list/],
    [write({ platforms: {}, images: [] }), /platforms: a list/],
    [write({ platforms: [], images: [], image: [] }), /policy: only platforms, images/],
    [write({ platforms: [HEX, HEX.slice(1)], images: [] }), /platforms\[1\]: 64 lower-case/],
    [write({ platforms: [HEX.replace('7', 'G')], images: [] }), /platforms\[0\]/],
    [write({ platforms: [HEX, HEX], images: [] }), /platforms\[1\]: listed twice/],
    [write({ platforms: [], images: [1] }), /images\[0\]: an object/],
    [write({ platforms: [], images: [image, { ...image, svn: 1 }] }), /images\[1\]: only name, measurement, flows/],
    [write({ platforms: [], images: [{ ...image, name: 7 }] }), /images\[0\]\.name/],
    [write({ platforms: [], images: [{ ...image, name: '../x' }] }), /images\[0\]\.name/],
    [write({ platforms: [], images: [{ ...image, name: '' }] }), /images\[0\]\.name/],
    [
      write({ platforms: [], images: [{ ...image, measurement: HEX.toUpperCase().replace('07', '0A') }] }),
      /images\[0\]\.measurement/,
    ],
    [write({ platforms: [], images: [image, { ...image, name: 'other' }] }), /images\[1\]\.measurement: listed twice/],
    [write({ platforms: Array(2000).fill(HEX), images: [] }), /platforms: a list of at most 1024/],
  ]
  for (const [text, named] of cases)
    t.throws(() => parsePolicy(text), { code: 'ERR_CONFIG_INVALID', message: named }, text.slice(0, 80))
})

test('a policy made in code is checked alike, and copied', (t) => {
  t.throws(() => checkPolicy({ platforms: [new Uint8Array(31)], images: [] }), {
    code: 'ERR_CONFIG_INVALID',
    message: /platforms\[0\]/,
  })
  t.throws(() => checkPolicy({ platforms: [], images: [{ name: 'a b', measurement: digestOf(1) }] }), {
    code: 'ERR_CONFIG_INVALID',
  })
  const measurement = digestOf(1)
  const policy = checkPolicy({ platforms: [], images: [{ name: 'party', measurement }] })
  measurement.fill(2)
  t.notThrows(() => findImage(policy, imageOf(1)))
})

const SIGNED = { signer: digestOf(8), productId: 7 }
const PRODUCT = { name: 'party', signer: '08'.repeat(32), productId: 7, svn: 2 }
const APPROVERS = [1, 2, 3].map((byte) => ({ name: `approver-${byte}`, key: `0${byte}`.repeat(32) }))

test('an image is listed for the flows whose patterns its entry has', (t) => {
  t.true(matchesFlow(undefined, CREDIT))
  t.true(matchesFlow(['credit-*'], CREDIT))
  t.true(matchesFlow(['x', 'credit-2026'], CREDIT))
  t.false(matchesFlow(['credit-'], CREDIT))
  t.false(matchesFlow(['payroll-*', 'credit-2026-b'], CREDIT))
  const images = [{ name: 'party', measurement: '01'.repeat(32), flows: ['credit-*'] }]
  const policy = parsePolicy(write({ platforms: [], images }))
  t.is(findImage(policy, imageOf(1), CREDIT).name, 'party')
  t.is(findImage(policy, imageOf(1)).name, 'party')
  t.throws(() => findImage(policy, imageOf(1), PAYROLL), { code: 'ERR_POLICY_DENIED', message: /not for this flow/ })
})

test('a product lists images of its signer and product id, from its SVN on', (t) => {
  const policy = parsePolicy(write({ platforms: [], images: [], products: [{ ...PRODUCT, flows: ['credit-*'] }] }))
  t.is(findImage(policy, imageOf(1, 2, SIGNED), CREDIT).name, 'party')
  t.is(findImage(policy, imageOf(2, 9, SIGNED), CREDIT).name, 'party')
  for (const other of [
    imageOf(1, 1, SIGNED),
    imageOf(1, 2, null),
    imageOf(1, 2, { ...SIGNED, productId: 8 }),
    imageOf(1, 2, { ...SIGNED, signer: digestOf(9) }),
  ])
    t.throws(() => findImage(policy, other, CREDIT), { code: 'ERR_POLICY_DENIED' })
  t.throws(() => findImage(policy, imageOf(1, 2, SIGNED), PAYROLL), { code: 'ERR_POLICY_DENIED' })
})

test('a flow passes to a higher SVN of its product, and to nothing else without a grant', (t) => {
  const policy = parsePolicy(write({ platforms: [], images: [], products: [{ ...PRODUCT, flows: ['credit-*'] }] }))
  const from = imageOf(1, 1, SIGNED)
  t.true(isUpgrade(policy, from, imageOf(2, 2, SIGNED), CREDIT))
  t.false(isUpgrade(policy, from, imageOf(2, 2, SIGNED), PAYROLL))
  t.false(isUpgrade(policy, imageOf(1, 3, SIGNED), imageOf(2, 2, SIGNED), CREDIT))
  t.false(isUpgrade(policy, imageOf(1, 2, SIGNED), imageOf(2, 2, SIGNED), CREDIT))
  t.false(isUpgrade(policy, imageOf(1, 1, null), imageOf(2, 2, SIGNED), CREDIT))
  t.false(isUpgrade(policy, from, imageOf(2, 2, { ...SIGNED, productId: 8 }), CREDIT))
  t.false(isUpgrade(policy, imageOf(1, 0, SIGNED), imageOf(2, 1, SIGNED), CREDIT))
})

test('approvals: how many, for what', (t) => {
  const releases = [
    { flows: ['payroll-*'], count: 2 },
    { flows: ['payroll-2026'], count: 3 },
  ]
  const approvals = { change: 2, releases }
  const policy = parsePolicy(write({ platforms: [], images: [], approvers: APPROVERS, approvals }))
  t.is(releaseCount(policy, PAYROLL), 3)
  t.is(releaseCount(policy, CREDIT), 0)
  t.is(migrationCount(policy), 2)
  t.is(migrationCount({ platforms: [], images: [] }), 1)
})

test('what is wrong with products, flows, approvers and approvals is named', (t) => {
  const withParts = (parts: object): string => write({ platforms: [], images: [], ...parts })
  const cases: readonly (readonly [text: string, named: RegExp])[] = [
    [withParts({ products: [{ ...PRODUCT, svn: -1 }] }), /products\[0\]\.svn: 0 or more/],
    [withParts({ products: [{ ...PRODUCT, productId: 65_536 }] }), /products\[0\]\.productId/],
    [withParts({ products: [{ ...PRODUCT, signer: 'x' }] }), /products\[0\]\.signer/],
    [withParts({ products: [PRODUCT, { ...PRODUCT, svn: 3 }] }), /products\[1\]: listed twice/],
    [withParts({ products: [{ ...PRODUCT, flows: [] }] }), /products\[0\]\.flows: 1 to/],
    [withParts({ products: [{ ...PRODUCT, flows: ['a*b'] }] }), /products\[0\]\.flows\[0\]: a flow/],
    [withParts({ approvers: [...APPROVERS, APPROVERS[0]] }), /approvers\[3\]\.key: listed twice/],
    [withParts({ approvers: [{ name: 'a' }] }), /approvers\[0\]\.key/],
    [withParts({ approvals: { change: 1 } }), /approvals\.change: 0 to 0, the approvers/],
    [withParts({ approvers: APPROVERS, approvals: { change: 4 } }), /approvals\.change: 0 to 3/],
    [withParts({ approvers: APPROVERS, approvals: { migration: 0 } }), /approvals\.migration: 1 to 3/],
    [
      withParts({ approvers: APPROVERS, approvals: { releases: [{ flows: ['*'], count: 0 }] } }),
      /releases\[0\]\.count/,
    ],
    [withParts({ approvers: APPROVERS, approvals: { releases: [{ count: 1 }] } }), /releases\[0\]\.flows: a list/],
    [withParts({ approvals: { changes: 1 } }), /approvals: only change, migration, breakGlass, releases/],
  ]
  for (const [text, named] of cases)
    t.throws(() => parsePolicy(text), { code: 'ERR_CONFIG_INVALID', message: named }, text.slice(0, 90))
  const images = Array.from({ length: 1000 }, (_, index) => ({
    name: 'party',
    measurement: index.toString(16).padStart(64, '0'),
  }))
  t.throws(() => parsePolicy(withParts({ images })), {
    code: 'ERR_CONFIG_INVALID',
    message: /at most 98304 characters/,
  })
})

test('the digest of a policy is of what it says, not of how its file looks', (t) => {
  const full = { platforms: [HEX], images: [], products: [PRODUCT], approvers: APPROVERS, approvals: { change: 2 } }
  const policy = parsePolicy(write(full))
  const again = parsePolicy(
    JSON.stringify({ allowDebug: false, ...full, approvals: { change: 2, migration: 2 } }, undefined, 4),
  )
  t.deepEqual(policyDigest(policy), policyDigest(again))
  t.deepEqual(parsePolicy(formatPolicy(policy)), policy)
  t.notDeepEqual(policyDigest(policy), policyDigest(parsePolicy(write({ ...full, approvals: { change: 1 } }))))
})

test('a policy says which root key a flow has: its first that matches, and root where none does', (t) => {
  const keys = [
    { id: 'payroll', flows: ['payroll-*'] },
    { id: 'tenant-a', flows: ['credit-*'] },
  ]
  const policy = parsePolicy(write({ platforms: [HEX], images: [], keys }))
  t.is(keyIdOf(policy, PAYROLL), 'payroll')
  t.is(keyIdOf(policy, CREDIT), 'tenant-a')
  t.is(keyIdOf(policy, parseFlowId('other')), 'root')
  t.is(keyIdOfName(policy, `${CREDIT}/epoch-1`), 'tenant-a')
  t.is(keyIdOfName(policy, 'loose'), 'root')
  t.deepEqual(parsePolicy(formatPolicy(policy)), policy)
  // A policy without keys has the text, and so the digest, of before there were any.
  t.false(formatPolicy(checkPolicy({ platforms: [], images: [] })).includes('keys'))
  const refusedFor = (claimed: unknown, message: RegExp) =>
    t.throws(() => parsePolicy(write({ platforms: [], images: [], keys: claimed })), {
      code: 'ERR_CONFIG_INVALID',
      message,
    })
  refusedFor([{ id: 'A', flows: ['*'] }], /keys\[0\]\.id/)
  refusedFor([{ id: 'a' }], /keys\[0\]\.flows/)
  refusedFor([{ id: 'a', flows: [] }], /keys\[0\]\.flows/)
  const [change] = diffPolicies(checkPolicy({ platforms: [digestOf(7)], images: [] }), policy)
  t.like(change, { effect: 'notes', text: 'the flows payroll-* would be sealed to the root key payroll' })
})
