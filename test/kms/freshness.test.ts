import test from 'ava'
import { FlowDesk } from '../../kms/flow-desk.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { parseFlowId } from '../../protocol/names.js'
import { encodeAcknowledgement, type Acknowledged } from '../../protocol/statements.js'
import { digestOf } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'

const headOf = (epoch: number, byte = epoch) => ({ epoch, digest: digestOf(byte) })

test('commits move the head by one; a repeat of the recorded one succeeds', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  const incarnation = await client.launch()
  const commit = (parent: number, head: number, byte?: number) =>
    client.call({ op: 'commit', incarnation, parent: parent === 0 ? null : headOf(parent), head: headOf(head, byte) })
  await t.notThrowsAsync(commit(0, 1))
  await t.notThrowsAsync(commit(0, 1))
  await t.notThrowsAsync(commit(1, 2))
  await t.throwsAsync(commit(0, 1), { code: 'ERR_LEDGER_CONFLICT' })
  await t.throwsAsync(commit(1, 2, 9), { code: 'ERR_LEDGER_CONFLICT' })
  await t.throwsAsync(commit(2, 4), { code: 'ERR_REQUEST_INVALID' })
  t.deepEqual((await client.open()).head, headOf(2))
})

test('a claim and a commit are acknowledged under the KMS identity, over exactly what the ledger then holds', async (t) => {
  const { connect, keyring, fs } = await startInProcess()
  const client = await connect()
  const isSigned = (signature: Uint8Array, acknowledged: Acknowledged, flow = 'flow-1'): boolean =>
    verifyEd25519(keyring.identity, encodeAcknowledgement(parseFlowId(flow), acknowledged), signature)
  await client.open()
  const claimed = (await client.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false })).reply
  t.true(isSigned(claimed.acknowledgement, { head: null, incarnation: 1 }))
  const commit = { op: 'commit', incarnation: 1, parent: null, head: headOf(1) } as const
  const { acknowledgement } = (await client.call(commit)).reply
  t.true(isSigned(acknowledgement, { head: headOf(1), incarnation: 1 }))
  for (const other of [
    { head: null, incarnation: 1 },
    { head: headOf(1), incarnation: 2 },
    { head: headOf(1, 9), incarnation: 1 },
    { head: headOf(2, 1), incarnation: 1 },
  ])
    t.false(isSigned(acknowledgement, other))
  t.false(isSigned(acknowledgement, { head: headOf(1), incarnation: 1 }, 'flow-2'))
  t.deepEqual((await client.call(commit)).reply.acknowledgement, acknowledgement)
  const adopt = { ...headOf(2), incarnation: 1 }
  const adopted = (await client.call({ op: 'claim', head: headOf(1), incarnation: 1, adopt, stale: false })).reply
  t.true(isSigned(adopted.acknowledgement, { head: headOf(2), incarnation: 2 }))
  const restarted = await startInProcess({ fs, keyring })
  t.like(await restarted.ledger.read(parseFlowId('flow-1')), { head: headOf(2), incarnation: 2 })
})

test('the newest claim holds the flow: the older instance is fenced', async (t) => {
  const { connect } = await startInProcess()
  const older = await connect()
  await older.launch()
  await older.call({ op: 'commit', incarnation: 1, parent: null, head: headOf(1) })
  const newer = await connect()
  t.is(await newer.launch(), 2)
  await t.throwsAsync(older.call({ op: 'commit', incarnation: 1, parent: headOf(1), head: headOf(2) }), {
    code: 'ERR_FENCED',
  })
  await t.throwsAsync(older.call({ op: 'commit', incarnation: 1, parent: null, head: headOf(1) }), {
    code: 'ERR_FENCED',
  })
  await t.throwsAsync(older.call({ op: 'destroy', incarnation: 1 }), { code: 'ERR_FENCED' })
  await t.notThrowsAsync(newer.call({ op: 'commit', incarnation: 2, parent: headOf(1), head: headOf(2) }))
})

test('an instance cannot name an incarnation that was never issued', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  await client.launch()
  for (const incarnation of [0, 2, 3]) {
    await t.throwsAsync(client.call({ op: 'commit', incarnation, parent: null, head: headOf(1) }), {
      code: 'ERR_REQUEST_INVALID',
    })
  }
})

test('of two claims at once, one wins', async (t) => {
  const { connect } = await startInProcess()
  const clients = [await connect(), await connect(), await connect()]
  for (const client of clients) await client.open()
  const claims = await Promise.allSettled(
    clients.map((client) => client.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false })),
  )
  t.deepEqual(claims.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected'])
  for (const claim of claims) if (claim.status === 'rejected') t.like(claim.reason, { code: 'ERR_LEDGER_CONFLICT' })
})

