import test from 'ava'
import { encodeKmsRequest, decodeKmsReply } from '../../protocol/kms.js'
import { SessionOpening } from '../../protocol/crypto/session.js'
import { digestOf, TestPlatform } from './attested-client.js'
import { IMAGE, startInProcess, UNLISTED_IMAGE } from './in-process.js'

test('case 28: evidence counts only for this handshake, this key, a listed platform and a listed image', async (t) => {
  const { connect } = await startInProcess()
  await t.notThrowsAsync(connect())
  await t.throwsAsync(connect({ claims: { nonce: digestOf(7) } }), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(connect({ claims: { confirmationKey: digestOf(7) } }), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(connect({ claims: { debug: true } }), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(connect({ platform: new TestPlatform() }), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(connect({ image: UNLISTED_IMAGE }), { code: 'ERR_POLICY_DENIED' })
})

const prepareHandshake = async ({ service, platform }: Awaited<ReturnType<typeof startInProcess>>) => {
  const challenge = decodeKmsReply('challenge', await service.exchange(encodeKmsRequest({ op: 'challenge' })))
  const opening = await SessionOpening.create(challenge)
  const { enclaveKey, encapsulated } = opening
  const evidence = platform.attest({ nonce: opening.evidenceNonce, confirmationKey: enclaveKey, measurement: IMAGE })
  return { op: 'handshake', handshake: challenge.handshake, enclaveKey, encapsulated, evidence } as const
}
type Kms = Awaited<ReturnType<typeof startInProcess>>
const shake = async ({ service }: Kms, request: Awaited<ReturnType<typeof prepareHandshake>>) =>
  decodeKmsReply('handshake', await service.exchange(encodeKmsRequest(request)))

test('case 27: a handshake is good once: repeated, or after a failed attempt, it is refused', async (t) => {
  const kms = await startInProcess()
  const first = await prepareHandshake(kms)
  await t.notThrowsAsync(shake(kms, first))
  await t.throwsAsync(shake(kms, first), { code: 'ERR_SESSION_INVALID' })
  const second = await prepareHandshake(kms)
  await t.throwsAsync(shake(kms, { ...second, evidence: first.evidence }), { code: 'ERR_EVIDENCE_REFUSED' })
  await t.throwsAsync(shake(kms, second), { code: 'ERR_SESSION_INVALID' })
})

test('a host that puts its own key or encapsulation into a handshake is refused', async (t) => {
  const kms = await startInProcess()
  const own = await prepareHandshake(kms)
  for (const field of ['enclaveKey', 'encapsulated'] as const) {
    const request = await prepareHandshake(kms)
    await t.throwsAsync(shake(kms, { ...request, [field]: own[field] }), { code: 'ERR_EVIDENCE_REFUSED' }, field)
  }
})

test('an offer that nobody takes up expires', async (t) => {
  const kms = await startInProcess()
  const request = await prepareHandshake(kms)
  await kms.clock.advance(61_000)
  await t.throwsAsync(shake(kms, request), { code: 'ERR_SESSION_INVALID' })
})

test('offers are bounded: the oldest makes room', async (t) => {
  const kms = await startInProcess()
  const request = await prepareHandshake(kms)
  const challenge = encodeKmsRequest({ op: 'challenge' })
  for (let count = 0; count < 4096; count += 256)
    await Promise.all(Array.from({ length: 256 }, () => kms.service.exchange(challenge)))
  await t.throwsAsync(shake(kms, request), { code: 'ERR_SESSION_INVALID' })
})

test('a client that trusts another identity refuses this KMS', async (t) => {
  const { connect } = await startInProcess()
  await t.throwsAsync(connect({ kmsIdentity: digestOf(3) }), { code: 'ERR_KMS_UNTRUSTED' })
})

test('a host that plays the KMS, with its own keys, gets no session', async (t) => {
  const real = await startInProcess()
  const fake = await startInProcess({ platform: real.platform })
  await t.throwsAsync(fake.connect({ kmsIdentity: real.keyring.identity }), { code: 'ERR_KMS_UNTRUSTED' })
})
