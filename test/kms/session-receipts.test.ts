import test from 'ava'
import { parseHeader } from '../../protocol/age-header.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { parseFlowId } from '../../protocol/names.js'
import { digestOfItems } from '../../protocol/receipts.js'
import { digestOf, newestKey, sealToKms } from './attested-client.js'
import { receiptsIn } from './receipts-in.js'
import { IMAGE, OTHER_IMAGE, startInProcess, UNLISTED_IMAGE } from './in-process.js'
import { makeFaultyDisk } from '../storage/faulty-disk.js'

type Kms = Awaited<ReturnType<typeof startInProcess>>

const receiptsOf = ({ fs }: Pick<Kms, 'fs'>) => receiptsIn(fs, '/kms')
const headerOf = (envelope: Bytes): Bytes => copyBytes(envelope.subarray(0, parseHeader(envelope).sizeBytes))

test('every release leaves a receipt, which its answer carries: of the request, the evidence, the image, the state and what opened', async (t) => {
  const kms = await startInProcess()
  const client = await kms.connect()
  const opened = await client.open()
  await client.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false })
  const head = { epoch: 1, digest: digestOf(5) }
  await client.call({ op: 'commit', incarnation: 1, parent: null, head })
  const { encryptionKey } = newestKey(opened)
  const envelope = sealToKms(digestOf(7), { encryptionKey, origin: client.origin, image: IMAGE })
  const [header, damaged] = [headerOf(envelope), new Uint8Array(80)]
  const unwrap = await client.call({ op: 'unwrap', headers: [header, damaged] })
  const item = { header, nonce: copyBytes(digestOf(1).subarray(0, 16)), sizeBytes: 10 }
  const stream = await client.call({ op: 'stream', items: [item], done: [] })
  const nothing = await client.call({ op: 'unwrap', headers: [damaged] })
  const destroy = await client.call({ op: 'destroy', incarnation: 1 })
  const all = await receiptsOf(kms)
  t.deepEqual(
    all.map(({ kind, incarnation, epoch }) => [kind, incarnation, epoch]),
    [
      ['open', 0, undefined],
      ['claim', 1, undefined],
      ['unwrap', 1, 1],
      ['stream', 1, 1],
      ['unwrap', 1, 1],
      ['destroy', 1, 1],
    ],
  )
  for (const [index, answer] of [unwrap, stream, nothing, destroy].entries()) {
    const receipt = openReceipt(kms.keyring.identity, answer.reply.receipt)
    t.deepEqual(receipt, all[2 + index])
    t.like(receipt, { flow: parseFlowId('flow-1'), measurement: IMAGE, headDigest: head.digest })
    t.deepEqual(receipt?.requestDigest, sha256(answer.request))
    t.deepEqual(receipt?.evidenceDigest, all[0]?.evidenceDigest)
  }
  const ofHeader = { openedCount: 1, openedDigest: digestOfItems([header]) }
  t.like(all[2], { itemCount: 2, ...ofHeader, outcome: undefined })
  t.like(all[3], { itemCount: 1, ...ofHeader })
  t.like(all[4], { itemCount: 1, openedCount: 0, openedDigest: digestOfItems([]), outcome: 'ERR_ENVELOPE_INVALID' })
})

test('nothing is released whose receipt is not durable', async (t) => {
  const { fs, setFault } = makeFaultyDisk()
  const kms = await startInProcess({ fs })
  const client = await kms.connect()
  const { encryptionKey } = newestKey(await client.open())
  const header = headerOf(sealToKms(digestOf(7), { encryptionKey, origin: client.origin, image: IMAGE }))
  const item = { header, nonce: copyBytes(digestOf(1).subarray(0, 16)), sizeBytes: 10 }
  setFault(({ kind }) => (kind === 'write' ? { fail: 'ENOSPC' } : undefined))
  for (const release of [
    () => client.open(),
    () => client.call({ op: 'unwrap', headers: [header] }),
    () => client.call({ op: 'stream', items: [item], done: [] }),
    () => client.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false }),
  ])
    await t.throwsAsync(release, { code: 'ERR_KMS_FAILED' })
  t.true(kms.events.some(({ code }) => code === 'ERR_STORE_FULL'))
  setFault(() => undefined)
  t.is((await client.call({ op: 'unwrap', headers: [header] })).secrets.length, 16)
  t.deepEqual(
    (await receiptsOf(kms)).map(({ kind, sequence }) => [kind, sequence]),
    [
      ['open', 1],
      ['unwrap', 2],
    ],
  )
})

