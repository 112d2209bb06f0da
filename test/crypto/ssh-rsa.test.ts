import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  publicEncrypt,
  constants,
  type KeyObject,
} from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { encodeBase64, type Stanza } from '../../protocol/age-header.js'
import { allocate, copyBytes } from '../../protocol/bytes.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeSshRsaRecipient,
  parseSshRsaRecipient,
  sshRsaIdentity,
  sshRsaRecipient,
} from '../../protocol/crypto/ssh-rsa.js'
import { inDirectory, withAge } from '../machine.js'
import { codeOf, expectEqual, flipBit, fromText, randomBytes, randomSecret } from './fixtures.js'

/** By way of PEM, so that what is exported was imported: Node 20 can hang otherwise. */
const generate = (modulusLength: number): { pem: string; privateKey: KeyObject; publicKey: KeyObject } => {
  const { privateKey: pem } = generateKeyPairSync('rsa', {
    modulusLength,
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  return { pem, privateKey: createPrivateKey(pem), publicKey: createPublicKey(pem) }
}
const KEYS = [generate(3072), generate(4096)] as const
const [{ privateKey, publicKey }] = KEYS
const fileKey = randomSecret(16)

for (const key of KEYS) {
  const bits = String(key.publicKey.asymmetricKeyDetails?.modulusLength)
  const identity = sshRsaIdentity(key.privateKey)
  test(`${bits} bits: the identity unwraps, others do not, and no two stanzas are alike`, (t) => {
    const recipient = sshRsaRecipient(parseSshRsaRecipient(encodeSshRsaRecipient(key.privateKey)))
    const [a, b] = [recipient.wrap(fileKey, nodeRandom), recipient.wrap(fileKey, nodeRandom)]
    t.true(identity.unwrap(a)?.equals(fileKey))
    t.true(identity.unwrap(b)?.equals(fileKey))
    t.notDeepEqual(a, b)
    for (const other of KEYS.filter(({ pem }) => pem !== key.pem))
      t.is(sshRsaIdentity(other.privateKey).unwrap(a), undefined)
    for (const bit of [0, 7, 1000, a.body.length * 8 - 1])
      t.is(identity.unwrap({ ...a, body: flipBit(a.body, bit) }), undefined)
    t.is(identity.unwrap({ ...a, args: ['X25519', a.args[1] ?? ''] }), undefined)
  })
}

test('a stanza for this key that is none is refused', (t) => {
  const stanza = sshRsaRecipient(publicKey).wrap(fileKey, nodeRandom)
  const identity = sshRsaIdentity(privateKey)
  const [type, tag = ''] = stanza.args
  const seal = (bytes: Uint8Array) =>
    copyBytes(
      publicEncrypt(
        {
          key: publicKey,
          padding: constants.RSA_PKCS1_OAEP_PADDING,
          oaepHash: 'sha256',
          oaepLabel: fromText('age-encryption.org/v1/ssh-rsa'),
        },
        bytes,
      ),
    )
  t.true(identity.unwrap({ ...stanza, body: seal(fileKey.expose(copyBytes)) })?.equals(fileKey))
  const refused: Stanza[] = [
    ...[0, 32, 383, 385, 512].map((size) => ({ ...stanza, body: allocate(size) })),
    { ...stanza, args: [type] },
    { ...stanza, args: [type, tag, 'x'] },
    { ...stanza, args: [type, `${tag}==`] },
    { ...stanza, args: [type, encodeBase64(allocate(3))] },
    { ...stanza, body: seal(allocate(15)) },
    { ...stanza, body: seal(allocate(32)) },
  ]
  for (const each of refused) {
    t.is(
      codeOf(() => identity.unwrap(each)),
      'ERR_HEADER_MALFORMED',
    )
  }
})

test('an OpenSSH public key is read with or without a comment, and strictly', (t) => {
  const text = encodeSshRsaRecipient(publicKey)
  t.is(encodeSshRsaRecipient(parseSshRsaRecipient(`${text} alice@example.com\n`)), text)
  const wire = Buffer.from(text.slice(8), 'base64')
  const changed = (change: (bytes: Buffer) => Buffer | undefined): string => {
    const copy = Buffer.from(wire)
    return `ssh-rsa ${(change(copy) ?? copy).toString('base64')}`
  }
  const zero = Buffer.of(0)
  for (const claimed of [
    '',
    'ssh-rsa',
    'ssh-ed25519 AAAA',
    text.replace('ssh-rsa', 'ssh-dss'),
    text.slice(0, -1),
    `${text}A`,
    `${text} ${'x'.repeat(3000)}`,
    changed((bytes) => bytes.subarray(0, -1)),
    changed((bytes) => Buffer.concat([bytes, zero])),
    // The exponent with a zero byte too many: 00 00 00 04 00 01 00 01.
    changed((bytes) => Buffer.concat([bytes.subarray(0, 11), Buffer.of(0, 0, 0, 4, 0), bytes.subarray(15)])),
    // An exponent of nine bytes.
    changed((bytes) =>
      Buffer.concat([bytes.subarray(0, 11), Buffer.of(0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1), bytes.subarray(18)]),
    ),
    changed((bytes) => {
      bytes.fill(0xff, 0, 4)
      return bytes
    }),
    encodeSshRsaRecipient(
      createPublicKey(
        generateKeyPairSync('rsa', {
          modulusLength: 2048,
          publicKeyEncoding: { type: 'spki', format: 'pem' },
          privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
        }).publicKey,
      ),
    ),
  ]) {
    t.is(
      codeOf(() => parseSshRsaRecipient(claimed)),
      'ERR_KEY_INVALID',
      claimed.slice(0, 20),
    )
  }
})

test('only RSA of 3072 or 4096 bits is a key', (t) => {
  const { publicKey: ed25519, privateKey: ed25519Private } = generateKeyPairSync('ed25519')
  t.is(
    codeOf(() => sshRsaRecipient(ed25519)),
    'ERR_KEY_INVALID',
  )
  t.is(
    codeOf(() => sshRsaIdentity(ed25519Private)),
    'ERR_KEY_INVALID',
  )
  t.throws(() => sshRsaIdentity(publicKey), { instanceOf: TypeError })
  t.throws(() => sshRsaRecipient(publicKey).wrap(randomSecret(32), nodeRandom), { instanceOf: RangeError })
})

withAge(
  'the age command opens what we seal, and we open what it seals',
  inDirectory((directory) => {
    for (const key of KEYS) {
      const keyFile = join(directory, 'key')
      writeFileSync(keyFile, key.pem, { mode: 0o600 })
      for (const size of [0, 1, 70_000]) {
        const plaintext = randomBytes(size)
        const ours = sealEnvelope(plaintext, { recipients: [sshRsaRecipient(key.publicKey)], random: nodeRandom })
        expectEqual(execFileSync('age', ['-d', '-i', keyFile], { input: ours }), plaintext)
        const theirs = execFileSync('age', ['-r', encodeSshRsaRecipient(key.publicKey)], { input: plaintext })
        expectEqual(openEnvelope(theirs, { identities: [sshRsaIdentity(key.privateKey)] }).plaintext, plaintext)
      }
    }
  }),
)
