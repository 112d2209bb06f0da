import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import prettier from 'prettier'
import { SeededRandom } from '../../faults/seeded-random.js'
import { encodeArmor } from '../../protocol/age-armor.js'
import { encodeBase64, encodeHeader, parseHeader, type Stanza } from '../../protocol/age-header.js'
import { allocate, asciiBytes, concatBytes, copyBytes, toHex, type Bytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { encodeContext, type EnvelopeContext } from '../../protocol/context.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { envelopeDigest } from '../../protocol/crypto/envelope.js'
import {
  agreeKey,
  deriveAgreementKey,
  deriveOriginKey,
  deriveSigningSeed,
  deriveSubKey,
} from '../../protocol/crypto/keys.js'
import { layerStanza } from '../../protocol/crypto/layer-stanza.js'
import { contextStanza } from '../../protocol/crypto/origin.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  PAYLOAD_NONCE_SIZE,
  sealChunks,
  SEALED_CHUNK_SIZE,
  SEALED_SEGMENT_SIZE,
} from '../../protocol/crypto/payload.js'
import { TAG_SIZE } from '../../protocol/crypto/primitives.js'
import { scryptRecipient, subKeyRecipient } from '../../protocol/crypto/recipients.js'
import { rewrapHeader } from '../../protocol/crypto/rewrap.js'
import type { Secret } from '../../protocol/crypto/secret.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX, STANZA_COUNT_MAX } from '../../protocol/limits.js'
import { parseFlowId } from '../../protocol/names.js'
import {
  identityOf,
  KEYS,
  PASSPHRASE,
  publicKeys,
  RSA_PKCS8,
  secretOf,
  SUB_KEY_STEP,
  type IdentityName,
} from './keys.js'
import { hybridStanza, makeFile, sshRsaStanza, x25519Stanza, type MakeStanza } from './stanzas.js'

/**
 * Our own vectors: files that a reader must open, and files that it must refuse, each with the code. `npm run vectors` writes
 * them, the same ones every time. What the fields mean: docs/envelope.md §8.
 */

export const VECTORS_FILE = fileURLToPath(new URL('../../../test/vectors/envelopes.json', import.meta.url))

export interface Vector {
  readonly name: string
  /** Why it is refused; null where it opens. */
  readonly code: ErrorCode | null
  /** Base64. */
  readonly file: string
  readonly armored?: true
  readonly identities: readonly IdentityName[]
  /** The origin tag must be there and right. */
  readonly origin?: true
  /** The epoch that the context must have. */
  readonly epoch?: number
  /** SHA-256, of an accepted file’s plaintext. */
  readonly plaintext?: string
  /** SHA-256 over context and payload (§3), of an accepted file. */
  readonly digest?: string
}

export interface Derivation {
  readonly label: string
  readonly step?: string
  readonly flow?: string
  readonly output: string
}

export const VECTOR_CONTEXT: EnvelopeContext = {
  flow: parseFlowId('credit-2026'),
  task: parseFlowId('credit'),
  kind: 'intermediate-result',
  name: 'intermediate-result/round-3',
  epoch: 7,
  incarnation: 2,
  image: allocate(32).fill(0xa5),
}
export const VECTOR_ORIGIN = { authority: KEYS.authority, key: KEYS['origin-key'] }

const plaintext = asciiBytes('gradient of round 3')
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const sha256Hex = async (bytes: Uint8Array<ArrayBuffer>): Promise<string> =>
  toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))

const origin = { authority: KEYS.authority, key: secretOf(KEYS['origin-key']) }
const context =
  (of: EnvelopeContext = VECTOR_CONTEXT, origins = [origin]): MakeStanza =>
  (fileKey) =>
    contextStanza(of, fileKey, origins)
const subKey: MakeStanza = (fileKey, random) =>
  subKeyRecipient(SUB_KEY_STEP, secretOf(KEYS['sub-key'])).wrap(fileKey, random)
const passphrase: MakeStanza = (fileKey, random) =>
  scryptRecipient(secretOf(Buffer.from(PASSPHRASE)), 10).wrap(fileKey, random)
const changed =
  (make: MakeStanza, change: (stanza: Stanza) => Stanza): MakeStanza =>
  (fileKey, random) =>
    change(make(fileKey, random))
const withArgument = (make: MakeStanza, index: number, argument: string): MakeStanza =>
  changed(make, ({ args: [type, ...rest], body }) => ({ args: [type, ...rest.with(index - 1, argument)], body }))
const fixed =
  (...args: Stanza['args']): MakeStanza =>
  () => ({ args, body: allocate(0) })

