import { execFileSync } from 'node:child_process'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { Keyring } from '../../kms/keyring.js'
import { asciiBytes, equalPublicBytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { verifyEd25519 } from '../../protocol/crypto/keys.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeX25519Identity,
  scryptIdentity,
  scryptRecipient,
  x25519Recipient,
} from '../../protocol/crypto/recipients.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { ROOT_KEY_COUNT_MAX } from '../../protocol/limits.js'
import { decodeCertificateBody, splitCertificate } from '../../protocol/statements.js'
import { withAge } from '../machine.js'

const LOG_N = 10
const passphraseOf = (text: string): Secret => Secret.take(asciiBytes(text))
const seal = (keyring: Keyring, text = 'correct horse') =>
  keyring.seal({ passphrase: passphraseOf(text), random: nodeRandom, logN: LOG_N })

/** Every root key opens in the other what was sealed to the one, and both identities sign alike. */
const isSame = (a: Keyring, b: Keyring): boolean =>
  equalPublicBytes(a.identity, b.identity) &&
  a.originSecret.equals(b.originSecret) &&
  a.rootKeys.length === b.rootKeys.length &&
  a.rootKeys.every((key, index) => {
    const other = b.rootKeys[index]
    return (
      other !== undefined &&
      key.key === other.key &&
      key.privateKey.equals(other.privateKey) &&
      key.originKey.equals(other.originKey)
    )
  })

test('a keyring comes back from its file whole', (t) => {
  using keyring = Keyring.create(nodeRandom)
  using opened = Keyring.open(seal(keyring), passphraseOf('correct horse'))
  t.true(isSame(keyring, opened))
  using other = Keyring.create(nodeRandom)
  t.false(isSame(keyring, other))
})

test('certificates name root@1 and are the identity’s', (t) => {
  using keyring = Keyring.create(nodeRandom)
  const certificates = keyring.certificates().map(splitCertificate)
  t.deepEqual(
    certificates.map(({ body }) => decodeCertificateBody(body).key),
    ['root@1'],
  )
  t.true(certificates.every(({ body, signature }) => verifyEd25519(keyring.identity, body, signature)))
})

test('case 18: a wrong passphrase is said to be one', (t) => {
  using keyring = Keyring.create(nodeRandom)
  const file = seal(keyring)
  for (const wrong of ['', 'correct horsf', 'correct horse ', 'Correct horse']) {
    t.throws(() => Keyring.open(file, passphraseOf(wrong)), { code: 'ERR_PASSPHRASE_WRONG' })
  }
})

test('cases 1, 2: a file cut short at any byte, or with any byte changed, opens no keyring', (t) => {
  using keyring = Keyring.create(nodeRandom)
  using passphrase = passphraseOf('correct horse')
  const file = seal(keyring)
  const codes = new Set<string>()
  const attempt = (bytes: Uint8Array): void => {
    const error = t.throws(() => Keyring.open(bytes, passphrase), { name: 'KeyriseError' })
    codes.add((error as Error & { code: string }).code)
  }
  for (let size = 0; size < file.length; size += 3) attempt(file.subarray(0, size))
  for (let index = 0; index < file.length; index += 2) {
    const damaged = file.slice()
    damaged[index] = (damaged[index] ?? 0) ^ 1
    attempt(damaged)
  }
  attempt(new Uint8Array([...file, 0]))
  // A changed salt cannot be told from a wrong passphrase.
  t.deepEqual([...codes].sort(), ['ERR_KEYRING_INVALID', 'ERR_PASSPHRASE_WRONG'])
})

test('a work factor that would take hours is refused before it is tried', (t) => {
  using keyring = Keyring.create(nodeRandom)
  const file = seal(keyring)
  for (const factor of ['31', '018', '-1', '22']) {
    const text = Buffer.from(file)
      .toString('latin1')
      .replace(/^(-> scrypt \S+) 10$/m, `$1 ${factor}`)
    t.throws(
      () => Keyring.open(Buffer.from(text, 'latin1'), passphraseOf('correct horse')),
      { code: 'ERR_KEYRING_INVALID' },
      factor,
    )
  }
})

const sealPlaintext = (plaintext: Uint8Array) =>
  sealEnvelope(plaintext, { recipients: [scryptRecipient(passphraseOf('p'), LOG_N)], random: nodeRandom })

