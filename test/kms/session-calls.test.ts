import test from 'ava'
import fc from 'fast-check'
import { decodeCbor, encodeCbor } from '../../protocol/cbor.js'
import { isErrorCode } from '../../protocol/errors.js'
import { decodeKmsReply, decodeParts, encodeKmsRequest } from '../../protocol/kms.js'
import { parseFlowId } from '../../protocol/names.js'
import { decodeSessionReply } from '../../protocol/session.js'
import { digestOf } from './attested-client.js'
import { startInProcess } from './in-process.js'

test('cases 26, 27: a frame opens once and in order; one that does not changes nothing', async (t) => {
  const { connect, service } = await startInProcess()
  const client = await connect()
  const frame = await client.frame({ op: 'open', flow: parseFlowId('flow-1'), task: parseFlowId('task-1'), holds: 0 })
  const later = await client.frame({ op: 'roster' })
  const call = async (bytes: Uint8Array) => decodeKmsReply('call', await service.exchange(bytes))
  await t.throwsAsync(call(later), { code: 'ERR_SESSION_INVALID' })
  await t.notThrowsAsync(call(frame))
  await t.throwsAsync(call(frame), { code: 'ERR_SESSION_INVALID' })
  await t.notThrowsAsync(call(later))
})

test('a frame of one session does not open in another, nor an unknown session at all', async (t) => {
  const { connect, service } = await startInProcess()
  const [a, b] = [await connect(), await connect()]
  const frame = encodeKmsRequest({
    op: 'call',
    session: b.session.id,
    sealed: await a.session.seal(encodeCbor({ op: 'roster' })),
  })
  t.throws(() => decodeKmsReply('call', new Uint8Array(0)))
  await t.throwsAsync(async () => decodeKmsReply('call', await service.exchange(frame)), {
    code: 'ERR_SESSION_INVALID',
  })
  const unknown = encodeKmsRequest({ op: 'call', session: new Uint8Array(16), sealed: new Uint8Array(64) })
  await t.throwsAsync(async () => decodeKmsReply('call', await service.exchange(unknown)), {
    code: 'ERR_SESSION_INVALID',
  })
})

test('nothing but open is served before open, and a session serves one flow', async (t) => {
  const { connect } = await startInProcess()
  const client = await connect()
  const head = { epoch: 1, digest: digestOf(1) }
  await t.throwsAsync(client.call({ op: 'claim', head: null, incarnation: 0, adopt: null, stale: false }), {
    code: 'ERR_REQUEST_INVALID',
  })
  await t.throwsAsync(client.call({ op: 'commit', incarnation: 1, parent: null, head }), {
    code: 'ERR_REQUEST_INVALID',
  })
  await t.throwsAsync(client.call({ op: 'unwrap', headers: [] }), { code: 'ERR_REQUEST_INVALID' })
  await t.throwsAsync(client.call({ op: 'stream', items: [], done: [] }), { code: 'ERR_REQUEST_INVALID' })
  await t.throwsAsync(client.call({ op: 'roster' }), { code: 'ERR_REQUEST_INVALID' })
  await t.throwsAsync(client.call({ op: 'destroy', incarnation: 1 }), { code: 'ERR_REQUEST_INVALID' })
  await client.launch('flow-1')
  await t.throwsAsync(client.open('flow-2'), { code: 'ERR_REQUEST_INVALID' })
  await t.notThrowsAsync(client.open('flow-1'))
})

test('a session that is idle for an hour is gone; one in use stays', async (t) => {
  const { connect, clock } = await startInProcess()
  const [used, idle] = [await connect(), await connect()]
  for (let hour = 0; hour < 3; hour++) {
    await clock.advance(30 * 60_000)
    await used.open()
  }
  await t.throwsAsync(idle.open(), { code: 'ERR_SESSION_INVALID' })
})

test('calls that wait in a session are bounded', async (t) => {
  const { connect, service } = await startInProcess()
  const client = await connect()
  await client.open()
  const frames = []
  for (let count = 0; count < 12; count++)
    frames.push(await client.frame({ op: 'open', flow: parseFlowId('flow-1'), task: parseFlowId('task-1'), holds: 0 }))
  const replies = (await Promise.all(frames.map((frame) => service.exchange(frame)))).map(
    (reply) => decodeCbor(reply) as { error?: string },
  )
  t.deepEqual(
    replies.map(({ error }) => error ?? 'ok'),
    [...Array<string>(8).fill('ok'), ...Array<string>(4).fill('ERR_CALLS_LIMIT')],
  )
})