const fixedBody =
  (type: string, body: Uint8Array): MakeStanza =>
  () => ({ args: [type], body: copyBytes(body) })

/** A file named `name`, whose randomness is its own. */
const make = (name: string, stanzas: readonly MakeStanza[], of: Uint8Array = plaintext) =>
  makeFile(stanzas, of, new SeededRandom(`keyrise/vectors/${name}`))

type Options = Pick<Vector, 'identities'> & Partial<Pick<Vector, 'origin' | 'epoch' | 'armored'>>
const A: Options = { identities: ['x25519-a'] }
const CHECKED: Options = { ...A, origin: true, epoch: 7 }

const accept = async (
  name: string,
  options: Options,
  file: Bytes,
  of: Bytes = plaintext,
  binary: Bytes = file,
): Promise<Vector> => ({
  name,
  code: null,
  ...options,
  file: base64(file),
  plaintext: await sha256Hex(of),
  digest: toHex(envelopeDigest(binary)),
})
const refuse = (name: string, code: ErrorCode, options: Options, file: Uint8Array): Vector => ({
  name,
  code,
  ...options,
  file: base64(file),
})

const layered = (name: string, index: number, count: number, inner: Uint8Array): Bytes =>
  make(`${name}/${String(index)}`, [x25519Stanza(), context(), () => layerStanza({ index, count })], inner).file

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
    accepted('empty', A, [x25519Stanza()], allocate(0)),
    accepted('two chunks', A, [x25519Stanza()], allocate(CHUNK_SIZE + 1)),
    accept('armored', { ...A, armored: true }, encodeArmor(armored), plaintext, armored),
    accept('before a rewrap', CHECKED, before.file),
    accept('after it', { ...CHECKED, identities: ['x25519-b'] }, concatBytes(after, before.payload)),
    accept('two layers', CHECKED, layered('two layers', 2, 2, layered('two layers', 1, 2, plaintext))),
  ])
}

const headerVectors = (): Vector[] => {
  const refused = (name: string, code: ErrorCode, options: Options, ...stanzas: MakeStanza[]): Vector =>
    refuse(name, code, options, make(name, stanzas).file)
  const { file, macInput, payload } = make('changed', [x25519Stanza()])
  const text = Buffer.from(file.subarray(0, parseHeader(file).sizeBytes)).toString()
  const edited = (name: string, edit: (header: string) => string): Vector =>
    refuse(name, 'ERR_HEADER_MALFORMED', A, concatBytes(asciiBytes(edit(text)), payload))
  const lowOrder = encodeBase64(allocate(32))
  return [
    edited('version 2', (header) => header.replace('/v1', '/v2')),
    edited('CRLF', (header) => header.replaceAll('\n', '\r\n')),
    edited('padded base64', (header) => header.replace(/(\n--- )/, '=$1')),
    edited('two spaces', (header) => header.replace('X25519 ', 'X25519  ')),
    edited('base64 with bits left over', (header) => header.replace(/.(\n--- )/, (_, rest: string) => `B${rest}`)),
    edited('a body’s line too long', (header) => header.replace(/(\n--- )/, `${'A'.repeat(22)}$1`)),
    edited('no stanza', (header) => `age-encryption.org/v1\n${header.slice(header.indexOf('---'))}`),
    edited('a short MAC', (header) => header.replace(/(--- .{40}).*\n/, '$1\n')),
    edited('no MAC', (header) => header.slice(0, header.indexOf('---'))),
    refuse('no nonce', 'ERR_HEADER_MALFORMED', A, concatBytes(asciiBytes(text), payload.subarray(0, 15))),
    refuse('another MAC', 'ERR_HEADER_MAC', A, concatBytes(encodeHeader(macInput, allocate(32)), payload)),
    refuse('no key', 'ERR_IDENTITY_MISMATCH', { identities: ['x25519-b', 'hybrid', 'sub-key', 'ssh-rsa'] }, file),
    refused(
      'an argument too many',
      'ERR_HEADER_MALFORMED',
      A,
      changed(x25519Stanza(), ({ args, body }) => ({ args: [...args, 'x'], body })),
    ),
    refused(
      'a long body',
      'ERR_HEADER_MALFORMED',
      A,
      changed(x25519Stanza(), ({ args, body }) => ({ args, body: concatBytes(body, allocate(1)) })),
    ),
    refused('a share of low order', 'ERR_HEADER_MALFORMED', A, withArgument(x25519Stanza(), 1, lowOrder)),
    refused(
      'a hybrid share that is short',
      'ERR_HEADER_MALFORMED',
      { identities: ['hybrid'] },
      withArgument(hybridStanza, 1, lowOrder),
    ),
    refused(
      'a short ssh-rsa body',
      'ERR_HEADER_MALFORMED',
      { identities: ['ssh-rsa'] },
      changed(sshRsaStanza, ({ args, body }) => ({ args, body: copyBytes(body.subarray(1)) })),
    ),
    refused(
      'a sub key’s salt that is short',
      'ERR_HEADER_MALFORMED',
      { identities: ['sub-key'] },
      withArgument(subKey, 2, 'AAAA'),
    ),
    refused(
      'a sub key of another step',
      'ERR_IDENTITY_MISMATCH',
      { identities: ['sub-key'] },
      withArgument(subKey, 1, 'epoch/8'),
    ),
    refused(
      'a passphrase beside a key',
      'ERR_HEADER_MALFORMED',
      { identities: ['x25519-a', 'passphrase'] },
      x25519Stanza(),
      passphrase,
    ),
    refused(
      'a passphrase beside a context',
      'ERR_HEADER_MALFORMED',
      { identities: ['passphrase'] },
      passphrase,
      context(),
    ),
    refused(
      'a work factor with a zero',
      'ERR_WORK_FACTOR',
      { identities: ['passphrase'] },
      withArgument(passphrase, 2, '010'),
    ),
    refused(
      'a work factor too high',
      'ERR_WORK_FACTOR',
      { identities: ['passphrase'] },
      withArgument(passphrase, 2, '31'),
    ),
    refuse(
      'a stanza too many',
      'ERR_HEADER_LIMIT',
      A,
      asciiBytes(`age-encryption.org/v1\n${'-> x\n\n'.repeat(STANZA_COUNT_MAX + 1)}`),
    ),
    refuse(
      'a header too large',
      'ERR_HEADER_LIMIT',
      A,
      asciiBytes(`age-encryption.org/v1\n-> ${'x'.repeat(HEADER_SIZE_BYTES_MAX)}\n`),
    ),
    refuse('not an age file', 'ERR_HEADER_MALFORMED', A, asciiBytes('hello')),
  ]
}

