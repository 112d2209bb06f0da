import test from 'ava'
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { decodeAnswer, encodeAnswer } from '../../examples/federated-learning/answer.js'
import { Archive } from '../../examples/federated-learning/archive.js'
import { openMessage, sealMessage } from '../../examples/federated-learning/channel.js'
import { decodeContribution, encodeContribution } from '../../examples/federated-learning/contribution.js'
import { intakeKeyOf, openRecords, sealRecords } from '../../examples/federated-learning/intake.js'
import { checkProof, provePassword, verifierOf } from '../../examples/federated-learning/password.js'
import { commitmentOf } from '../../examples/federated-learning/receipts.js'
import {
  contributionStatement,
  deliveryStatement,
  readingStatement,
  releaseStatement,
  verifySignature,
} from '../../examples/federated-learning/statements.js'

const bytesOf = (size: number): Uint8Array => new Uint8Array(randomBytes(size))
const flipped = (bytes: Uint8Array, index: number): Uint8Array =>
  bytes.map((byte, at) => (at === index ? byte ^ 1 : byte))

test('a sealed message opens in its session and direction, and in no other', (t) => {
  const session = bytesOf(32)
  const message = bytesOf(64)
  const route = { from: 'a', to: 'b' }
  const sealed = sealMessage(session, route, message)
  t.deepEqual(openMessage(session, route, sealed), message)
  t.is(openMessage(bytesOf(32), route, sealed), undefined)
  t.is(openMessage(session, { from: 'b', to: 'a' }, sealed), undefined)
})

test('a sealed message with any bit changed, or cut anywhere, does not open', (t) => {
  const session = bytesOf(32)
  const route = { from: 'a', to: 'b' }
  const sealed = sealMessage(session, route, bytesOf(20))
  for (let index = 0; index < sealed.length; index++) {
    t.is(openMessage(session, route, flipped(sealed, index)), undefined)
    t.is(openMessage(session, route, sealed.subarray(0, index)), undefined)
  }
})

test('records sealed to an intake key open with its seed only', async (t) => {
  const seed = bytesOf(32)
  const records = bytesOf(5000)
  const sealed = await sealRecords(await intakeKeyOf(seed), records)
  t.deepEqual(new Uint8Array(await openRecords(seed, sealed)), records)
  await t.throwsAsync(openRecords(bytesOf(32), sealed))
  await t.throwsAsync(openRecords(seed, flipped(sealed, 3000)))
})

test('who knows the password can prove it, for one request; the verifier is no password', (t) => {
  const [password, salt, request] = [bytesOf(32), bytesOf(16), bytesOf(32)]
  const verifier = verifierOf(password, salt)
  const proof = provePassword(password, salt, request)
  t.true(checkProof(verifier, request, proof))
  t.false(checkProof(verifier, bytesOf(32), proof))
  t.false(checkProof(verifier, request, flipped(proof, 7)))
  t.false(checkProof(verifier, request, provePassword(bytesOf(32), salt, request)))
  t.false(checkProof(verifier, request, provePassword(verifier.storedKey, salt, request)))
})

test('an archive takes each challenge once, and a proof for what it was made for', (t) => {
  const [password, salt, sealed] = [bytesOf(32), bytesOf(16), bytesOf(100)]
  const archive = new Archive(verifierOf(password, salt), sealed)
  const { nonce } = archive.challenge()
  const proof = provePassword(password, salt, readingStatement(nonce))
  t.throws(() => archive.deliver({ nonce, proof, sealed }))
  t.throws(() => archive.read({ nonce, proof }), undefined, 'the challenge is spent')
  const fresh = archive.challenge()
  t.deepEqual(archive.read({ ...fresh, proof: provePassword(password, salt, readingStatement(fresh.nonce)) }), {
    sealed,
  })
  t.throws(() => archive.read({ ...fresh, proof: provePassword(password, salt, readingStatement(fresh.nonce)) }))
  const last = archive.challenge()
  archive.deliver({ ...last, sealed, proof: provePassword(password, salt, deliveryStatement(last.nonce, sealed)) })
  t.is(archive.delivered, sealed)
})

test('a signature holds for its statement and for nothing near it', (t) => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const key = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }).subarray(-32))
  const interaction = bytesOf(16)
  const contribution = { flow: 'a', round: 1, participants: ['a', 'b'], ciphertext: bytesOf(50) }
  const signature = sign(null, contributionStatement('task', interaction, contribution), privateKey)
  const holds = (task: string, id: Uint8Array, changed: typeof contribution): boolean =>
    verifySignature(key, contributionStatement(task, id, changed), signature)
  t.true(holds('task', interaction, contribution))
  t.false(holds('other', interaction, contribution))
  t.false(holds('task', bytesOf(16), contribution))
  t.false(holds('task', interaction, { ...contribution, flow: 'b' }))
  t.false(holds('task', interaction, { ...contribution, round: 11 }))
  t.false(holds('task', interaction, { ...contribution, participants: ['a', 'b', 'c'] }))
  t.false(holds('task', interaction, { ...contribution, ciphertext: flipped(contribution.ciphertext, 9) }))
  const sum = bytesOf(0)
  t.notDeepEqual(
    releaseStatement('a', { round: 11, participants: ['b'], sum }),
    releaseStatement('a1', { round: 1, participants: ['b'], sum }),
  )
})

test('a commitment is to one value under one name, and without its key to nothing that anyone could guess', (t) => {
  const [key, value] = [bytesOf(32), bytesOf(40)]
  const commitment = commitmentOf(key, 'session/a', value)
  t.deepEqual(commitmentOf(key, 'session/a', value), commitment)
  t.notDeepEqual(commitmentOf(key, 'session/a', flipped(value, 39)), commitment)
  t.notDeepEqual(commitmentOf(key, 'session/b', value), commitment)
  t.notDeepEqual(commitmentOf(bytesOf(32), 'session/a', value), commitment)
})

test('what is recorded of a round reads as it was written', (t) => {
  const contribution = { participants: ['a', 'b'], ciphertext: bytesOf(1000) }
  t.deepEqual(decodeContribution(encodeContribution(contribution)), contribution)
  const answer = { participants: ['a', 'b', 'c'], digest: bytesOf(32), sum: bytesOf(132) }
  t.deepEqual(decodeAnswer(encodeAnswer(answer)), answer)
})