test('another version, mixed halves and nonsense under the right passphrase are refused', (t) => {
  using keyring = Keyring.create(nodeRandom)
  const { plaintext } = openEnvelope(keyring.seal({ passphrase: passphraseOf('p'), random: nodeRandom, logN: LOG_N }), {
    identities: [scryptIdentity(passphraseOf('p'))],
  })
  const replaced = (from: string, to: string): Uint8Array =>
    new Uint8Array(Buffer.from(Buffer.from(plaintext).toString('latin1').replace(from, to), 'latin1'))
  const swapped = plaintext.slice()
  swapped.copyWithin(swapped.length - 64, swapped.length - 32)
  const cases: Readonly<Record<string, Uint8Array>> = {
    empty: new Uint8Array(0),
    'no version of ours': replaced('keyrise/v2/keyring', 'keyrise/v0/keyring'),
    'an unknown suite': replaced('x25519', 'x25518'),
    'an unknown state': replaced('enabled', 'limited'),
    'one secret twice': swapped,
    'cut short': plaintext.slice(0, -1),
    'too long': new Uint8Array([...plaintext, 0]),
    'a size beyond the end': new Uint8Array([255, 255, 255, 255, ...plaintext.subarray(4)]),
    'not CBOR': new Uint8Array([0, 0, 0, 1, 0xff]),
    'no keys': new Uint8Array([0, 0, 0, 1, ...encodeCbor(0)]),
  }
  t.notThrows(() => Keyring.open(sealPlaintext(plaintext), passphraseOf('p')))
  for (const [what, bytes] of Object.entries(cases)) {
    t.throws(() => Keyring.open(sealPlaintext(bytes), passphraseOf('p')), { code: 'ERR_KEYRING_INVALID' }, what)
  }
})

test('a rotated keyring comes back whole, its newest key first and alone enabled; in another order it is refused', (t) => {
  using keyring = Keyring.create(nodeRandom)
  keyring.rotate(nodeRandom)
  keyring.rotate(nodeRandom)
  using opened = Keyring.open(seal(keyring), passphraseOf('correct horse'))
  t.true(isSame(keyring, opened))
  t.deepEqual(
    opened.rootKeys.map(({ key, state }) => `${key} ${state}`),
    ['root@3 enabled', 'root@2 decrypt-only', 'root@1 decrypt-only'],
  )
  t.is(opened.certificates().length, 3)
  const { plaintext } = openEnvelope(seal(keyring), { identities: [scryptIdentity(passphraseOf('correct horse'))] })
  const text = Buffer.from(plaintext).toString('latin1')
  for (const [from, to] of [
    ['root@3', 'root@1'],
    ['root@1', 'root@2'],
    ['root@2', 'other@2'],
    ['root@2', 'root@x'],
  ] as const) {
    const changed = new Uint8Array(Buffer.from(text.replace(from, to), 'latin1'))
    t.throws(() => Keyring.open(sealPlaintext(changed), passphraseOf('p')), { code: 'ERR_KEYRING_INVALID' }, from)
  }
})

test('no more root keys are made than a session can name', (t) => {
  using keyring = Keyring.create(nodeRandom)
  while (keyring.rootKeys.length < ROOT_KEY_COUNT_MAX) keyring.rotate(nodeRandom)
  t.throws(() => keyring.rotate(nodeRandom), { code: 'ERR_SIZE_LIMIT' })
  using opened = Keyring.open(seal(keyring), passphraseOf('correct horse'))
  t.is(opened.rootKeys.length, ROOT_KEY_COUNT_MAX)
})

test('disposed, a keyring has no key left', (t) => {
  const keyring = Keyring.create(nodeRandom)
  const views = [
    keyring.originSecret,
    ...keyring.rootKeys.flatMap(({ privateKey, originKey }) => [privateKey, originKey]),
  ].map((secret) => secret.expose((bytes) => bytes))
  keyring[Symbol.dispose]()
  t.true(views.every((bytes) => bytes.every((byte) => byte === 0)))
  t.throws(() => keyring.sign(new Uint8Array(1)))
})

withAge('age -d opens an envelope with the identity from the keyring', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'keyrise-age-'))
  t.teardown(() => rm(directory, { recursive: true }))
  using keyring = Keyring.create(nodeRandom)
  using opened = Keyring.open(seal(keyring), passphraseOf('correct horse'))
  const [root] = opened.rootKeys
  const envelope = sealEnvelope(asciiBytes('a business root key'), {
    recipients: [x25519Recipient(root.certificate.encryptionKey)],
    random: nodeRandom,
  })
  const identity = encodeX25519Identity(root.privateKey)
  await writeFile(join(directory, 'identity'), identity)
  await chmod(join(directory, 'identity'), 0o600)
  await writeFile(join(directory, 'envelope.age'), envelope)
  t.is(
    execFileSync('age', ['-d', '-i', join(directory, 'identity'), join(directory, 'envelope.age')], {
      encoding: 'utf8',
    }),
    'a business root key',
  )
})