const contextVectors = (): Vector[] => {
  const refused = (name: string, code: ErrorCode, ...stanzas: MakeStanza[]): Vector =>
    refuse(name, code, CHECKED, make(name, [x25519Stanza(), ...stanzas]).file)
  const stranger = { authority: KEYS.authority, key: secretOf(KEYS['sub-key']) }
  const another = { authority: publicKeys.a, key: secretOf(KEYS['origin-key']) }
  const body =
    (change: (bytes: Bytes) => Bytes): MakeStanza =>
    (fileKey: Secret) => {
      const { args } = contextStanza(VECTOR_CONTEXT, fileKey, [origin])
      return { args, body: change(encodeContext(VECTOR_CONTEXT)) }
    }
  const name = 'layers'
  const claims = (title: string, body: Uint8Array): Vector =>
    refuse(title, 'ERR_HEADER_MALFORMED', A, make(title, [x25519Stanza(), fixedBody('keyrise/context', body)]).file)
  const fields = { v: 1, ...VECTOR_CONTEXT }
  const encoded = encodeContext(VECTOR_CONTEXT)
  return [
    refused('no context', 'ERR_ORIGIN_INVALID'),
    refused('no tag', 'ERR_ORIGIN_INVALID', context(VECTOR_CONTEXT, [])),
    refused('a tag of another authority', 'ERR_ORIGIN_INVALID', context(VECTOR_CONTEXT, [another])),
    refused('a tag under another key', 'ERR_ORIGIN_INVALID', context(VECTOR_CONTEXT, [stranger])),
    refused(
      'a context that was changed',
      'ERR_ORIGIN_INVALID',
      body(() => encodeContext({ ...VECTOR_CONTEXT, epoch: 8 })),
    ),
    refused('a short tag', 'ERR_ORIGIN_INVALID', withArgument(context(), 2, encodeBase64(allocate(31)))),
    refused('a tag that is no base64', 'ERR_HEADER_MALFORMED', withArgument(context(), 2, '=')),
    claims('a context of version 2', encodeCbor({ ...fields, v: 2 })),
    claims('a context with another key', encodeCbor({ ...fields, x: 1 })),
    claims('a context with a key too few', encodeCbor({ v: 1, flow: 'credit-2026' })),
    claims('a context of another kind', encodeCbor({ ...fields, kind: 'other' })),
    claims('a context with a short image', encodeCbor({ ...fields, image: allocate(31) })),
    claims('a context with a name that is none', encodeCbor({ ...fields, name: '../root' })),
    // `v` and its 1 stand first: behind the others they are out of order.
    claims(
      'a context in another order',
      concatBytes(encoded.subarray(0, 1), encoded.subarray(4), encoded.subarray(1, 4)),
    ),
    refused('another epoch', 'ERR_CONTEXT_MISMATCH', context({ ...VECTOR_CONTEXT, epoch: 8 })),
    refused('two contexts', 'ERR_HEADER_MALFORMED', context(), context()),
    refused(
      'a fingerprint without a tag',
      'ERR_HEADER_MALFORMED',
      changed(context(), ({ args, body: bytes }) => ({ args: [args[0], args[1] ?? ''], body: bytes })),
    ),
    refuse(
      'a fingerprint without a tag, where none is asked for',
      'ERR_HEADER_MALFORMED',
      A,
      make('an odd context', [
        x25519Stanza(),
        changed(context(), ({ args, body: bytes }) => ({ args: [args[0], args[1] ?? ''], body: bytes })),
      ]).file,
    ),
    refuse(
      'a context that is none',
      'ERR_HEADER_MALFORMED',
      A,
      make('a context that is none', [x25519Stanza(), body((bytes) => concatBytes(bytes, allocate(1)))]).file,
    ),
    refuse('an outer layer lost', 'ERR_HEADER_MALFORMED', A, layered(name, 1, 2, plaintext)),
    refuse('a layer within that is none', 'ERR_HEADER_MALFORMED', A, layered(name, 2, 2, plaintext)),
    refuse('a layer skipped', 'ERR_HEADER_MALFORMED', A, layered(name, 3, 3, layered(name, 1, 3, plaintext))),
    refuse('a layer of one', 'ERR_HEADER_MALFORMED', A, layered(name, 1, 1, plaintext)),
  ]
}

