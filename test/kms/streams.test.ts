import { createDecipheriv, createHash } from 'node:crypto'
import test from 'ava'
import { allocate, concatBytes, type Bytes } from '../../protocol/bytes.js'
import { STREAM_COUNT_MAX } from '../../protocol/limits.js'
import { decodeProofs, decodeCertificateBody, splitCertificate, proofTranscript } from '../../protocol/statements.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { derivePayloadKey, SEGMENT_SIZE, sealChunks } from '../../protocol/crypto/payload.js'
import { nodeRandom, sha256 } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { newestKey, sealToKms } from './attested-client.js'
import { IMAGE, OTHER_IMAGE, startInProcess } from './in-process.js'
import { askSegment, openDelivered, openStream, openStreams, readStream, storedPayload } from './stream-client.js'

const random = (size: number): Bytes => nodeRandom.fill(allocate(size))
const flipped = (bytes: Bytes, index = 0): Bytes => bytes.with(index, (bytes.at(index) ?? 0) ^ 1)

const launchOne = async (options: Parameters<typeof startInProcess>[0] = {}) => {
  const kms = await startInProcess(options)
  const client = await kms.connect()
  await client.launch()
  const { encryptionKey } = newestKey(await client.open())
  const seal = (plaintext: Bytes, change: Partial<Parameters<typeof sealToKms>[1]> = {}) =>
    storedPayload(
      sealToKms(plaintext, { encryptionKey, origin: client.origin, image: IMAGE, ...change }),
      plaintext.length,
    )
  const ask = (stream: { id: Bytes }, index: number, sealed: Bytes) => askSegment(kms.service, stream.id, index, sealed)
  return { ...kms, client, encryptionKey, seal, ask }
}

test('payloads of every size arrive, segment by segment', async (t) => {
  const { client, seal, service } = await launchOne()
  const sizes = [0, 1, 65_536, SEGMENT_SIZE - 1, SEGMENT_SIZE, SEGMENT_SIZE + 1, 2 * SEGMENT_SIZE + 70_000]
  const plaintexts = sizes.map(random)
  const stored = plaintexts.map((plaintext) => seal(plaintext))
  const { streams, statuses } = await openStreams(
    client,
    stored.map(({ item }) => item),
  )
  t.true(statuses.every(({ key, error, sizeBytes }) => key === 'root@1' && error === null && sizeBytes === 32))
  for (const [index, stream] of streams.entries()) {
    const segment = stored[index]?.segment
    if (stream === undefined || segment === undefined) return t.fail()
    t.is(Buffer.compare(await readStream(service, stream, segment), plaintexts[index] ?? allocate(0)), 0)
  }
})

test('a delivery is what the document says: opened by hand, with node:crypto alone', async (t) => {
  const { client, seal, ask } = await launchOne()
  const plaintext = random(SEGMENT_SIZE + 100_000)
  const { item, segment } = seal(plaintext)
  const stream = await openStream(client, item)
  const open = (counter: number, last: number, sealed: Bytes): Bytes => {
    const nonce = Buffer.alloc(12)
    nonce.writeUInt32BE(counter, 7)
    nonce[11] = last
    const decipher = createDecipheriv('chacha20-poly1305', stream.key, nonce, { authTagLength: 16 })
    decipher.setAuthTag(sealed.subarray(-16))
    return concatBytes(decipher.update(sealed.subarray(0, -16)), decipher.final())
  }
  const delivered = await ask(stream, 1, segment(1))
  t.is(delivered.length, segment(1).length + 48)
  t.is(
    Buffer.compare(
      concatBytes(open(16, 0, delivered.slice(0, 65_552)), open(17, 1, delivered.slice(65_552, -48))),
      plaintext.slice(SEGMENT_SIZE),
    ),
    0,
  )
  const size = Buffer.alloc(8)
  size.writeUInt32BE(segment(1).length, 4)
  const digest = createHash('sha256').update('keyrise/v1/payload-segment').update(size).update(segment(1)).digest()
  t.deepEqual(open(1, 2, delivered.slice(-48)), new Uint8Array(digest))
})

test('what a stream’s keys came from is proven by the root key, over this session, request and answer', async (t) => {
  const { client, seal } = await launchOne()
  const { certificates } = await client.open()
  const { request, meta, secrets, proof } = await client.call({
    op: 'stream',
    items: [seal(random(10)).item],
    done: [],
  })
  const [claimed] = certificates
  const [first] = decodeProofs(proof)
  if (claimed === undefined || first === undefined) return t.fail()
  const { originKey } = decodeCertificateBody(splitCertificate(claimed).body)
  const transcript = (changed: Partial<Record<'requestDigest' | 'metaDigest' | 'secretsDigest', Bytes>>) =>
    proofTranscript({
      handshakeDigest: client.session.transcriptDigest,
      requestDigest: sha256(request),
      metaDigest: sha256(meta),
      secretsDigest: sha256(secrets),
      epoch: 0,
      ...changed,
    })
  t.is(secrets.length, 32)
  t.true(verifyEd25519(originKey, transcript({}), first.signature))
  for (const part of ['requestDigest', 'metaDigest', 'secretsDigest'] as const)
    t.false(verifyEd25519(originKey, transcript({ [part]: random(32) }), first.signature), part)
})

