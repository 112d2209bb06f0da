import test from 'ava'
import fc from 'fast-check'
import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_X25519_HKDF_SHA256 } from 'hpke'
import { allocate, concatBytes, copyBytes } from '../../protocol/bytes.js'
import { sha256 } from '../../protocol/sha256.js'
import { handshakeTranscript, SESSION_INFO, type KmsReplies } from '../../protocol/kms.js'
import { ed25519Signer, verifyEd25519 } from '../../protocol/crypto/keys.js'
import { labelled } from '../../protocol/crypto/labels.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { SessionOffer, SessionOpening, type HandshakeRequest } from '../../protocol/crypto/session.js'
import { codeOfAsync, flipBit, fromText, randomBytes, randomSecret } from './fixtures.js'

const kms = ed25519Signer(randomSecret())
const impostor = ed25519Signer(randomSecret())
const evidence = fromText('evidence')
const accepting = { sign: kms.sign, random: nodeRandom }

/** Both sides, as far as the KMS’s reply. `relay` is the host: it may change what the enclave sends. */
const negotiate = async (
  relay: (request: HandshakeRequest) => HandshakeRequest = (request) => request,
  sign = kms.sign,
) => {
  const offer = await SessionOffer.create(nodeRandom)
  const opening = await SessionOpening.create(offer.challenge)
  const request = { enclaveKey: opening.enclaveKey, encapsulated: opening.encapsulated, evidence }
  const { session, reply } = await offer.accept(relay(request), { sign, random: nodeRandom })
  return { offer, opening, request, atKms: session, reply }
}
const finish = (opening: SessionOpening, reply: KmsReplies['handshake'], claimedEvidence = evidence) =>
  opening.finish({ reply, evidence: claimedEvidence, kmsIdentity: kms.publicKey })

const establish = async () => {
  const { opening, atKms, reply } = await negotiate()
  return { atKms, atEnclave: await finish(opening, reply) }
}

const X25519_LOW_ORDER = allocate(32)

test('frames pass both ways, in order, in buffers of their own', async (t) => {
  const { atKms, atEnclave } = await establish()
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (bytes, toKms) => {
      const [from, to] = toKms ? [atEnclave, atKms] : [atKms, atEnclave]
      const opened = await to.open(await from.seal(bytes))
      t.deepEqual(opened, copyBytes(bytes))
      t.is(opened.buffer.byteLength, bytes.length)
    }),
    { numRuns: 40 },
  )
})

test('both sides have the id and the digest of the transcript that the KMS signed', async (t) => {
  const { offer, opening, request, atKms, reply } = await negotiate()
  const atEnclave = await finish(opening, reply)
  const transcript = handshakeTranscript({
    nonce: offer.challenge.nonce,
    kmsKey: offer.challenge.kmsKey,
    enclaveKey: request.enclaveKey,
    encapsulatedToKms: request.encapsulated,
    encapsulatedToEnclave: reply.encapsulated,
    evidence,
    session: reply.session,
  })
  t.true(verifyEd25519(kms.publicKey, transcript, reply.signature))
  for (const side of [atKms, atEnclave]) {
    t.deepEqual(side.transcriptDigest, sha256(transcript))
    t.deepEqual(side.id, reply.session)
  }
})

test('no two sessions share a key, an id or a nonce', async (t) => {
  const [a, b] = [await negotiate(), await negotiate()]
  t.notDeepEqual(a.offer.challenge, b.offer.challenge)
  t.notDeepEqual(a.opening.enclaveKey, b.opening.enclaveKey)
  t.notDeepEqual(a.reply.session, b.reply.session)
  const frame = await (await finish(a.opening, a.reply)).seal(fromText('claim'))
  t.is(await codeOfAsync(() => b.atKms.open(frame)), 'ERR_SESSION_INVALID')
})

test('a frame opens once, in its turn, on the other side; the one expected still opens afterwards', async (t) => {
  const { atKms, atEnclave } = await establish()
  const frames = [await atEnclave.seal(fromText('one')), await atEnclave.seal(fromText('two'))] as const
  const refused = async (frame: Uint8Array) => {
    t.is(await codeOfAsync(() => atKms.open(frame)), 'ERR_SESSION_INVALID')
  }
  await refused(frames[1])
  t.is(await codeOfAsync(() => atEnclave.open(frames[0])), 'ERR_SESSION_INVALID')
  t.deepEqual(await atKms.open(frames[0]), fromText('one'))
  await refused(frames[0])
  for (const forged of [
    allocate(0),
    allocate(15),
    allocate(16),
    randomBytes(40),
    frames[1].subarray(0, -1),
    concatBytes(frames[1], allocate(1)),
  ])
    await refused(forged)
  for (let bit = 0; bit < frames[1].length * 8; bit += 7) await refused(flipBit(frames[1], bit))
  t.deepEqual(await atKms.open(frames[1]), fromText('two'))
})

test('frames sealed at once open at once, in their order', async (t) => {
  const { atKms, atEnclave } = await establish()
  const texts = Array.from({ length: 20 }, (_, index) => fromText(`frame ${String(index)}`))
  const frames = await Promise.all(texts.map((text) => atEnclave.seal(text)))
  t.deepEqual(await Promise.all(frames.map((frame) => atKms.open(frame))), texts)
})

test('nothing is sealed or opened after close', async (t) => {
  const { atKms, atEnclave } = await establish()
  const frame = await atEnclave.seal(fromText('late'))
  atKms.close()
  atKms.close()
  t.is(await codeOfAsync(() => atKms.open(frame)), 'ERR_SESSION_INVALID')
  t.is(await codeOfAsync(() => atKms.seal(frame)), 'ERR_SESSION_INVALID')
})

