import test from 'ava'
import type { MigrationGrant, ReleaseApproval } from '../../kms/approvals.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { parseFlowId } from '../../protocol/names.js'
import { approve, ANNA, BEN, CARL } from './approvers.js'
import type { AttestedClient } from './attested-client.js'
import { digestOf, newestKey, sealToKms } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'
import { headOf } from './flow-state.js'

const FLOW = parseFlowId('flow-1')
const HOUR_MS = 3_600_000
const SIGNED = { signer: digestOf(8), productId: 7 }
const [OLD, NEW] = [digestOf(21), digestOf(22)]
const PRODUCT = { name: 'credit', ...SIGNED, svn: 1 }
const approvers = [ANNA, BEN, CARL].map(({ name, key }) => ({ name, key }))

type Kms = Awaited<ReturnType<typeof startInProcess>>

/** An instance of an image of the product. */
const ofProduct = (kms: Kms, image: typeof OLD, svn: number): Promise<AttestedClient> =>
  kms.connect({ image, claims: { svn, signed: SIGNED } })

/** A flow that `image` has opened, claimed and committed to. */
const begin = async (client: AttestedClient): Promise<void> => {
  await client.launch()
  await client.call({ op: 'commit', incarnation: 1, parent: null, head: headOf(1) })
}

const grantOf = ({ keyring, clock }: Kms, changes: Partial<MigrationGrant> = {}): MigrationGrant => ({
  kind: 'migration',
  kms: keyring.identity,
  flows: ['flow-*'],
  from: IMAGE,
  to: { measurement: OTHER_IMAGE },
  notAfterMs: clock.nowMs() + HOUR_MS,
  ...changes,
})