test('of two that read one state before either writes, one wins', async (t) => {
  const { connect, ledger, service, keyring, clock } = await startInProcess()
  await (await connect()).open()
  const image = { measurement: IMAGE, svn: 1, signed: null }
  const policy = { platforms: [], images: [{ name: 'party', measurement: IMAGE }] }
  const desk = new FlowDesk({ ledger, policy, identity: keyring.identity, clock })
  const caller = { flow: parseFlowId('flow-1'), image, isReleased: false }
  const request = { op: 'claim', head: null, incarnation: 0, adopt: null, stale: false } as const
  const claim = () => desk.claim(caller, request, () => service.receipts.draft('claim', {}).make)
  const claims = await Promise.allSettled([claim(), claim()])
  t.deepEqual(
    claims.map((settled) =>
      settled.status === 'fulfilled' ? settled.value : (settled.reason as { code: string }).code,
    ),
    [{ head: null, incarnation: 1 }, 'ERR_LEDGER_CONFLICT'],
  )
})

test('a claim adopts an honest head + 1 and nothing else', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  await client.launch()
  await client.call({ op: 'commit', incarnation: 1, parent: null, head: headOf(1) })
  const claim = (adopt: { epoch: number; incarnation: number } | null, head = headOf(1), incarnation = 1) =>
    client.call({
      op: 'claim',
      head,
      incarnation,
      adopt: adopt && { ...headOf(adopt.epoch), incarnation: adopt.incarnation },
      stale: false,
    })
  await t.throwsAsync(claim({ epoch: 3, incarnation: 1 }), { code: 'ERR_FORK' })
  await t.throwsAsync(claim({ epoch: 1, incarnation: 1 }), { code: 'ERR_FORK' })
  await t.throwsAsync(claim({ epoch: 2, incarnation: 2 }), { code: 'ERR_FORK' })
  await t.throwsAsync(claim({ epoch: 2, incarnation: 0 }), { code: 'ERR_FORK' })
  await t.throwsAsync(claim(null, headOf(1, 7)), { code: 'ERR_LEDGER_CONFLICT' })
  await t.throwsAsync(claim(null, headOf(1), 0), { code: 'ERR_LEDGER_CONFLICT' })
  t.is((await claim({ epoch: 2, incarnation: 1 })).reply.incarnation, 2)
  t.deepEqual((await client.open()).head, headOf(2))
  t.is((await claim(null, headOf(2), 2)).reply.incarnation, 3)
  // Two crashes in a row: the epoch is of an older instance than the last, and honest.
  t.is((await claim({ epoch: 3, incarnation: 1 }, headOf(2), 3)).reply.incarnation, 4)
})

test('a flow belongs to the image and the task that opened it', async (t) => {
  const { connect } = await startInProcess()
  await (await connect()).launch()
  await t.throwsAsync((await connect({ image: OTHER_IMAGE })).open(), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync((await connect()).open('flow-1', 'task-2'), { code: 'ERR_POLICY_DENIED' })
})

test('a destroyed flow opens no more, nor unwraps in a session that was open', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  await client.launch()
  await t.throwsAsync(client.call({ op: 'destroy', incarnation: 2 }), { code: 'ERR_REQUEST_INVALID' })
  await client.call({ op: 'destroy', incarnation: 1 })
  await t.throwsAsync(client.open(), { code: 'ERR_FLOW_DESTROYED' })
  await t.throwsAsync(client.call({ op: 'unwrap', headers: [] }), { code: 'ERR_FLOW_DESTROYED' })
  await t.throwsAsync((await connect()).open(), { code: 'ERR_FLOW_DESTROYED' })
})

test('each flow and each image has an origin key of its own, the same every time', async (t) => {
  const { connect } = await startInProcess()
  const keyOf = async (image: typeof OTHER_IMAGE | undefined, flow: string): Promise<string> => {
    const client = await connect(image === undefined ? {} : { image })
    const { secrets } = await client.call({
      op: 'open',
      flow: parseFlowId(flow),
      task: parseFlowId('task-1'),
      holds: 0,
    })
    t.is(secrets.length, 32)
    return Buffer.from(secrets).toString('hex')
  }
  const [a, again, b, other] = [
    await keyOf(undefined, 'a'),
    await keyOf(undefined, 'a'),
    await keyOf(undefined, 'b'),
    await keyOf(OTHER_IMAGE, 'c'),
  ]
  t.is(a, again)
  t.is(new Set([a, b, other]).size, 3)
})