/** A full chunk, and behind it an empty one that is the last: both authentic. */
const emptyLast = (): Bytes => {
  const { header, payload, fileKey } = make('an empty last chunk', [x25519Stanza()])
  const nonce = payload.subarray(0, PAYLOAD_NONCE_SIZE)
  const key = derivePayloadKey(fileKey, nonce)
  const [full, empty] = [allocate(SEALED_CHUNK_SIZE), allocate(TAG_SIZE)]
  sealChunks(key, { first: 0, isEnd: false }, allocate(CHUNK_SIZE), full)
  sealChunks(key, { first: 1, isEnd: true }, allocate(0), empty)
  return concatBytes(header, nonce, full, empty)
}

const payloadVectors = (): Vector[] => {
  const { header, payload, file } = make('payload', [x25519Stanza()])
  const two = make('payload of two', [x25519Stanza()], allocate(CHUNK_SIZE + 1))
  const flipped = copyBytes(file)
  flipped[flipped.length - 1] = (flipped[flipped.length - 1] as number) ^ 1
  const armor = Buffer.from(encodeArmor(file)).toString()
  const unarmored = (name: string, edit: (text: string) => string): Vector =>
    refuse(name, 'ERR_ARMOR_INVALID', { ...A, armored: true }, asciiBytes(edit(armor)))
  return [
    refuse('a changed chunk', 'ERR_PAYLOAD_INVALID', A, flipped),
    refuse('a trailing byte', 'ERR_PAYLOAD_INVALID', A, concatBytes(file, allocate(1))),
    refuse('a last chunk shorter than a tag', 'ERR_PAYLOAD_TRUNCATED', A, concatBytes(header, payload.subarray(0, 31))),
    refuse('an empty last chunk', 'ERR_PAYLOAD_INVALID', A, emptyLast()),
    refuse('no chunk', 'ERR_PAYLOAD_TRUNCATED', A, concatBytes(header, payload.subarray(0, 16))),
    refuse(
      'cut between chunks',
      'ERR_PAYLOAD_TRUNCATED',
      A,
      two.file.subarray(0, two.header.length + 16 + SEALED_CHUNK_SIZE),
    ),
    unarmored('armor without an end', (text) => text.slice(0, text.lastIndexOf('-----END'))),
    unarmored('armor with a header', (text) => text.replace('FILE-----\n', 'FILE-----\nVersion: 1\n')),
    unarmored('armor after text', (text) => `x${text}`),
    unarmored('armor with a digit missing', (text) => text.replace(/.\n-----END/, '\n-----END')),
  ]
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
  vectors: [...(await acceptedVectors()), ...headerVectors(), ...contextVectors(), ...payloadVectors()],
})

export type VectorsDocument = Awaited<ReturnType<typeof makeVectors>>

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const options = await prettier.resolveConfig(VECTORS_FILE)
  writeFileSync(
    VECTORS_FILE,
    await prettier.format(JSON.stringify(await makeVectors()), { ...options, parser: 'json' }),
  )
}