test('a denial leaves a receipt with its code and what was asked for; a request that is malformed leaves none', async (t) => {
  const kms = await startInProcess()
  const first = await kms.connect()
  await first.launch()
  const second = await kms.connect()
  await second.open()
  await second.call({ op: 'claim', head: null, incarnation: 1, adopt: null, stale: false })
  const head = { epoch: 1, digest: digestOf(5) }
  await t.throwsAsync(first.call({ op: 'commit', incarnation: 1, parent: null, head }), { code: 'ERR_FENCED' })
  const adopt = { epoch: 7, digest: digestOf(5), incarnation: 2 }
  await t.throwsAsync(second.call({ op: 'claim', head: null, incarnation: 2, adopt, stale: false }), {
    code: 'ERR_FORK',
  })
  await t.throwsAsync(kms.connect({ image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(kms.connect({ claims: { debug: true } }), { code: 'ERR_EVIDENCE_REFUSED' })
  const other = await kms.connect({ image: OTHER_IMAGE })
  await t.throwsAsync(other.open(), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(other.call({ op: 'roster' }), { code: 'ERR_REQUEST_INVALID' })
  await second.call({ op: 'destroy', incarnation: 2 })
  await t.throwsAsync(second.call({ op: 'unwrap', headers: [] }), { code: 'ERR_FLOW_DESTROYED' })
  const denials = (await receiptsOf(kms)).filter(({ kind }) => kind === 'denial')
  t.deepEqual(
    denials.map(({ outcome, operation, flow, measurement }) => [outcome, operation, flow, measurement?.[0]]),
    [
      ['ERR_FENCED', 'commit', parseFlowId('flow-1'), 1],
      ['ERR_FORK', 'claim', parseFlowId('flow-1'), 1],
      ['ERR_POLICY_DENIED', 'handshake', undefined, 3],
      ['ERR_EVIDENCE_REFUSED', 'handshake', undefined, undefined],
      ['ERR_POLICY_DENIED', 'open', undefined, 2],
      ['ERR_FLOW_DESTROYED', 'unwrap', parseFlowId('flow-1'), 1],
    ],
  )
  t.true(denials.every(({ evidenceDigest }) => evidenceDigest !== undefined))
})

test('denials that come too fast are counted, and the next receipt says how many: a stranger cannot fill the disk, nor hide an enclave’s', async (t) => {
  const kms = await startInProcess()
  const stranger = () => t.throwsAsync(kms.connect({ image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
  const kinds = async () => (await receiptsOf(kms)).map(({ kind }) => kind)
  for (let count = 0; count < 40; count++) await stranger()
  t.deepEqual(await kinds(), Array<string>(32).fill('denial'))
  // One of an enclave is still told apart.
  const other = await kms.connect()
  await other.launch()
  await t.throwsAsync(other.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false }), {
    code: 'ERR_LEDGER_CONFLICT',
  })
  t.is((await receiptsOf(kms)).at(-1)?.outcome, 'ERR_LEDGER_CONFLICT')
  await kms.clock.advance(60_000)
  await stranger()
  await stranger()
  t.like((await receiptsOf(kms)).at(-1), { kind: 'denials', counts: { ERR_POLICY_DENIED: 9 } })
  await kms.clock.advance(120_000)
  await stranger()
  await stranger()
  t.like((await receiptsOf(kms)).at(-1), { kind: 'denial', outcome: 'ERR_POLICY_DENIED' })
  await stranger()
  await kms.service.close()
  t.like((await receiptsOf(kms)).at(-1), { kind: 'denials', counts: { ERR_POLICY_DENIED: 1 } })
})

test('a denial is answered where its receipt cannot be written', async (t) => {
  const { fs, setFault } = makeFaultyDisk()
  const kms = await startInProcess({ fs })
  setFault(({ kind }) => (kind === 'write' ? { fail: 'ENOSPC' } : undefined))
  await t.throwsAsync(kms.connect({ image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
  t.true(kms.events.some(({ code }) => code === 'ERR_STORE_FULL'))
})
