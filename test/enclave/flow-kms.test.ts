import test from 'ava'
import { KmsClient } from '../../enclave/kms-client.js'
import { verifyRoster } from '../../enclave/roster.js'
import { allocate, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { ed25519Signer } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { openReceipt } from '../../protocol/crypto/receipts.js'
import { Secret } from '../../protocol/crypto/secret.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { decodeKmsRequest, encodeKmsError, type Parts } from '../../protocol/kms.js'
import { parseFlowId } from '../../protocol/names.js'
import type { KmsChannel } from '../../protocol/ports.js'
import type { Receipt } from '../../protocol/receipts.js'
import { encodeSessionError, encodeSessionReply, encodeSessionRequest } from '../../protocol/session.js'
import { encodeAcknowledgement, encodeProofs, encodeRoster } from '../../protocol/statements.js'
import { commitChannel } from '../../host/commits.js'
import { MemoryStore } from '../../storage/index.js'
import { digestOf } from '../kms/attested-client.js'
import { startInProcess } from '../kms/in-process.js'
import { hastyClock, readText, startWorld, text } from './flow-world.js'
import { ScriptedKms, type Script } from './scripted-kms.js'

/** What an enclave believes of a KMS, and of a host that plays one. */

const flow = parseFlowId('flow-1')
const task = parseFlowId('task-1')
const connect = (kms: ScriptedKms, channel: KmsChannel = kms): KmsClient =>
  new KmsClient({
    channel,
    commits: commitChannel(new MemoryStore(), channel),
    attester: { attest: () => Promise.resolve(text('evidence')) },
    kmsIdentity: kms.identity.publicKey,
    clock: hastyClock,
    flow,
    task,
    image: digestOf(1),
  })
const HEADER = text('header')
const STORED = { name: 'flow-1/root-0000000001.header-0000000001', bytes: HEADER }
const REQUEST = encodeSessionRequest({ op: 'unwrap', headers: [HEADER] })
const OPEN = encodeSessionRequest({ op: 'open', flow, task, holds: 0 })
const stranger = () => ed25519Signer(Secret.random(32, nodeRandom))

const kmsWithKey = (): ScriptedKms => {
  const kms = new ScriptedKms()
  kms.items = [{ key: 'root@1', error: null, sizeBytes: 16 }]
  kms.secrets = text('a file key, 16 B')
  return kms
}
/** Changes the answers to `unwrap` only. */
const atUnwrap =
  (change: (right: Parts) => Parts): Script =>
  (right, { op }) =>
    op === 'unwrap' ? change(right) : right

test('what the root key opened, proved by its origin half, is taken', async (t) => {
  const client = connect(kmsWithKey())
  await client.open()
  const [opened] = await client.unwrap([STORED])
  t.true(opened instanceof Secret && opened.expose((bytes) => Buffer.from(bytes).toString()) === 'a file key, 16 B')
})

test('M12: without a proof of its origin nothing is taken', async (t) => {
  const kms = kmsWithKey()
  const client = connect(kms)
  await client.open()
  const other = {
    meta: kms.unwrapped([{ key: 'root@2', error: null, sizeBytes: 16 }], [HEADER]),
    secrets: kms.secrets,
  }
  const changes: Record<string, (right: Parts) => Parts> = {
    'no proof': (right) => ({ ...right, proof: encodeProofs([]) }),
    'by a stranger': (right) => ({ ...right, proof: kms.prove(right, REQUEST, stranger()) }),
    'by the identity key': (right) => ({ ...right, proof: kms.prove(right, REQUEST, kms.identity) }),
    'over another request': (right) => ({ ...right, proof: kms.prove(right, text('other')) }),
    'over other secrets': (right) => ({ ...right, secrets: text('b file key, 16 B') }),
    'by a key without certificate': () => ({ ...other, proof: kms.prove(other, REQUEST) }),
  }
  for (const [name, change] of Object.entries(changes)) {
    kms.script = atUnwrap(change)
    await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_KMS_UNTRUSTED' }, name)
  }
  // A proof is of its session: one of an earlier session doesn't serve.
  let kept: Parts | undefined
  kms.script = atUnwrap(
    (right) => (kept = { ...right, secrets: copyBytes(right.secrets), proof: copyBytes(right.proof) }),
  )
  await client.unwrap([STORED])
  const next = connect(kms)
  await next.open()
  kms.script = atUnwrap((right) => ({ ...right, proof: kept?.proof ?? allocate(0) }))
  await t.throwsAsync(next.unwrap([STORED]), { code: 'ERR_KMS_UNTRUSTED' })
})

test('an answer whose receipt is not of this very request, session, flow and image is refused before any of it is used', async (t) => {
  const changes: Record<string, (right: Receipt) => Receipt> = {
    'another request': (right) => ({ ...right, requestDigest: digestOf(9) }),
    'no request': ({ requestDigest: _, ...rest }) => rest,
    'another session': (right) => ({ ...right, evidenceDigest: digestOf(9) }),
    'another flow': (right) => ({ ...right, flow: parseFlowId('flow-2') }),
    'another image': (right) => ({ ...right, measurement: digestOf(9) }),
    'another kind': (right) => ({ ...right, kind: 'claim' }),
    'another KMS': (right) => ({ ...right, kms: digestOf(9) }),
  }
  const ofOpen: typeof changes = {
    ...changes,
    'another incarnation': (right) => ({ ...right, incarnation: 1 }),
    'another head': (right) => ({ ...right, epoch: 1, headDigest: digestOf(9) }),
  }
  const ofUnwrap: typeof changes = {
    ...changes,
    'other headers': (right) => ({ ...right, openedDigest: digestOf(9) }),
    'another number of them': (right) => ({ ...right, openedCount: 2 }),
  }
  for (const [what, change] of Object.entries(ofOpen)) {
    const kms = kmsWithKey()
    kms.receipted = change
    const client = connect(kms)
    await t.throwsAsync(client.open(), { code: 'ERR_KMS_UNTRUSTED', message: /a receipt/ }, what)
    t.throws(() => client.originKey(), undefined, what)
  }
  const kms = kmsWithKey()
  const client = connect(kms)
  await client.open()
  for (const [what, change] of Object.entries(ofUnwrap)) {
    kms.receipted = change
    await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_KMS_UNTRUSTED', message: /a receipt/ }, what)
  }
  kms.receipted = (right) => right
  kms.receiptsBy = stranger()
  await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_KMS_UNTRUSTED', message: /a receipt/ })
  kms.receiptsBy = kms.identity
  await client.unwrap([STORED])
  t.deepEqual(
    client.receipts.map((receipt) => openReceipt(kms.identity.publicKey, receipt)?.kind),
    ['open', 'unwrap'],
  )
})

test('a commit that takes the flow over is taken with its receipt alone, and one that does not needs none', async (t) => {
  const kms = kmsWithKey()
  const client = connect(kms)
  const head = { epoch: 1, digest: digestOf(4) }
  const request = encodeSessionRequest({ op: 'commit', incarnation: 2, parent: null, head })
  const acknowledgement = kms.identity.sign(encodeAcknowledgement(flow, { head, incarnation: 2 }))
  const answerWith =
    (receiptOf: () => Bytes | null): Script =>
    (right, { op }) => {
      if (op === 'commit')
        return { ...right, meta: encodeSessionReply('commit', { acknowledgement, receipt: receiptOf() }) }
      if (op !== 'open') return right
      const meta = kms.opened([kms.certificate()], OPEN, { image: digestOf(2), svn: 1 })
      return { ...right, meta, secrets: allocate(64) }
    }
  const ofCommit = (changes: Partial<Receipt> = {}) => {
    kms.receipted = (right) => ({ ...right, epoch: 1, headDigest: digestOf(4), incarnation: 2, ...changes })
    const made = kms.receipt('migration', request)
    kms.receipted = (right) => right
    return made
  }
  const refused: Record<string, () => Bytes | null> = {
    'no receipt': () => null,
    'of another head': () => ofCommit({ headDigest: digestOf(5) }),
    'of another incarnation': () => ofCommit({ incarnation: 3 }),
    'of another kind': () => ofCommit({ kind: 'claim' }),
    'of another image': () => ofCommit({ measurement: digestOf(2) }),
  }
  for (const [what, receiptOf] of Object.entries(refused)) {
    kms.script = answerWith(receiptOf)
    await client.open()
    await t.throwsAsync(client.commit(2, null, head), { code: 'ERR_KMS_UNTRUSTED' }, what)
  }
  kms.script = answerWith(ofCommit)
  await client.open()
  await client.commit(2, null, head)
  t.is(openReceipt(kms.identity.publicKey, client.receipts.at(-1) ?? allocate(0))?.kind, 'migration')
  client.tookOver()
  kms.script = answerWith(() => null)
  await t.notThrowsAsync(client.commit(2, null, head))
})

test('a receipt of a state that the flow has left behind is refused', async (t) => {
  const world = await startWorld()
  const opened = await world.launch()
  await opened.flow.checkpoint({ 'password/a': text('1') })
  const [open, claim] = opened.flow.receipts.map((receipt) => openReceipt(world.kms.keyring.identity, receipt))
  t.like(open, { kind: 'open', flow: 'flow-1', incarnation: 0 })
  t.like(claim, { kind: 'claim', flow: 'flow-1', incarnation: 1 })
  const kms = kmsWithKey()
  const client = connect(kms)
  kms.receipted = (right) => ({ ...right, incarnation: 5 })
  kms.script = (right, { op }) =>
    op === 'open'
      ? {
          ...right,
          meta: encodeSessionReply('open', {
            certificates: [kms.certificate()],
            ...{
              incarnation: 5,
              head: null,
              staleAccepted: false,
              migratesFrom: null,
              predecessors: [],
              receipt: kms.receipt('open', OPEN),
            },
          }),
        }
      : right
  await client.open()
  await client.unwrap([STORED])
  kms.receipted = (right) => ({ ...right, incarnation: 4 })
  await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_KMS_UNTRUSTED' })
})

test('a KMS that certifies no root key leaves nothing to seal to, and says so', async (t) => {
  const kms = new ScriptedKms()
  kms.script = (right, { op }) => (op === 'open' ? { ...right, meta: kms.opened([], OPEN) } : right)
  const client = connect(kms)
  await client.open()
  t.throws(() => client.rootKey, { code: 'ERR_KEY_UNKNOWN' })
})

test('items and bytes that do not add up are refused, and a failed item is only itself', async (t) => {
  const kms = kmsWithKey()
  const client = connect(kms)
  await client.open()
  const items = (...statuses: [key: string | null, error: string | null, sizeBytes: number][]) =>
    statuses.map(([key, error, sizeBytes]) => ({ key, error, sizeBytes }))
  const answer = (statuses: ReturnType<typeof items>, size: number): void => {
    kms.script = atUnwrap(() => {
      const parts = { meta: kms.unwrapped(statuses, [HEADER]), secrets: allocate(size) }
      return { ...parts, proof: kms.prove(parts, REQUEST) }
    })
  }
  for (const [statuses, size] of [
    [items(['root@1', null, 16], ['root@1', null, 16]), 32],
    [items(), 0],
    [items(['root@1', null, 16]), 15],
    [items(['root@1', null, 16]), 17],
    [items([null, 'ERR_ENVELOPE_INVALID', 16]), 16],
  ] as const) {
    answer([...statuses], size)
    await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_KMS_FAILED' })
  }
  answer(items([null, 'ERR_ENVELOPE_INVALID', 0]), 0)
  t.like((await client.unwrap([STORED]))[0], { code: 'ERR_ENVELOPE_INVALID' })
  answer(items([null, 'no code of ours', 0]), 0)
  t.like((await client.unwrap([STORED]))[0], { code: 'ERR_KMS_FAILED' })
})

test('a certificate that the KMS identity did not sign is refused', async (t) => {
  const kms = kmsWithKey()
  kms.script = (right, { op }) =>
    op === 'open' ? { ...right, meta: kms.opened([kms.certificate(stranger())], OPEN) } : right
  await t.throwsAsync(connect(kms).open(), { code: 'ERR_KMS_UNTRUSTED' })
})

test('kms-impersonation: a host that plays the KMS, at the first launch or later, is refused', async (t) => {
  const world = await startWorld()
  const impostor = await startInProcess({ platform: world.kms.platform })
  await t.throwsAsync(world.launch({ kms: impostor.service }), { code: 'ERR_KMS_UNTRUSTED' })
  t.deepEqual(await world.store.list(''), [])
  let channel: KmsChannel = world.kms.service
  const opened = await world.launch({ kms: { exchange: (frame) => channel.exchange(frame) } })
  await opened.flow.checkpoint({ 'password/a': text('1') })
  channel = impostor.service
  await t.throwsAsync(opened.flow.checkpoint({ 'password/a': text('2') }), { code: 'ERR_KMS_UNTRUSTED' })
  channel = world.kms.service
  t.is(await readText(opened, 'password/a'), '2')
})

test('inside a session, what a host says in the KMS’s place is no answer', async (t) => {
  const world = await startWorld()
  let lie: ErrorCode | undefined
  const kms: KmsChannel = {
    exchange: (frame) => {
      const { op } = decodeKmsRequest(frame)
      return lie !== undefined && op === 'call'
        ? Promise.resolve(encodeKmsError(lie))
        : world.kms.service.exchange(frame)
    },
  }
  const opened = await world.launch({ kms })
  for (lie of [
    'ERR_FENCED',
    'ERR_LEDGER_CONFLICT',
    'ERR_FLOW_DESTROYED',
    'ERR_SESSION_INVALID',
    'ERR_KMS_FAILED',
  ] as const) {
    const expected = lie === 'ERR_SESSION_INVALID' ? 'ERR_SESSION_INVALID' : 'ERR_KMS_FAILED'
    await t.throwsAsync(opened.flow.checkpoint({ 'password/a': text(lie) }), { code: expected })
    await t.throwsAsync(world.launch({ kms }), { code: expected })
  }
  lie = undefined
  // Only the first was ever written; its commit was repeated until it was heard.
  await t.notThrowsAsync(opened.flow.checkpoint({ 'password/b': text('b') }))
  t.is(await readText(opened, 'password/a'), 'ERR_FENCED')
})

test('garbage, doubled and stale answers are no answers', async (t) => {
  const world = await startWorld()
  let last: Uint8Array = text('')
  let mode: 'right' | 'garbage' | 'stale' | 'flipped' = 'right'
  const kms: KmsChannel = {
    async exchange(frame) {
      if (decodeKmsRequest(frame).op !== 'call') return world.kms.service.exchange(frame)
      if (mode === 'garbage') return text('garbage')
      if (mode === 'stale') return last
      const answer = await world.kms.service.exchange(frame)
      last = answer
      return mode === 'flipped' ? answer.map((byte, index) => (index === answer.length - 1 ? byte ^ 1 : byte)) : answer
    },
  }
  const opened = await world.launch({ kms })
  for (const wrong of ['garbage', 'stale', 'flipped'] as const) {
    mode = wrong
    await t.throwsAsync(opened.flow.checkpoint({ 'password/a': text(wrong) }), undefined, wrong)
    mode = 'right'
    t.is(await readText(opened, 'password/a'), wrong)
  }
})

test('requests go one at a time, in order; a client that was closed asks no more', async (t) => {
  const kms = kmsWithKey()
  let inFlight = 0
  let inFlightMax = 0
  const channel: KmsChannel = {
    exchange: async (frame) => {
      inFlightMax = Math.max(inFlightMax, ++inFlight)
      await new Promise(setImmediate)
      const answer = await kms.exchange(frame)
      inFlight--
      return answer
    },
  }
  const client = connect(kms, channel)
  await Promise.all([client.open(), client.unwrap([STORED]), client.unwrap([STORED]), client.open()])
  t.is(inFlightMax, 1)
  client[Symbol.dispose]()
  await t.throwsAsync(client.open(), { code: 'ERR_ENCLAVE_CLOSED' })
  t.throws(() => client.originKey())
})

test('a KMS’s refusal inside the session is believed', async (t) => {
  const kms = kmsWithKey()
  const client = connect(kms)
  await client.open()
  kms.script = atUnwrap((right) => ({ ...right, meta: encodeSessionError('ERR_POLICY_DENIED') }))
  await t.throwsAsync(client.unwrap([STORED]), { code: 'ERR_POLICY_DENIED' })
})

test('key-substitution: a roster that the KMS did not sign for this task is refused', (t) => {
  const identity = stranger()
  const roster = encodeRoster(task, [
    { flow, image: 'party', measurement: allocate(32), signingKey: allocate(32), published: {} },
  ])
  const signature = identity.sign(roster)
  t.is(verifyRoster({ roster, signature }, identity.publicKey, task)[0]?.flow, flow)
  const substituted = copyBytes(roster)
  substituted[substituted.length - 20] = 9
  for (const [name, refused] of Object.entries({
    substituted: () => verifyRoster({ roster: substituted, signature }, identity.publicKey, task),
    stranger: () => verifyRoster({ roster, signature: stranger().sign(roster) }, identity.publicKey, task),
    'another task': () => verifyRoster({ roster, signature }, identity.publicKey, parseFlowId('task-2')),
  })) {
    t.throws(refused, { code: 'ERR_ROSTER_INVALID' }, name)
  }
})