test('an item that does not open fails alone, by one code, and has no stream', async (t) => {
  const { client, connect, seal, service } = await launchOne()
  const otherImage = await connect({ image: OTHER_IMAGE })
  await otherImage.launch('flow-3')
  const plaintext = random(100)
  const good = seal(plaintext)
  const bad = {
    'no header': { ...good.item, header: allocate(0) },
    'a changed header': { ...good.item, header: flipped(good.item.header, 60) },
    'without an origin tag': seal(plaintext, { origin: undefined }).item,
    'of another flow': seal(plaintext, { flow: 'flow-2' }).item,
    'of another image': seal(plaintext, { origin: otherImage.origin, image: OTHER_IMAGE }).item,
  }
  const { streams, statuses } = await openStreams(client, [...Object.values(bad), good.item])
  Object.keys(bad).forEach((what, index) => {
    t.deepEqual(statuses[index], { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0, stream: null }, what)
  })
  const stream = streams.at(-1)
  if (stream === undefined) return t.fail()
  t.deepEqual(await readStream(service, stream, good.segment), plaintext)
})

test('a segment that was changed, cut, swapped or belongs elsewhere is refused; the stream lives on', async (t) => {
  const { client, seal, ask } = await launchOne()
  const plaintext = random(2 * SEGMENT_SIZE + 5)
  const [{ item, segment }, other] = [seal(plaintext), seal(random(2 * SEGMENT_SIZE + 5))]
  const stream = await openStream(client, item)
  const refused: Readonly<Record<string, readonly [index: number, sealed: Bytes]>> = {
    'a changed bit': [0, flipped(segment(0))],
    'a changed bit in the last chunk': [0, flipped(segment(0), -1)],
    'cut by one byte': [0, segment(0).slice(0, -1)],
    'cut by a chunk': [0, segment(0).slice(0, -65_552)],
    'with more behind it': [2, concatBytes(segment(2), allocate(1))],
    'of one byte': [0, allocate(1)],
    'of another place': [0, segment(1)],
    'of another payload': [0, other.segment(0)],
    'two chunks swapped': [
      0,
      concatBytes(segment(0).slice(65_552, 131_104), segment(0).slice(0, 65_552), segment(0).slice(131_104)),
    ],
  }
  for (const [what, [index, sealed]] of Object.entries(refused))
    await t.throwsAsync(ask(stream, index, sealed), { code: 'ERR_ENVELOPE_INVALID' }, what)
  for (const index of [3, 65_536])
    await t.throwsAsync(ask(stream, index, segment(2)), { code: 'ERR_REQUEST_INVALID' }, String(index))
  t.deepEqual(openDelivered(stream, 2, await ask(stream, 2, segment(2)))?.plaintext, plaintext.slice(2 * SEGMENT_SIZE))
})

test('a size that the payload does not have opens nothing at its end', async (t) => {
  const { client, seal, ask } = await launchOne()
  const { item, segment } = seal(random(SEGMENT_SIZE + 70_000))
  // As an enclave would say whose index was shortened: the segment’s chunks are whole, but not the payload’s last.
  const short = await openStream(client, { ...item, sizeBytes: SEGMENT_SIZE })
  await t.throwsAsync(ask(short, 0, segment(0)), { code: 'ERR_ENVELOPE_INVALID' })
  const long = await openStream(client, { ...item, sizeBytes: 3 * SEGMENT_SIZE })
  await t.throwsAsync(ask(long, 1, segment(1)), { code: 'ERR_ENVELOPE_INVALID' })
  const otherNonce = await openStream(client, { ...item, nonce: random(16) })
  await t.throwsAsync(ask(otherNonce, 0, segment(0)), { code: 'ERR_ENVELOPE_INVALID' })
})