test('a later version of the product takes a flow over, opens what the earlier one sealed, and has it with its first commit', async (t) => {
  const kms = await startInProcess({ policy: { images: [], products: [PRODUCT] } })
  const old = await ofProduct(kms, OLD, 1)
  await begin(old)
  const envelope = sealToKms(Uint8Array.of(1, 2, 3), {
    encryptionKey: newestKey(await old.open()).encryptionKey,
    origin: old.origin,
    image: OLD,
  })
  const client = await ofProduct(kms, NEW, 2)
  const { reply, secrets } = await client.call({ op: 'open', flow: FLOW, task: parseFlowId('task-1'), holds: 0 })
  t.deepEqual(reply.migratesFrom, { image: OLD, svn: 1 })
  t.is(secrets.length, 64)
  const claimed = await client.call({ op: 'claim', head: reply.head, incarnation: 1, adopt: null, stale: false })
  t.is(claimed.reply.incarnation, 2)
  t.like((await client.call({ op: 'unwrap', headers: [envelope] })).reply.items, [{ error: null }])
  // Until the commit the earlier image may still go on.
  t.is((await (await ofProduct(kms, OLD, 1)).open()).migratesFrom, null)
  const commit = { op: 'commit', incarnation: 2, parent: headOf(1), head: headOf(2) } as const
  const { request, reply: committed } = await client.call(commit)
  t.like(openReceipt(kms.keyring.identity, committed.receipt ?? new Uint8Array(0)), {
    ...{ kind: 'migration', flow: FLOW, measurement: NEW, incarnation: 2, epoch: 2 },
    requestDigest: sha256(request),
  })
  // Nothing is taken over a second time.
  t.is((await client.call(commit)).reply.receipt, null)
  t.is((await client.call({ ...commit, parent: headOf(2), head: headOf(3) })).reply.receipt, null)
  const again = await ofProduct(kms, NEW, 2)
  t.like(await again.open(), { migratesFrom: null, predecessors: [OLD], head: headOf(3) })
  t.like((await again.call({ op: 'unwrap', headers: [envelope] })).reply.items, [{ error: 'ERR_ENVELOPE_INVALID' }])
  await t.throwsAsync((await ofProduct(kms, OLD, 1)).open(), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(old.call({ op: 'unwrap', headers: [envelope] }), { code: 'ERR_POLICY_DENIED' })
})

test('no earlier, equal or foreign version takes a flow over, nor one that the policy lists for other flows', async (t) => {
  const kms = await startInProcess({ policy: { images: [], products: [{ ...PRODUCT, flows: ['flow-1'] }] } })
  await begin(await ofProduct(kms, OLD, 2))
  const refused = async (claims: object) =>
    t.throwsAsync((await kms.connect({ image: NEW, claims })).open(), { code: 'ERR_POLICY_DENIED' })
  for (const svn of [1, 2]) await refused({ svn, signed: SIGNED })
  const other = { ...PRODUCT, productId: 8 }
  const both = await startInProcess({ ...kms, policy: { images: [], products: [PRODUCT, other] } })
  const client = await both.connect({ image: NEW, claims: { svn: 3, signed: { ...SIGNED, productId: 8 } } })
  await t.throwsAsync(client.open(), { code: 'ERR_POLICY_DENIED' })
})

test('a grant that enough approvers signed lets one image take over from another; any other lets nothing happen', async (t) => {
  const kms = await startInProcess({ policy: { approvers, approvals: { change: 2 } } })
  await begin(await kms.connect())
  const open = async () => (await kms.connect({ image: OTHER_IMAGE })).open()
  const grant = grantOf(kms)
  const useless = [
    approve(grant, ANNA),
    approve(grant, ANNA, ANNA),
    { ...approve({ ...grant, from: NEW }, ANNA, BEN), request: grant },
    approve({ ...grant, from: NEW }, ANNA, BEN),
    approve({ ...grant, to: { measurement: NEW } }, ANNA, BEN),
    approve({ ...grant, to: { ...SIGNED, svn: 1 } }, ANNA, BEN),
    approve({ ...grant, flows: ['other-*'] }, ANNA, BEN),
    approve({ ...grant, kms: digestOf(3) }, ANNA, BEN),
    approve({ ...grant, notAfterMs: kms.clock.nowMs() - 1 }, ANNA, BEN),
  ]
  for (const approved of useless) {
    await kms.ledger.addApproved(approved)
    await t.throwsAsync(open(), { code: 'ERR_POLICY_DENIED' })
  }
  await kms.ledger.addApproved(approve(grant, CARL, ANNA))
  t.deepEqual((await open()).migratesFrom, { image: IMAGE, svn: 1 })
  await kms.clock.advance(HOUR_MS + 1)
  await t.throwsAsync(open(), { code: 'ERR_POLICY_DENIED' })
})

test('a grant to a product counts for its versions from an SVN on', async (t) => {
  const policy = { images: [{ name: 'party', measurement: IMAGE }], products: [PRODUCT], approvers }
  const kms = await startInProcess({ policy })
  await begin(await kms.connect())
  await kms.ledger.addApproved(approve(grantOf(kms, { to: { ...SIGNED, svn: 3 } }), ANNA))
  await t.throwsAsync((await ofProduct(kms, NEW, 2)).open(), { code: 'ERR_POLICY_DENIED' })
  t.like(await (await ofProduct(kms, NEW, 3)).open(), { migratesFrom: { image: IMAGE } })
})

const sensitive = { approvers, approvals: { change: 0, releases: [{ flows: ['flow-*'], count: 2 }] } }
const releaseOf = ({ keyring, clock }: Kms, changes: Partial<ReleaseApproval> = {}): ReleaseApproval => ({
  kind: 'release',
  kms: keyring.identity,
  flow: FLOW,
  incarnation: 2,
  measurement: IMAGE,
  notAfterMs: clock.nowMs() + HOUR_MS,
  ...changes,
})

test('a sensitive flow begins without approvals, and each recovery of it waits for as many as the policy asks for', async (t) => {
  const kms = await startInProcess({ policy: sensitive })
  await begin(await kms.connect())
  const open = async () => (await kms.connect()).open()
  await t.throwsAsync(open(), { code: 'ERR_APPROVAL_NEEDED' })
  t.regex(kms.events.at(-1)?.detail ?? '', /flow-1 as incarnation 2 by (01){32}: 0 of 2 approvals/)
  const release = releaseOf(kms)
  const useless = [
    approve(release, BEN),
    approve({ ...release, incarnation: 9 }, ANNA, BEN),
    approve({ ...release, measurement: OTHER_IMAGE }, ANNA, BEN),
    approve({ ...release, flow: parseFlowId('flow-2') }, ANNA, BEN),
    approve({ ...release, kms: digestOf(3) }, ANNA, BEN),
    approve({ ...release, notAfterMs: kms.clock.nowMs() - 1 }, ANNA, BEN),
  ]
  for (const approved of useless) {
    await kms.ledger.addApproved(approved)
    await t.throwsAsync(open(), { code: 'ERR_APPROVAL_NEEDED' })
  }
  await kms.ledger.addApproved(approve(release, ANNA, BEN))
  const client = await kms.connect()
  const { head } = await client.open()
  await client.call({ op: 'claim', head, incarnation: 1, adopt: null, stale: false })
  await client.call({ op: 'commit', incarnation: 2, parent: head, head: headOf(2) })
  // Replayed, it is for an incarnation that there is already.
  await t.throwsAsync(open(), { code: 'ERR_APPROVAL_NEEDED' })
})

test('an instance that holds a sensitive flow opens a new session without approvals; one that was overtaken is fenced', async (t) => {
  const kms = await startInProcess({ policy: sensitive })
  await begin(await kms.connect())
  const reopen = async (holds: number) =>
    (await kms.connect()).call({ op: 'open', flow: FLOW, task: parseFlowId('task-1'), holds })
  t.is((await reopen(1)).reply.incarnation, 1)
  await kms.ledger.addApproved(approve(releaseOf(kms), ANNA, BEN))
  const client = await kms.connect()
  const { head } = await client.open()
  await client.call({ op: 'claim', head, incarnation: 1, adopt: null, stale: false })
  await t.throwsAsync(reopen(1), { code: 'ERR_FENCED' })
  t.is((await reopen(2)).reply.incarnation, 2)
})

test('a session from before a sensitive flow’s first commit opens nothing of it afterwards', async (t) => {
  const kms = await startInProcess({ policy: sensitive })
  const early = await kms.connect()
  await early.open()
  await begin(await kms.connect())
  await t.throwsAsync(early.call({ op: 'unwrap', headers: [] }), { code: 'ERR_APPROVAL_NEEDED' })
})

test('grants and releases are there after a restart, and a policy that has lost an approver counts without', async (t) => {
  const kms = await startInProcess({ policy: sensitive })
  await begin(await kms.connect())
  await kms.ledger.addApproved(approve(releaseOf(kms), ANNA, BEN))
  await kms.ledger.close()
  const later = await startInProcess({ ...kms, policy: sensitive })
  t.like(await (await later.connect()).open(), { incarnation: 1 })
  const fewer = { ...sensitive, approvers: approvers.filter(({ name }) => name !== 'ben') }
  const last = await startInProcess({ ...kms, policy: fewer })
  await t.throwsAsync((await last.connect()).open(), { code: 'ERR_APPROVAL_NEEDED' })
})