test('a closed service answers what is under way and refuses the rest', async (t) => {
  const { connect, service } = await startInProcess()
  const client = await connect()
  const frame = await client.frame({ op: 'open', flow: parseFlowId('flow-1'), task: parseFlowId('task-1'), holds: 0 })
  const underWay = service.exchange(frame)
  await service.close()
  t.is(codeOf(await underWay), undefined)
  await t.throwsAsync(client.open(), { code: 'ERR_KMS_FAILED' })
})

/** The code that an outer frame carries, if it is a refusal. */
const codeOf = (reply: Uint8Array): unknown => (decodeCbor(reply) as { error?: unknown }).error

test('hostile frames: whatever comes, a coded answer goes', async (t) => {
  const { connect, service } = await startInProcess()
  const client = await connect()
  const good = await client.frame({ op: 'roster' })
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
      .map(([index, bits]) => good.with(index, (good[index] ?? 0) ^ bits)),
    fc.nat(good.length - 1).map((size) => good.subarray(0, size)),
    fc
      .record(
        { op: fc.constantFrom('identity', 'challenge', 'handshake', 'call', 'constructor', '__proto__') },
        { noNullPrototype: true },
      )
      .chain((base) =>
        fc
          .dictionary(
            fc.constantFrom('handshake', 'enclaveKey', 'encapsulated', 'evidence', 'session', 'sealed', 'x'),
            fc.oneof(
              fc.uint8Array({ minLength: 0, maxLength: 40 }),
              fc.uint8Array({ minLength: 32, maxLength: 32 }),
              fc.uint8Array({ minLength: 16, maxLength: 16 }),
              fc.integer(),
              fc.string(),
            ),
          )
          .map((fields) => encodeCbor({ ...base, ...fields })),
      ),
  )
  const opened = new Set<string>()
  await fc.assert(
    fc.asyncProperty(bytes, async (frame) => {
      const code = codeOf(await service.exchange(frame))
      opened.add(String(code))
      t.true(code === undefined || isErrorCode(code), String(code))
      t.not(code, 'ERR_KMS_FAILED')
    }),
    { numRuns: 2000 },
  )
  t.true(opened.has('ERR_REQUEST_INVALID'))
  // The session has lived through it: the frame itself still opens.
  t.is(codeOf(await service.exchange(good)), undefined)
})

test('hostile requests inside a session: a coded refusal, and the session lives on', async (t) => {
  const { connect, service } = await startInProcess()
  const client = await connect()
  await client.launch()
  const value = fc.oneof(
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.string(),
    fc.uint8Array({ maxLength: 40 }),
    fc.constant(null),
    fc.boolean(),
    fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 4 }),
    fc.dictionary(fc.string(), fc.uint8Array({ maxLength: 40 }), { noNullPrototype: true }),
  )
  const request = fc
    .tuple(
      fc.constantFrom(
        'open',
        'claim',
        'commit',
        'unwrap',
        'stream',
        'publish',
        'roster',
        'destroy',
        'toString',
        'none',
      ),
      fc.dictionary(
        fc.constantFrom(
          'flow',
          'task',
          'head',
          'incarnation',
          'adopt',
          'parent',
          'headers',
          'items',
          'done',
          'signingKey',
          'values',
        ),
        value,
        { noNullPrototype: true },
      ),
    )
    .map(([op, fields]) => encodeCbor({ op, ...fields }))
  await fc.assert(
    fc.asyncProperty(fc.oneof(request, fc.uint8Array({ maxLength: 100 })), async (plaintext) => {
      const frame = encodeKmsRequest({
        op: 'call',
        session: client.session.id,
        sealed: await client.session.seal(plaintext),
      })
      const { sealed } = decodeKmsReply('call', await service.exchange(frame))
      const code = codeOf(decodeParts(await client.session.open(sealed)).meta)
      t.true(code === undefined || (isErrorCode(code) && code !== 'ERR_KMS_FAILED'), String(code))
    }),
    { numRuns: 600 },
  )
  await t.throwsAsync(async () => decodeSessionReply('commit', encodeCbor({ error: 'ERR_FENCED' })), {
    code: 'ERR_FENCED',
  })
  t.is((await client.open()).incarnation, 1)
})
