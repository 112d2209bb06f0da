import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as age from 'age-encryption'
import fc from 'fast-check'
import { decodeArmor, encodeArmor, isArmored } from '../../protocol/age-armor.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { envelopeOpener, envelopeSealer } from '../../protocol/crypto/envelope-stream.js'
import { openEnvelope, sealEnvelope, type SealOptions } from '../../protocol/crypto/envelope.js'
import { encodeHybridIdentity, encodeHybridRecipient, hybridRecipient } from '../../protocol/crypto/hybrid.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeX25519Identity,
  encodeX25519Recipient,
  scryptIdentity,
  scryptRecipient,
  subKeyRecipient,
  x25519Recipient,
  type Identity,
  type Recipient,
} from '../../protocol/crypto/recipients.js'
import { encodeSshRsaRecipient, sshRsaRecipient } from '../../protocol/crypto/ssh-rsa.js'
import { identityOf, KEYS, PASSPHRASE, publicKeys, rsaKey, secretOf } from '../vectors/keys.js'
import { collect, CONTEXT, expectEqual, fromText, pushAll, randomBytes, randomSecret, toText } from './fixtures.js'

/** Random files for typage and the `age` command to open, and theirs for us: of any size, recipients and form. */

type Kind = 'x25519' | 'hybrid' | 'ssh-rsa'
const KINDS: Readonly<Record<Kind, { recipient: Recipient; text: string; identity: Identity }>> = {
  x25519: {
    recipient: x25519Recipient(publicKeys.a),
    text: encodeX25519Recipient(publicKeys.a),
    identity: identityOf('x25519-a'),
  },
  hybrid: {
    recipient: hybridRecipient(publicKeys.hybrid),
    text: encodeHybridRecipient(publicKeys.hybrid),
    identity: identityOf('hybrid'),
  },
  'ssh-rsa': {
    recipient: sshRsaRecipient(rsaKey),
    text: encodeSshRsaRecipient(rsaKey),
    identity: identityOf('ssh-rsa'),
  },
}

const sizes = fc.oneof(
  { weight: 6, arbitrary: fc.nat({ max: 2000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 65_520, max: 65_550 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 200_000 }) },
)
const forms = fc.record({
  size: sizes,
  armored: fc.boolean(),
  streamed: fc.boolean(),
  /** Recipients beside the one that opens it. */
  strangers: fc.nat({ max: 2 }),
  context: fc.boolean(),
})
type Form = typeof forms extends fc.Arbitrary<infer T> ? T : never

const seal = (plaintext: Uint8Array, recipients: readonly Recipient[], form: Form): Bytes => {
  const options: SealOptions = { recipients, random: nodeRandom, ...(form.context ? { context: CONTEXT } : {}) }
  const { sink, taken } = collect()
  if (form.streamed) pushAll(envelopeSealer(options, sink), plaintext, () => 5000)
  const envelope = form.streamed ? taken() : sealEnvelope(plaintext, options)
  return form.armored ? encodeArmor(envelope) : envelope
}

const open = (file: Uint8Array, identity: Identity, form: Form): Bytes => {
  const envelope = isArmored(file) ? decodeArmor(file) : file
  if (!form.streamed) return openEnvelope(envelope, { identities: [identity] }).plaintext
  const { sink, taken } = collect()
  pushAll(envelopeOpener({ identities: [identity] }, sink), envelope, () => 5000)
  return taken()
}

const strangerRecipients = (count: number): Recipient[] =>
  Array.from({ length: count }, () => subKeyRecipient('step/other', randomSecret()))

const assertCases = <T>(cases: fc.Arbitrary<T>, check: (of: T) => Promise<void>, numRuns: number): Promise<void> =>
  fc.assert(fc.asyncProperty(cases, check), { numRuns })

// typage

const TYPAGE_IDENTITIES = {
  x25519: toText(encodeX25519Identity(secretOf(KEYS['x25519-a']))),
  hybrid: toText(encodeHybridIdentity(secretOf(KEYS.hybrid))),
}

const typageOpen = async (file: Uint8Array, prepare: (decrypter: age.Decrypter) => void): Promise<Bytes> => {
  const decrypter = new age.Decrypter()
  prepare(decrypter)
  return copyBytes(await decrypter.decrypt(isArmored(file) ? age.armor.decode(toText(file)) : file))
}

export const typageOpensOurs = (kind: 'x25519' | 'hybrid', count: number): Promise<void> =>
  assertCases(
    forms,
    async (form) => {
      const plaintext = randomBytes(form.size)
      const file = seal(plaintext, [...strangerRecipients(form.strangers), KINDS[kind].recipient], form)
      const opened = await typageOpen(file, (decrypter) => {
        decrypter.addIdentity(TYPAGE_IDENTITIES[kind])
      })
      expectEqual(opened, plaintext)
    },
    count,
  )

