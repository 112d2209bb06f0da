import test from 'ava'
import { openPayloadOf } from '../../protocol/crypto/envelope.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { sha256 } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { decodeProofs, proofTranscript, splitCertificate } from '../../protocol/statements.js'
import { parseHeader } from '../../protocol/age-header.js'
import { newestKey, sealToKms } from './attested-client.js'
import { IMAGE, startInProcess } from './in-process.js'

test('a first launch opens, claims, seals; a recovery unwraps what it sealed, with proof', async (t) => {
  const { connect, keyring } = await startInProcess()
  const first = await connect()
  t.is(await first.launch(), 1)
  const root = newestKey(await first.open())
  const secret = new TextEncoder().encode('the business root key of a flow.')
  const envelope = sealToKms(secret, { encryptionKey: root.encryptionKey, origin: first.origin, image: IMAGE })

  const second = await connect()
  const opened = await second.open()
  t.is(opened.incarnation, 1)
  const { body, signature } = splitCertificate(opened.certificates[0] as Uint8Array)
  t.true(verifyEd25519(keyring.identity, body, signature))

  const header = envelope.slice(0, parseHeader(envelope).sizeBytes)
  const answer = await second.call({ op: 'unwrap', headers: [header] })
  t.deepEqual(answer.reply.items, [{ key: 'root@1', error: null, sizeBytes: 16 }])
  t.deepEqual(openPayloadOf(envelope, Secret.take(answer.secrets.slice())).plaintext, new Uint8Array(secret))

  const [proof, ...others] = decodeProofs(answer.proof)
  t.is(others.length, 0)
  const transcript = proofTranscript({
    handshakeDigest: second.session.transcriptDigest,
    requestDigest: sha256(answer.request),
    metaDigest: sha256(answer.meta),
    secretsDigest: sha256(answer.secrets),
    epoch: answer.reply.epoch,
  })
  t.true(proof !== undefined && verifyEd25519(root.originKey, transcript, proof.signature))
  t.is((await second.call({ op: 'claim', head: null, incarnation: 1, adopt: null, stale: false })).reply.incarnation, 2)
})
