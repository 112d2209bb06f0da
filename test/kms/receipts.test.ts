import test from 'ava'
import { SimulatedClock } from '../../faults/index.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { AppendLog, type MakeReceipt } from '../../kms/log.js'
import { Receipts } from '../../kms/receipts.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { parseFlowId } from '../../protocol/names.js'
import { decodeReceiptBody, encodeReceiptBody, firstLink, receiptDigest } from '../../protocol/receipts.js'
import { digestOf } from './attested-client.js'
import { makeFaultyDisk } from '../storage/faulty-disk.js'
import { flowState } from './flow-state.js'

const signer = ed25519Signer(Secret.random(32, nodeRandom))
const identity = signer.publicKey
const flow = parseFlowId('flow-1')
const STATE = flowState()

/** A disk with a ledger, a fault that can be set later, and receipts in that ledger. */
const setUp = async () => {
  const { fs, setFault } = makeFaultyDisk()
  await fs.makeDirectory('/kms')
  await fs.syncDirectory('/')
  await FileLedger.create(fs, '/kms', identity)
  const open = async (sign = signer.sign) => {
    const ledger = await FileLedger.open(fs, '/kms', identity)
    return { ledger, receipts: new Receipts({ ledger, signer: { identity, sign }, clock: new SimulatedClock() }) }
  }
  const kept = async () => {
    const { receipts = [] } = (await FileLedger.inspect(fs, '/kms')) ?? {}
    return receipts.map((receipt) => openReceipt(identity, receipt))
  }
  return { fs, open, kept, setFault }
}
const sequences = (receipts: readonly ({ sequence: number } | undefined)[]) =>
  receipts.map((receipt) => receipt?.sequence)

test('receipts are numbered from 1, each names the digest of the one before, and a restart goes on with them', async (t) => {
  const { fs, open, kept } = await setUp()
  const { receipts } = await open()
  const [first, second] = await Promise.all([
    receipts.record('unlock'),
    receipts.record('denial', { outcome: 'ERR_FENCED', flow, operation: 'commit', evidenceDigest: digestOf(3) }),
  ])
  t.like(openReceipt(identity, first), { ...firstLink(identity), kms: identity, kind: 'unlock', timeMs: 0 })
  t.like(openReceipt(identity, second), { sequence: 2, previous: receiptDigest(first), outcome: 'ERR_FENCED', flow })
  fs.restart()
  const third = await (await open()).receipts.record('seal')
  t.like(openReceipt(identity, third), { sequence: 3, previous: receiptDigest(second) })
  t.deepEqual(sequences(await kept()), [1, 2, 3])
})

test('a receipt and the swap that it is of are there together or not at all', async (t) => {
  const { open, kept, setFault } = await setUp()
  const { ledger, receipts } = await open()
  const draft = () => receipts.draft('open', { flow, incarnation: 0 })
  setFault(({ kind }) => (kind === 'write' ? { fail: 'ENOSPC' } : undefined))
  await t.throwsAsync(ledger.compareAndSwap(flow, undefined, STATE, draft().make), { code: 'ERR_STORE_FULL' })
  setFault(() => undefined)
  t.deepEqual([await ledger.read(flow), await kept()], [undefined, []])
  t.true(await ledger.compareAndSwap(flow, undefined, STATE, draft().make))
  t.false(await ledger.compareAndSwap(flow, undefined, STATE, draft().make))
  t.deepEqual([await ledger.read(flow), sequences(await kept())], [STATE, [1]])
})