test('an offer is good for one handshake, a failed one included', async (t) => {
  const { offer, request } = await negotiate()
  t.is(await codeOfAsync(() => offer.accept(request, accepting)), 'ERR_SESSION_INVALID')

  const other = await SessionOffer.create(nodeRandom)
  t.is(
    await codeOfAsync(() => other.accept({ ...request, encapsulated: X25519_LOW_ORDER }, accepting)),
    'ERR_SESSION_INVALID',
  )
  t.is(await codeOfAsync(() => other.accept(request, accepting)), 'ERR_SESSION_INVALID')
})

test('an opening finishes once', async (t) => {
  const { opening, reply } = await negotiate()
  await finish(opening, reply)
  t.is(await codeOfAsync(() => finish(opening, reply)), 'ERR_SESSION_INVALID')
})

test('a host that plays the KMS is refused', async (t) => {
  const { opening, reply } = await negotiate(undefined, impostor.sign)
  t.is(await codeOfAsync(() => finish(opening, reply)), 'ERR_KMS_UNTRUSTED')
})

test('a host between the two, with a key of its own to each, is refused', async (t) => {
  const genuine = await SessionOffer.create(nodeRandom)
  const hosts = await SessionOffer.create(nodeRandom)
  const opening = await SessionOpening.create({ ...genuine.challenge, kmsKey: hosts.challenge.kmsKey })
  const request = { enclaveKey: opening.enclaveKey, encapsulated: opening.encapsulated, evidence }
  const { reply } = await genuine.accept(request, accepting)
  t.is(await codeOfAsync(() => finish(opening, reply)), 'ERR_KMS_UNTRUSTED')
  // What the KMS would have to check: the enclave never attested for this key of the KMS’s.
  t.notDeepEqual(opening.evidenceNonce, genuine.evidenceNonce(opening.encapsulated))
})

test('an encapsulation that the host puts in the enclave’s place is not the one attested', async (t) => {
  const { offer, opening, request } = await negotiate()
  t.deepEqual(opening.evidenceNonce, offer.evidenceNonce(request.encapsulated))
  t.deepEqual(
    opening.evidenceNonce,
    sha256(...labelled('evidence-nonce', offer.challenge.nonce, offer.challenge.kmsKey, request.encapsulated)),
  )
  const hosts = await SessionOpening.create(offer.challenge)
  t.notDeepEqual(opening.evidenceNonce, offer.evidenceNonce(hosts.encapsulated))
  t.notDeepEqual(opening.evidenceNonce, offer.challenge.nonce)
})

test('whatever the host changes in the request or the reply, the enclave refuses', async (t) => {
  const stranger = await SessionOpening.create((await SessionOffer.create(nodeRandom)).challenge)
  const relays: ((request: HandshakeRequest) => HandshakeRequest)[] = [
    (request) => ({ ...request, enclaveKey: stranger.enclaveKey }),
    (request) => ({ ...request, encapsulated: stranger.encapsulated }),
    (request) => ({ ...request, evidence: fromText('older evidence') }),
  ]
  for (const relay of relays) {
    const { opening, reply } = await negotiate(relay)
    t.is(await codeOfAsync(() => finish(opening, reply)), 'ERR_KMS_UNTRUSTED')
  }
  for (const field of ['session', 'encapsulated', 'signature'] as const) {
    const { opening, reply } = await negotiate()
    t.is(await codeOfAsync(() => finish(opening, { ...reply, [field]: flipBit(reply[field], 3) })), 'ERR_KMS_UNTRUSTED')
  }
  const [older, newer] = [await negotiate(), await negotiate()]
  t.is(await codeOfAsync(() => finish(newer.opening, older.reply)), 'ERR_KMS_UNTRUSTED')
})

test('keys of low order are refused on either side', async (t) => {
  const offer = await SessionOffer.create(nodeRandom)
  t.is(
    await codeOfAsync(() => SessionOpening.create({ ...offer.challenge, kmsKey: X25519_LOW_ORDER })),
    'ERR_KMS_UNTRUSTED',
  )
  const opening = await SessionOpening.create(offer.challenge)
  const request = { enclaveKey: X25519_LOW_ORDER, encapsulated: opening.encapsulated, evidence }
  t.is(await codeOfAsync(() => offer.accept(request, accepting)), 'ERR_SESSION_INVALID')
})

test('the direction to the KMS is HPKE base mode, as any other implementation of RFC 9180 would open it', async (t) => {
  const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM)
  const keys = await suite.GenerateKeyPair(false)
  const kmsKey = copyBytes(await suite.SerializePublicKey(keys.publicKey))
  const challenge = { handshake: allocate(16), nonce: allocate(32), kmsKey }
  const opening = await SessionOpening.create(challenge)

  const toEnclave = await suite.SetupSender(await suite.DeserializePublicKey(opening.enclaveKey), {
    info: fromText(SESSION_INFO.toEnclave),
  })
  const unsigned = { session: randomBytes(16), encapsulated: copyBytes(toEnclave.encapsulatedSecret) }
  const transcript = handshakeTranscript({
    nonce: challenge.nonce,
    kmsKey,
    enclaveKey: opening.enclaveKey,
    encapsulatedToKms: opening.encapsulated,
    encapsulatedToEnclave: unsigned.encapsulated,
    evidence,
    session: unsigned.session,
  })
  const session = await finish(opening, { ...unsigned, signature: kms.sign(transcript) })

  const sealed = await session.seal(fromText('open'))
  const opened = await suite.Open(keys, opening.encapsulated, sealed, { info: fromText(SESSION_INFO.toKms) })
  t.deepEqual(copyBytes(opened), fromText('open'))
  t.deepEqual(await session.open(await toEnclave.ctx.Seal(fromText('reply'))), fromText('reply'))
})
