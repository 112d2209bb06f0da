import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import type { BreakGlassApproval } from '../../kms/approvals.js'
import { breakGlass } from '../../kms/break-glass.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { createKms, prepareDirectory } from '../../kms/place.js'
import { checkPolicy, formatPolicy } from '../../kms/policy-file.js'
import type { ApprovalCounts } from '../../kms/policy.js'
import { equalPublicBytes } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { ANNA, approve, BEN, CARL } from './approvers.js'
import { digestOf } from './attested-client.js'
import { receiptsIn } from './receipts-in.js'

const HOUR_MS = 60 * 60 * 1000
const REASON = 'fire in both data centres'
const place = { directory: '/kms' }

/** A KMS on a simulated disk, with a policy whose approvers are anna and ben. */
const setUp = async (approvals: ApprovalCounts) => {
  const fs = new MemoryFileSystem()
  const clock = new SimulatedClock(Date.UTC(2026, 0, 1))
  await prepareDirectory(fs, '/kms')
  const passphrase = Secret.take(digestOf(3))
  const { identity } = await createKms({ place, passphrase, fs, clock, random: nodeRandom, logN: 1 })
  const ledger = await FileLedger.open(fs, '/kms', identity)
  const approvers = [ANNA, BEN].map(({ name, key }) => ({ name, key }))
  await ledger.setPolicy(formatPolicy(checkPolicy({ platforms: [], images: [], approvers, approvals })), null)
  const asked: Uint8Array[] = []
  const run = async (reason = REASON) => {
    const confirm = (named: Uint8Array) => {
      asked.push(named)
      return Promise.resolve()
    }
    const broken = await breakGlass({ place, passphrase, fs, clock, reason, confirm })
    broken.identities[Symbol.dispose]()
    return broken
  }
  const request: BreakGlassApproval = {
    kind: 'break-glass',
    kms: identity,
    reason: REASON,
    notAfterMs: clock.nowMs() + HOUR_MS,
  }
  return { fs, clock, identity, ledger, asked, request, run }
}

test('the glass breaks when as many approvers as the policy asks for have signed it for this reason, and the receipt names them', async (t) => {
  const { fs, clock, identity, ledger, asked, request, run } = await setUp({ change: 0, breakGlass: 2 })
  const useless = [
    approve(request, ANNA),
    approve(request, ANNA, CARL),
    approve({ ...request, reason: 'another' }, ANNA, BEN),
    approve({ ...request, kms: digestOf(4) }, ANNA, BEN),
    approve({ ...request, notAfterMs: clock.nowMs() - 1 }, ANNA, BEN),
    { request, approvals: approve({ ...request, reason: 'another' }, ANNA, BEN).approvals },
  ]
  for (const approved of useless) {
    await ledger.addApproved(approved)
    await t.throwsAsync(run(), { code: 'ERR_APPROVAL_NEEDED', message: /of 2 approvals/ })
  }
  // Nobody was asked, nothing was written, and a KMS that runs has its ledger still.
  t.is(asked.length, 0)
  t.false((await receiptsIn(fs, '/kms')).some(({ kind }) => kind === 'break-glass'))
  await ledger.addApproved(approve(request, ANNA, BEN))
  const { receipt, keys } = await run()
  t.like(receipt, { kind: 'break-glass', reason: REASON, approvers: ['anna', 'ben'] })
  t.deepEqual(keys, ['root@1'])
  t.true(asked.length === 1 && asked.every((named) => equalPublicBytes(named, identity)))
  await t.throwsAsync(ledger.confirm(), { code: 'ERR_LEDGER_TAKEN' })
  await t.throwsAsync(run('something else'), { code: 'ERR_APPROVAL_NEEDED' })
  await clock.advance(2 * HOUR_MS)
  await t.throwsAsync(run(), { code: 'ERR_APPROVAL_NEEDED' })
})

test('as many approvers as for a change unless the policy says otherwise; none where it asks for none', async (t) => {
  await t.throwsAsync((await setUp({ change: 1 })).run(), { code: 'ERR_APPROVAL_NEEDED', message: /0 of 1/ })
  for (const approvals of [{ change: 2, breakGlass: 0 }, { change: 0 }])
    t.deepEqual((await (await setUp(approvals)).run()).receipt.approvers, [])
})