export const weOpenTypages = (kind: 'x25519' | 'hybrid', count: number): Promise<void> =>
  assertCases(
    forms,
    async (form) => {
      const plaintext = randomBytes(form.size)
      const encrypter = new age.Encrypter()
      for (let left = form.strangers; left > 0; left--)
        encrypter.addRecipient(await age.identityToRecipient(await age.generateX25519Identity()))
      encrypter.addRecipient(KINDS[kind].text)
      const file = await encrypter.encrypt(plaintext)
      expectEqual(open(form.armored ? fromText(age.armor.encode(file)) : file, KINDS[kind].identity, form), plaintext)
    },
    count,
  )

const phrases = fc.record({ form: forms, phrase: fc.string({ minLength: 1, maxLength: 40, unit: 'grapheme-ascii' }) })

/** Both ways, with a work factor that costs nothing. */
export const passphrasesWithTypage = (count: number): Promise<void> =>
  assertCases(
    phrases,
    async ({ form, phrase }) => {
      const plaintext = randomBytes(form.size)
      const ours = seal(plaintext, [scryptRecipient(secretOf(fromText(phrase)), 8)], { ...form, context: false })
      const opened = await typageOpen(ours, (decrypter) => {
        decrypter.addPassphrase(phrase)
      })
      expectEqual(opened, plaintext)
      const encrypter = new age.Encrypter()
      encrypter.setPassphrase(phrase)
      encrypter.setScryptWorkFactor(8)
      expectEqual(open(await encrypter.encrypt(plaintext), scryptIdentity(secretOf(fromText(phrase))), form), plaintext)
    },
    count,
  )

// The age command, of the machine and not of the package

const runAge = (args: readonly string[], input: Uint8Array): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const options = { encoding: 'buffer', maxBuffer: 2 ** 24 } as const
    const child = execFile('age', args, options, (error, stdout) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`age: ${error.message}`))
    })
    child.stdin?.end(input)
  })

/** Writes the keys that the command opens with. */
const writeKeys = (directory: string): Readonly<Record<'x25519' | 'ssh-rsa', string>> => {
  const files = { x25519: join(directory, 'x25519'), 'ssh-rsa': join(directory, 'ssh-rsa') }
  writeFileSync(files.x25519, TYPAGE_IDENTITIES.x25519)
  writeFileSync(files['ssh-rsa'], rsaKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 })
  return files
}

export const ageOpensOurs = (kind: 'x25519' | 'ssh-rsa', count: number, directory: string): Promise<void> => {
  const keyFile = writeKeys(directory)[kind]
  return assertCases(
    forms,
    async (form) => {
      const plaintext = randomBytes(form.size)
      const file = seal(plaintext, [...strangerRecipients(form.strangers), KINDS[kind].recipient], form)
      expectEqual(await runAge(['-d', '-i', keyFile], file), plaintext)
    },
    count,
  )
}

export const weOpenAges = (kind: 'x25519' | 'ssh-rsa', count: number): Promise<void> =>
  assertCases(
    forms,
    async (form) => {
      const plaintext = randomBytes(form.size)
      const others = Array.from({ length: form.strangers }, () => ['-r', encodeX25519Recipient(publicKeys.b)]).flat()
      const args = [...(form.armored ? ['-a'] : []), ...others, '-r', KINDS[kind].text]
      expectEqual(open(await runAge(args, plaintext), KINDS[kind].identity, form), plaintext)
    },
    count,
  )

/** The command reads passphrases from a terminal only, so `script` lends it one. */
const onTerminal = (command: string, lines: readonly string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = execFile('script', ['-qec', command, '/dev/null'], { timeout: 120_000 }, (error) => {
      if (error === null) resolve()
      else reject(new Error(`${command}: ${error.message}`))
    })
    child.stdin?.end(lines.map((line) => `${line}\n`).join(''))
  })

/** Both ways. Its own files take the work of 2^18, twice. */
export const passphrasesWithAge = (count: number, directory: string): Promise<void> => {
  const passphrase = secretOf(fromText(PASSPHRASE))
  const [plain, sealed, opened, theirs] = ['plain', 'sealed', 'opened', 'theirs'].map((name) =>
    join(directory, name),
  ) as [string, string, string, string]
  return assertCases(
    // `age -o` leaves the file alone where nothing is to be written.
    forms.filter(({ size }) => size > 0),
    async (form) => {
      const plaintext = randomBytes(form.size)
      writeFileSync(plain, plaintext)
      writeFileSync(sealed, seal(plaintext, [scryptRecipient(passphrase, 10)], { ...form, context: false }))
      await onTerminal(`age -d -o ${opened} ${sealed}`, [PASSPHRASE])
      expectEqual(readFileSync(opened), plaintext)
      await onTerminal(`age -p ${form.armored ? '-a' : ''} -o ${theirs} ${plain}`, [PASSPHRASE, PASSPHRASE])
      expectEqual(open(readFileSync(theirs), scryptIdentity(passphrase), form), plaintext)
    },
    count,
  )
}