test('receipts that could not be written leave no gap: the next ones take their places', async (t) => {
  const { open, kept, setFault } = await setUp()
  const { receipts } = await open()
  await receipts.record('unlock')
  setFault(({ kind }) => (kind === 'write' ? { fail: 'ENOSPC' } : undefined))
  const failed = await Promise.allSettled([receipts.record('backup'), receipts.record('restore')])
  t.deepEqual(
    failed.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  setFault(() => undefined)
  await Promise.all([receipts.record('policy', { digest: digestOf(2) }), receipts.record('seal')])
  t.deepEqual(
    (await kept()).map((receipt) => [receipt?.sequence, receipt?.kind]),
    [
      [1, 'unlock'],
      [2, 'policy'],
      [3, 'seal'],
    ],
  )
})

test('one that cannot be signed, or is too large, fails alone', async (t) => {
  const { open, kept } = await setUp()
  const { receipts, ledger } = await open()
  const noKey = new Receipts({
    ledger,
    signer: {
      identity,
      sign: () => {
        throw new Error('sealed')
      },
    },
    clock: new SimulatedClock(),
  })
  const [wrong, large, right] = await Promise.allSettled([
    noKey.record('seal'),
    receipts.record('approval', { approvers: Array.from({ length: 200 }, () => 'x'.repeat(64)) }),
    receipts.record('unlock'),
  ])
  t.deepEqual([wrong.status, large.status, right.status], ['rejected', 'rejected', 'fulfilled'])
  t.deepEqual(sequences(await kept()), [1])
})

test('more receipts of one moment than a frame holds stand in the order in which they were asked for', async (t) => {
  const { open, kept } = await setUp()
  const { receipts } = await open()
  const reasons = Array.from({ length: 400 }, (_, index) => `${index} ${'x'.repeat(400)}`)
  await Promise.all(reasons.map((reason) => receipts.record('override', { flow, reason })))
  const all = await kept()
  t.deepEqual(
    all.map((receipt) => receipt?.reason),
    reasons,
  )
  t.deepEqual(
    sequences(all),
    reasons.map((_, index) => index + 1),
  )
})

test('a log whose receipts do not follow each other, or whose newest the identity did not sign, is ERR_LEDGER_DAMAGED', async (t) => {
  const stranger = ed25519Signer(Secret.random(32, nodeRandom))
  const odd: [what: string, spoil: (make: MakeReceipt) => MakeReceipt, sign?: typeof signer.sign][] = [
    ['a number left out', (make) => (link) => make({ ...link, sequence: link.sequence + 1 })],
    ['another before it', (make) => (link) => make({ ...link, previous: digestOf(0) })],
    ['a stranger’s', (make) => make, stranger.sign],
    ['no receipt', () => () => digestOf(1)],
  ]
  for (const [what, spoil, sign] of odd) {
    const { fs, open } = await setUp()
    const { ledger, receipts } = await open(sign)
    await ledger.record(spoil(receipts.draft('unlock', {}).make))
    await ledger.close()
    await t.throwsAsync(FileLedger.inspect(fs, '/kms'), { code: 'ERR_LEDGER_DAMAGED' }, what)
  }
})

test('a ledger can begin with a receipt', async (t) => {
  const { fs, open, kept } = await setUp()
  const { receipts } = await open()
  await FileLedger.create(fs, '/kms', identity, receipts.draft('init', { key: 'root@1' }).make)
  t.deepEqual(await kept(), [{ ...firstLink(identity), kms: identity, timeMs: 0, kind: 'init', key: 'root@1' }])
})

test('every field of a receipt is read back as it was written, and a body with another field is refused', (t) => {
  const receipt = {
    ...firstLink(identity),
    kms: identity,
    timeMs: 5,
    kind: 'unwrap' as const,
    outcome: 'ERR_ENVELOPE_INVALID' as const,
    flow,
    epoch: 3,
    headDigest: digestOf(1),
    incarnation: 2,
    measurement: digestOf(2),
    evidenceDigest: digestOf(3),
    requestDigest: digestOf(4),
    operation: 'unwrap',
    itemCount: 2,
    openedCount: 1,
    openedDigest: digestOf(5),
    key: 'root@2',
    state: 'disabled',
    digest: digestOf(6),
    reason: 'why',
    approvers: ['anna', 'bo'],
    counts: { ERR_FENCED: 2 },
  }
  t.deepEqual(decodeReceiptBody(encodeReceiptBody(receipt)), receipt)
  const odd: object[] = [
    { more: 1 },
    { kind: 'other' },
    { outcome: 'ERR_OTHER' },
    { sequence: 0 },
    { counts: { other: 1 } },
    { counts: [] },
    { approvers: [1] },
    { epoch: -1 },
    { previous: digestOf(1).subarray(1) },
  ]
  for (const changes of odd) {
    const body = encodeReceiptBody({ ...receipt, ...changes })
    t.throws(() => decodeReceiptBody(body), { code: 'ERR_REQUEST_INVALID' }, Object.keys(changes).join())
  }
})

test('the file that a log is read from is untouched where its records are refused', async (t) => {
  const { fs } = await setUp()
  const refuse = () => {
    throw new Error('refused')
  }
  await t.throwsAsync(AppendLog.open(fs, '/kms', LEDGER_NAME, refuse), { message: 'refused' })
  await t.notThrowsAsync(FileLedger.open(fs, '/kms', identity))
})
