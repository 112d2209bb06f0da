import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as age from 'age-encryption'
import test from 'ava'
import fc from 'fast-check'
import { parseHeader } from '../../protocol/age-header.js'
import { concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeX25519Identity,
  encodeX25519Recipient,
  scryptIdentity,
  scryptRecipient,
  subKeyRecipient,
  x25519Identity,
  x25519Recipient,
} from '../../protocol/crypto/recipients.js'
import { resealEnvelope, rewrapHeader } from '../../protocol/crypto/rewrap.js'
import { inDirectory, withAge, withAgeAndTerminal } from '../machine.js'
import { CONTEXT, expectEqual, fromText, randomBytes, randomSecret, secretOf, toText } from './fixtures.js'

/** typage and Filippo Valsorda’s `age` command open what we seal, our own stanzas beside theirs, and the other way round. */

const PASSPHRASE = 'correct horse battery staple'
const passphrase = secretOf(fromText(PASSPHRASE))
const privateKey = randomSecret()
const toKey = x25519Recipient(x25519PublicKey(privateKey))
const recipient = encodeX25519Recipient(x25519PublicKey(privateKey))
const identity = toText(encodeX25519Identity(privateKey))

const sealToKey = (plaintext: Uint8Array): Bytes =>
  sealEnvelope(plaintext, {
    recipients: [subKeyRecipient('epoch/7', randomSecret()), toKey],
    context: CONTEXT,
    originKeys: [{ authority: randomBytes(32), key: randomSecret() }],
    random: nodeRandom,
  })
const openWithKey = (envelope: Uint8Array): Bytes =>
  openEnvelope(envelope, { identities: [x25519Identity(privateKey)] }).plaintext

const sizes = fc.oneof(fc.nat({ max: 200 }), fc.integer({ min: 65_530, max: 65_540 }), fc.constant(131_072))

test('typage derives the same recipient from the identity', async (t) => {
  t.is(await age.identityToRecipient(identity), recipient)
})

test('typage opens what we seal, and we open what typage seals: X25519', async (t) => {
  await fc.assert(
    fc.asyncProperty(sizes, async (size) => {
      const plaintext = randomBytes(size)
      const decrypter = new age.Decrypter()
      decrypter.addIdentity(identity)
      t.deepEqual(copyBytes(await decrypter.decrypt(sealToKey(plaintext))), plaintext)

      const encrypter = new age.Encrypter()
      encrypter.addRecipient(await age.identityToRecipient(await age.generateX25519Identity()))
      encrypter.addRecipient(recipient)
      t.deepEqual(openWithKey(await encrypter.encrypt(plaintext)), plaintext)
    }),
    { numRuns: 15 },
  )
})

test('typage opens what we seal, and we open what typage seals: passphrase', async (t) => {
  const plaintext = randomBytes(1000)
  const decrypter = new age.Decrypter()
  decrypter.addPassphrase(PASSPHRASE)
  const sealed = sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, 10)], random: nodeRandom })
  t.deepEqual(copyBytes(await decrypter.decrypt(sealed)), plaintext)

  const encrypter = new age.Encrypter()
  encrypter.setPassphrase(PASSPHRASE)
  encrypter.setScryptWorkFactor(10)
  t.deepEqual(
    openEnvelope(await encrypter.encrypt(plaintext), { identities: [scryptIdentity(passphrase)] }).plaintext,
    plaintext,
  )
})

withAge(
  'the age command opens what we seal, and we open what it seals: X25519',
  inDirectory((directory) => {
    const keyFile = join(directory, 'key')
    writeFileSync(keyFile, identity)
    for (const size of [0, 1, 65_536, 200_000]) {
      const plaintext = randomBytes(size)
      expectEqual(execFileSync('age', ['-d', '-i', keyFile], { input: sealToKey(plaintext) }), plaintext)
      expectEqual(openWithKey(execFileSync('age', ['-r', recipient], { input: plaintext })), plaintext)
    }
  }),
)

withAge(
  'the age command opens what we rewrapped and what we resealed',
  inDirectory((directory) => {
    const keyFile = join(directory, 'key')
    writeFileSync(keyFile, identity)
    const before = randomSecret()
    const options = { identities: [x25519Identity(before)], recipients: [toKey], random: nodeRandom }
    for (const size of [0, 65_536, 200_000]) {
      const plaintext = randomBytes(size)
      const recipients = [x25519Recipient(x25519PublicKey(before))]
      const sealed = sealEnvelope(plaintext, { recipients, context: CONTEXT, random: nodeRandom })
      const payload = sealed.subarray(parseHeader(sealed).sizeBytes)
      for (const file of [concatBytes(rewrapHeader(sealed, options), payload), resealEnvelope(sealed, options)])
        expectEqual(execFileSync('age', ['-d', '-i', keyFile], { input: file }), plaintext)
    }
  }),
)

/** age reads passphrases from a terminal only, so `script` lends it one. */
const onTerminal = (command: string, lines: readonly string[]): void => {
  const { status } = spawnSync('script', ['-qec', command, '/dev/null'], {
    input: lines.map((line) => `${line}\n`).join(''),
    timeout: 60_000,
  })
  if (status !== 0) throw new Error(`${command}: status ${String(status)}`)
}
withAgeAndTerminal(
  'the age command opens what we seal, and we open what it seals: passphrase',
  inDirectory((directory) => {
    const [sealed, opened, theirs] = ['sealed', 'opened', 'theirs'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ]
    const plaintext = randomBytes(1000)
    writeFileSync(
      sealed,
      sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, 10)], random: nodeRandom }),
    )
    onTerminal(`age -d -o ${opened} ${sealed}`, [PASSPHRASE])
    expectEqual(readFileSync(opened), plaintext)
    onTerminal(`age -p -o ${theirs} ${opened}`, [PASSPHRASE, PASSPHRASE])
    expectEqual(openEnvelope(readFileSync(theirs), { identities: [scryptIdentity(passphrase)] }).plaintext, plaintext)
  }),
)
