import { execFileSync } from 'node:child_process'
import { constants, createPrivateKey, privateEncrypt } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { asciiBytes, type Bytes } from '../../protocol/bytes.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom, sha256 } from '../../protocol/crypto/primitives.js'
import {
  certificateOf,
  encodeRootIdentity,
  makeRootSecrets,
  originProver,
  rootIdentity,
  rootKeyObject,
} from '../../protocol/crypto/root-private.js'
import { encodeRootRecipient, rootRecipient, verifyProof } from '../../protocol/crypto/root-public.js'
import {
  decodeCertificateBody,
  encodeCertificateBody,
  proofMessage,
  proofTranscript,
  type RootSuite,
} from '../../protocol/statements.js'
import { withAge } from '../machine.js'

// The largest suite differs from rsa-oaep-3072 in a number only, and takes seconds to make: test/host/suites.test.ts has it.
const SUITES = ['x25519', 'mlkem768x25519', 'rsa-oaep-3072'] as const
const made = new Map(
  await Promise.all(
    SUITES.map(async (suite) => {
      const secrets = await makeRootSecrets(suite, nodeRandom)
      return [suite, { secrets, certificate: certificateOf('root@1', secrets) }] as const
    }),
  ),
)
const keyOf = (suite: RootSuite) => made.get(suite as (typeof SUITES)[number]) ?? raise()
const raise = (): never => {
  throw new Error('no such suite')
}

const digest = (text: string): Bytes => sha256(asciiBytes(text))
const PARTS = {
  handshakeDigest: digest('handshake'),
  requestDigest: digest('request'),
  metaDigest: digest('meta'),
  secretsDigest: digest('secrets'),
  epoch: 7,
}

test('each suite’s certificate survives encoding, and what is sealed to it opens with it', (t) => {
  for (const suite of SUITES) {
    const { secrets, certificate } = keyOf(suite)
    t.deepEqual(decodeCertificateBody(encodeCertificateBody(certificate)), certificate)
    const envelope = sealEnvelope(asciiBytes('root'), { recipients: [rootRecipient(certificate)], random: nodeRandom })
    const identity = rootIdentity(suite, rootKeyObject(secrets))
    t.deepEqual(openEnvelope(envelope, { identities: [identity] }).plaintext, asciiBytes('root'), suite)
    identity[Symbol.dispose]?.()
  }
})

test('M12: an origin half proves one session, request, reply and epoch, and no other key proves it', (t) => {
  for (const suite of SUITES) {
    const { secrets, certificate } = keyOf(suite)
    const proof = originProver(secrets)(PARTS)
    t.true(verifyProof(certificate, PARTS, proof), suite)
    for (const part of ['handshakeDigest', 'requestDigest', 'metaDigest', 'secretsDigest'] as const)
      t.false(verifyProof(certificate, { ...PARTS, [part]: digest('another') }, proof), `${suite} ${part}`)
    t.false(verifyProof(certificate, { ...PARTS, epoch: 6 }, proof), `${suite} epoch`)
    for (const other of SUITES)
      if (other !== suite) t.false(verifyProof(keyOf(other).certificate, PARTS, proof), `${suite} by ${other}`)
    // The encryption half of a key is not its origin half.
    if (suite === 'rsa-oaep-3072')
      t.false(verifyProof({ ...certificate, originKey: certificate.encryptionKey }, PARTS, proof))
    t.false(verifyProof(certificate, PARTS, proof.subarray(1)))
    t.false(
      verifyProof(
        certificate,
        PARTS,
        proof.map((byte) => byte ^ 1),
      ),
    )
  }
})

test('M12: RSA’s proof is message recovery: the message itself under type 1, and nothing else is taken', (t) => {
  const { secrets, certificate } = keyOf('rsa-oaep-3072')
  const key = secrets.originKey.expose((der) =>
    createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' }),
  )
  const by = (message: Uint8Array, padding = constants.RSA_PKCS1_PADDING): Uint8Array =>
    privateEncrypt({ key, padding }, message)
  const message = proofMessage(sha256(proofTranscript(PARTS)), PARTS.epoch)
  t.true(message.length * 3 < 3072 / 8)
  t.true(verifyProof(certificate, PARTS, by(message)))
  t.false(verifyProof(certificate, PARTS, by(proofTranscript(PARTS))))
  t.false(verifyProof(certificate, PARTS, by(message.subarray(0, -1))))
  t.false(verifyProof(certificate, PARTS, by(Uint8Array.of(...message, 0))))
  const unpadded = new Uint8Array(3072 / 8)
  unpadded.set(message, unpadded.length - message.length)
  t.false(verifyProof(certificate, PARTS, by(unpadded, constants.RSA_NO_PADDING)))
})

test('a certificate whose keys are of another suite or size is refused', (t) => {
  const rsa = keyOf('rsa-oaep-3072').certificate
  const curve = keyOf('x25519').certificate
  for (const body of [
    { ...rsa, suite: 'x25519' },
    { ...curve, suite: 'mlkem768x25519' },
    { ...curve, originKey: rsa.originKey },
  ] as const)
    t.throws(() => decodeCertificateBody(encodeCertificateBody(body)), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => rootRecipient({ ...rsa, suite: 'rsa-oaep-4096' }), { code: 'ERR_KEY_INVALID' })
  t.throws(() => rootRecipient({ ...rsa, encryptionKey: new Uint8Array(new ArrayBuffer(3)) }), {
    code: 'ERR_KEY_INVALID',
  })
})

withAge('the age command opens with each private half, and seals to each public one', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-root-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const envelopePath = join(directory, 'envelope')
  for (const suite of ['x25519', 'rsa-oaep-3072'] as const) {
    const { secrets, certificate } = keyOf(suite)
    const path = join(directory, suite)
    await writeFile(path, encodeRootIdentity(secrets), { mode: 0o600 })
    const envelope = sealEnvelope(asciiBytes('root'), { recipients: [rootRecipient(certificate)], random: nodeRandom })
    await writeFile(envelopePath, envelope)
    t.is(execFileSync('age', ['-d', '-i', path, envelopePath], { encoding: 'utf8' }), 'root', suite)
    const sealed = execFileSync('age', ['-r', encodeRootRecipient(certificate)], { input: 'from age' })
    const identities = [rootIdentity(suite, rootKeyObject(secrets))]
    t.deepEqual(openEnvelope(sealed, { identities }).plaintext, asciiBytes('from age'), suite)
  }
})
