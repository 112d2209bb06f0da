import test from 'ava'
import { MemoryFileSystem, SimulatedClock } from '../../faults/index.js'
import type { PolicyChange } from '../../kms/approvals.js'
import { FileLedger } from '../../kms/file-ledger.js'
import { openKms } from '../../kms/open-kms.js'
import { createKms, prepareDirectory } from '../../kms/place.js'
import { checkPolicy, formatPolicy, policyDigest } from '../../kms/policy-file.js'
import type { Policy } from '../../kms/policy.js'
import { InlineUnsealer } from '../../kms/unseal.js'
import { splitReceipt, decodeReceiptBody } from '../../protocol/receipts.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { ANNA, approve, BEN, CARL } from './approvers.js'
import { digestOf } from './attested-client.js'

const approvers = [ANNA, BEN].map(({ name, key }) => ({ name, key }))
const FIRST: Policy = { platforms: [digestOf(9)], images: [], approvers, approvals: { change: 2 } }
const SECOND: Policy = { ...FIRST, images: [{ name: 'party', measurement: digestOf(1) }] }
const place = { directory: '/kms' }

/** A KMS that is started with one policy after another, on a simulated disk. */
const setUp = async () => {
  const fs = new MemoryFileSystem()
  const clock = new SimulatedClock()
  await prepareDirectory(fs, '/kms')
  const passphrase = () => Secret.take(digestOf(3))
  const { identity } = await createKms({ place, passphrase: passphrase(), fs, random: nodeRandom, logN: 1 })
  const start = (policy: Policy) =>
    openKms({
      place,
      passphrase: passphrase(),
      fs,
      policy,
      clock,
      random: nodeRandom,
      startUnsealer: (keys) => Promise.resolve(new InlineUnsealer(keys)),
    })
  const changeOf = (from: Policy, to: Policy): PolicyChange => ({
    kind: 'policy-change',
    kms: identity,
    from: policyDigest(checkPolicy(from)),
    to: policyDigest(checkPolicy(to)),
  })
  const inForce = async () => (await FileLedger.inspect(fs, '/kms'))?.policy
  const receipts = async () =>
    ((await FileLedger.inspect(fs, '/kms'))?.receipts ?? []).map((receipt) =>
      decodeReceiptBody(splitReceipt(receipt).body),
    )
  return { start, changeOf, inForce, receipts }
}

test('the first policy is the operator’s own; another needs the approvals that the one in force asks for', async (t) => {
  const { start, changeOf, inForce, receipts } = await setUp()
  const kms = await start(FIRST)
  t.is(await inForce(), formatPolicy(checkPolicy(FIRST)))
  const useless = [
    approve(changeOf(FIRST, SECOND), ANNA),
    approve(changeOf(FIRST, SECOND), ANNA, CARL),
    approve(changeOf(FIRST, { ...SECOND, allowDebug: true }), ANNA, BEN),
    approve({ ...changeOf(FIRST, SECOND), kms: digestOf(4) }, ANNA, BEN),
  ]
  for (const approved of useless) await kms.approve(approved)
  await kms.close()
  await t.throwsAsync(start(SECOND), { code: 'ERR_APPROVAL_NEEDED', message: /1 of 2 approvals/ })
  t.is(await inForce(), formatPolicy(checkPolicy(FIRST)))
  const again = await start(FIRST)
  t.deepEqual(await again.approve(approve(changeOf(FIRST, SECOND), ANNA, BEN)), ['anna', 'ben'])
  await again.close()
  await (await start(SECOND)).close()
  t.is(await inForce(), formatPolicy(checkPolicy(SECOND)))
  t.like((await receipts()).at(-1), {
    kind: 'policy',
    digest: policyDigest(checkPolicy(SECOND)),
    approvers: ['anna', 'ben'],
  })
  // What let the change happen does not let it happen backwards.
  await t.throwsAsync(start(FIRST), { code: 'ERR_APPROVAL_NEEDED', message: /0 of 2/ })
})

test('a policy that asks for no approvals is changed by its operator alone, and each change leaves a receipt', async (t) => {
  const { start, receipts } = await setUp()
  const open = { platforms: [], images: [] }
  for (const policy of [open, SECOND]) await (await start(policy)).close()
  t.is((await receipts()).filter(({ kind }) => kind === 'policy').length, 2)
  await (await start(SECOND)).close()
  t.is((await receipts()).filter(({ kind }) => kind === 'policy').length, 2)
})

test('a KMS that runs takes another policy on the same conditions, and what is refused changes nothing', async (t) => {
  const { start, changeOf, inForce, receipts } = await setUp()
  const kms = await start(FIRST)
  await t.throwsAsync(kms.changePolicy(SECOND), { code: 'ERR_APPROVAL_NEEDED', message: /0 of 2 approvals/ })
  await kms.approve(approve(changeOf(FIRST, SECOND), ANNA, BEN))
  await t.throwsAsync(kms.changePolicy({ ...SECOND, keys: [{ id: 'tenant', flows: ['a-*'] }] }), {
    code: 'ERR_KEY_UNKNOWN',
  })
  await t.throwsAsync(kms.changePolicy({ ...SECOND, evidence: ['unheard-of'] }), { code: 'ERR_CONFIG_INVALID' })
  t.is(await inForce(), formatPolicy(checkPolicy(FIRST)))
  const digest = policyDigest(checkPolicy(SECOND))
  t.deepEqual(await kms.changePolicy(SECOND), digest)
  t.is(await inForce(), formatPolicy(checkPolicy(SECOND)))
  t.like((await receipts()).at(-1), { kind: 'policy', digest, approvers: ['anna', 'ben'] })
  // The approvers that count are those of the policy that is in force now.
  await t.throwsAsync(kms.changePolicy(FIRST), { code: 'ERR_APPROVAL_NEEDED', message: /0 of 2/ })
  await kms.close()
  await (await start(SECOND)).close()
})