test('the same bytes are answered again, alike; other bytes that would open are refused', async (t) => {
  const { client, seal, ask } = await launchOne()
  const { item, segment } = seal(random(100))
  // Whoever knows the file key, a co-recipient say, can seal another payload under it.
  const { secrets } = await client.call({ op: 'unwrap', headers: [item.header] })
  using fileKey = Secret.take(secrets)
  const stream = await openStream(client, item)
  const first = await ask(stream, 0, segment(0))
  t.deepEqual(await ask(stream, 0, segment(0)), first)
  const payloadKey = derivePayloadKey(fileKey, item.nonce)
  const other = allocate(116)
  sealChunks(payloadKey, { first: 0, isEnd: true }, random(100), other)
  await t.throwsAsync(ask(stream, 0, other), { code: 'ERR_ENVELOPE_INVALID' })
  t.deepEqual(await ask(stream, 0, segment(0)), first)
  // Another stream has another delivery key: there it opens, and only the digest tells.
  const again = await openStream(client, item)
  t.notDeepEqual(openDelivered(again, 0, await ask(again, 0, other))?.digest, openDelivered(stream, 0, first)?.digest)
})

test('two requests for one index at once: one is answered, the other told to ask again', async (t) => {
  const { client, seal, ask } = await launchOne()
  const { item, segment } = seal(random(SEGMENT_SIZE + 1))
  const stream = await openStream(client, item)
  const answers = await Promise.allSettled([
    ask(stream, 0, segment(0)),
    ask(stream, 0, segment(0)),
    ask(stream, 1, segment(1)),
  ])
  t.deepEqual(
    answers.map((answer) => (answer.status === 'rejected' ? (answer.reason as { code: string }).code : 'ok')),
    ['ok', 'ERR_CALLS_LIMIT', 'ok'],
  )
  t.truthy(openDelivered(stream, 0, await ask(stream, 0, segment(0))))
})

test('a stream that is done, unknown, idle for ten minutes, or of a session or flow that ended is gone', async (t) => {
  const { client, connect, clock, seal, ask, service } = await launchOne()
  const { item, segment } = seal(random(10))
  const gone = { code: 'ERR_SESSION_INVALID' }
  await t.throwsAsync(ask({ id: random(16) }, 0, segment(0)), gone)

  const done = await openStream(client, item)
  const { streams } = await openStreams(client, [item], [done.id, random(16)])
  await t.throwsAsync(ask(done, 0, segment(0)), gone)

  const [used] = streams
  if (used === undefined) return t.fail()
  const idle = await openStream(client, item)
  for (let minutes = 0; minutes < 12; minutes += 6) {
    await clock.advance(6 * 60_000)
    await t.notThrowsAsync(ask(used, 0, segment(0)))
  }
  await t.throwsAsync(ask(idle, 0, segment(0)), gone)

  const stranger = await connect()
  await stranger.open()
  await openStreams(stranger, [], [used.id])
  await t.notThrowsAsync(ask(used, 0, segment(0)), 'another session cannot end it')

  const other = await connect()
  await other.open()
  const others = await openStream(other, item)
  await client.call({ op: 'destroy', incarnation: 1 })
  await t.throwsAsync(ask(used, 0, segment(0)), gone)
  await t.throwsAsync(ask(others, 0, segment(0)), gone)
  await t.throwsAsync(openStream(other, item), { code: 'ERR_FLOW_DESTROYED' })
  await service.close()
  await t.throwsAsync(ask(used, 0, segment(0)), { code: 'ERR_KMS_FAILED' })
})

test('no stream of a flow opens that is destroyed while its header is unwrapped', async (t) => {
  const meanwhile: (() => Promise<unknown>)[] = []
  const beforeUnseal = async (): Promise<void> => {
    for (const work of meanwhile) await work()
  }
  const { client, connect, seal } = await launchOne({ beforeUnseal })
  const other = await connect()
  await other.open()
  meanwhile.push(() => client.call({ op: 'destroy', incarnation: 1 }))
  await t.throwsAsync(openStream(other, seal(random(10)).item), { code: 'ERR_FLOW_DESTROYED' })
})

test('a session has a bounded number of streams: its first makes room, others’ stay', async (t) => {
  const { client, connect, seal, ask } = await launchOne()
  const { item, segment } = seal(random(10))
  const other = await connect()
  await other.open()
  const others = await openStream(other, item)
  const first = await openStream(client, item)
  const { streams } = await openStreams(
    client,
    Array.from({ length: STREAM_COUNT_MAX }, () => item),
  )
  await t.throwsAsync(ask(first, 0, segment(0)), { code: 'ERR_SESSION_INVALID' })
  for (const stream of [streams[0], streams.at(-1), others])
    if (stream === undefined) t.fail()
    else await t.notThrowsAsync(ask(stream, 0, segment(0)))
})

test('only the session that opened a stream can read what it delivers', async (t) => {
  const { client, connect, seal, ask } = await launchOne()
  const { item, segment } = seal(random(10))
  const other = await connect()
  await other.open()
  const [mine, theirs] = [await openStream(client, item), await openStream(other, item)]
  t.is(openDelivered(mine, 0, await ask(theirs, 0, segment(0))), undefined)
  t.truthy(openDelivered(theirs, 0, await ask(theirs, 0, segment(0))))
})
