import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { SeededRandom } from '../../faults/seeded-random.js'
import { encodeArmor } from '../../protocol/age-armor.js'
import { allocate, type Bytes, concatBytes, copyBytes, toHex } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { envelopeDigest } from '../../protocol/crypto/envelope.js'
import {
  agreeKey,
  deriveAgreementKey,
  deriveOriginKey,
  deriveSigningSeed,
  deriveSubKey,
} from '../../protocol/crypto/keys.js'
import { CHUNK_SIZE, SEALED_SEGMENT_SIZE } from '../../protocol/crypto/payload.js'
import { rewrapHeader } from '../../protocol/crypto/rewrap.js'
import type { Secret } from '../../protocol/crypto/secret.js'
import prettier from 'prettier'
import { identityOf, KEYS, PASSPHRASE, publicKeys, RSA_PKCS8, secretOf, SUB_KEY_STEP } from './keys.js'
import {
  A,
  accept,
  changed,
  CHECKED,
  context,
  fixed,
  layered,
  make,
  type Options,
  passphrase,
  plaintext,
  subKey,
  type Vector,
  VECTOR_CONTEXT,
} from './makers.js'
import { refusedVectors } from './refused.js'
import { hybridStanza, type MakeStanza, sshRsaStanza, x25519Stanza } from './stanzas.js'

/**
 * Our own vectors: files that a reader must open, and files that it must refuse, each with the code. `npm run vectors` writes
 * them, the same ones every time. What the fields mean: docs/envelope.md §8.
 */

export const VECTORS_FILE = fileURLToPath(new URL('../../../test/vectors/envelopes.json', import.meta.url))

export interface Derivation {
  readonly label: string
  readonly step?: string
  readonly flow?: string
  readonly output: string
}

const acceptedVectors = async (): Promise<Vector[]> => {
  const accepted = (name: string, options: Options, stanzas: readonly MakeStanza[], of: Bytes = plaintext) =>
    accept(name, options, make(name, stanzas, of).file, of)
  const armored = make('armored', [x25519Stanza()]).file
  const before = make('rewrap', [subKey, x25519Stanza(), context()])
  const after = rewrapHeader(before.header, {
    identities: [identityOf('x25519-a')],
    recipients: [{ wrap: x25519Stanza(publicKeys.b) }],
    random: new SeededRandom('keyrise/vectors/rewrapped'),
  })
  return Promise.all([
    accepted('x25519', A, [x25519Stanza()]),
    accepted('mlkem768x25519', { identities: ['hybrid'] }, [hybridStanza]),
    accepted('ssh-rsa', { identities: ['ssh-rsa'] }, [sshRsaStanza]),
    accepted('scrypt', { identities: ['passphrase'] }, [passphrase]),
    accepted('sub-key', { identities: ['sub-key'] }, [subKey]),
    accepted('context and origin', CHECKED, [x25519Stanza(), context()]),
    accepted('several recipients', { ...CHECKED, identities: ['x25519-b'] }, [
      x25519Stanza(),
      subKey,
      hybridStanza,
      x25519Stanza(publicKeys.b),
      context(),
    ]),
    accepted('a stanza of another type', A, [fixed('example.com/enigma', 'x'), x25519Stanza()]),
    accepted('a bad stanza behind one that opens', A, [x25519Stanza(), fixed('X25519', 'x')]),
    accepted('another RSA key’s stanza', { identities: ['ssh-rsa', 'x25519-a'] }, [
      changed(sshRsaStanza, ({ args: [type], body }) => ({
        args: [type, 'AAAAAA'],
        body: copyBytes(body.subarray(1)),
      })),
      x25519Stanza(),
    ]),
    accepted('a tag that reads as a fingerprint', CHECKED, [
      x25519Stanza(),
      changed(context(), ({ args: [type, name = '', tag = ''], body }) => ({
        args: [type, 'x', name, name, tag],
        body,
      })),
    ]),
    accepted('empty', A, [x25519Stanza()], allocate(0)),
    accepted('two chunks', A, [x25519Stanza()], allocate(CHUNK_SIZE + 1)),
    accept('armored', { ...A, armored: true }, encodeArmor(armored), plaintext, armored),
    accept('before a rewrap', CHECKED, before.file),
    accept('after it', { ...CHECKED, identities: ['x25519-b'] }, concatBytes(after, before.payload)),
    accept('two layers', CHECKED, layered('two layers', 2, 2, layered('two layers', 1, 2, plaintext))),
  ])
}

/** What is derived from `business-root` and `origin-secret`. */
const derivations = (): Derivation[] => {
  const root = secretOf(KEYS['business-root'])
  const hex = (secret: Secret): string => secret.expose(toHex)
  return [
    { label: 'sub-key', step: 'train/round-3', output: hex(deriveSubKey(root, 'train/round-3')) },
    { label: 'signing-seed', output: hex(deriveSigningSeed(root)) },
    { label: 'agreement-key', output: hex(deriveAgreementKey(root)) },
    {
      label: 'agreed-key',
      step: 'train/round-3',
      output: hex(agreeKey(secretOf(KEYS['x25519-a']), publicKeys.b, 'train/round-3')),
    },
    {
      label: 'origin-key',
      flow: VECTOR_CONTEXT.flow,
      output: hex(deriveOriginKey(secretOf(KEYS['origin-secret']), VECTOR_CONTEXT.flow, VECTOR_CONTEXT.image)),
    },
  ]
}

/** Digests of payloads of several segments, too large for a file here: chunks of `sizeBytes` bytes, each its index modulo 251. */
const digests = (): { sizeBytes: number; digest: string }[] =>
  [SEALED_SEGMENT_SIZE, SEALED_SEGMENT_SIZE + 16, 3 * SEALED_SEGMENT_SIZE - 1].map((sizeBytes) => {
    const header = make('digests', [x25519Stanza(), context()]).header
    const chunks = allocate(sizeBytes).map((_, index) => index % 251)
    return { sizeBytes, digest: toHex(envelopeDigest(concatBytes(header, allocate(16), chunks))) }
  })

/** All that the file holds. */
export const makeVectors = async () => ({
  format: 'keyrise-vectors/1',
  keys: {
    ...Object.fromEntries(Object.entries(KEYS).map(([name, bytes]) => [name, toHex(bytes)])),
    'sub-key-step': SUB_KEY_STEP,
    passphrase: PASSPHRASE,
    'ssh-rsa': RSA_PKCS8,
    'agreement-peer': toHex(x25519PublicKey(secretOf(KEYS['x25519-b']))),
  },
  context: { ...VECTOR_CONTEXT, image: toHex(VECTOR_CONTEXT.image) },
  derivations: derivations(),
  digests: digests(),
  vectors: [...(await acceptedVectors()), ...refusedVectors()],
})

export type VectorsDocument = Awaited<ReturnType<typeof makeVectors>>

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const options = await prettier.resolveConfig(VECTORS_FILE)
  writeFileSync(
    VECTORS_FILE,
    await prettier.format(JSON.stringify(await makeVectors()), { ...options, parser: 'json' }),
  )
}
