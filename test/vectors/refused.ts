import { encodeArmor } from '../../protocol/age-armor.js'
import { decodeBase64, encodeBase64, encodeHeader, parseHeader } from '../../protocol/age-header.js'
import { allocate, asciiBytes, type Bytes, concatBytes, copyBytes } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { encodeContext } from '../../protocol/context.js'
import { contextStanza } from '../../protocol/crypto/origin.js'
import {
  CHUNK_SIZE,
  derivePayloadKey,
  PAYLOAD_NONCE_SIZE,
  sealChunks,
  SEALED_CHUNK_SIZE,
} from '../../protocol/crypto/payload.js'
import { sealChaCha, TAG_SIZE } from '../../protocol/crypto/primitives.js'
import type { Secret } from '../../protocol/crypto/secret.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX, STANZA_COUNT_MAX } from '../../protocol/limits.js'
import { KEYS, publicKeys, secretOf } from './keys.js'
import {
  A,
  changed,
  CHECKED,
  context,
  fixed,
  fixedBody,
  layered,
  make,
  type Options,
  origin,
  passphrase,
  plaintext,
  refuse,
  subKey,
  type Vector,
  VECTOR_CONTEXT,
  withArgument,
} from './makers.js'
import { hybridStanza, type MakeStanza, sshRsaStanza, x25519Stanza } from './stanzas.js'

/** Files that a reader must refuse. */

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
      'a hybrid share of low order',
      'ERR_HEADER_MALFORMED',
      { identities: ['hybrid'] },
      changed(hybridStanza, ({ args: [type, share = ''], body }) => ({
        args: [type, encodeBase64(decodeBase64(share).fill(0, -32))],
        body,
      })),
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
  const ofTwoLayers = (title: string, ...numbers: readonly [string, string][]): Bytes =>
    make(`layers/${title}`, [x25519Stanza(), ...numbers.map((pair) => fixed('keyrise/layer', ...pair))]).file
  const lost = layered(name, 1, 2, plaintext)
  lost[lost.length - 1] = (lost[lost.length - 1] as number) ^ 1
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
    refuse('two layer stanzas', 'ERR_HEADER_MALFORMED', A, ofTwoLayers('two', ['1', '2'], ['1', '2'])),
    refuse(
      'a layer’s number with a zero, and no key',
      'ERR_HEADER_MALFORMED',
      { identities: ['x25519-b'] },
      ofTwoLayers('zero', ['01', '2']),
    ),
    refuse('an outer layer lost, and a changed chunk', 'ERR_HEADER_MALFORMED', A, lost),
    refuse(
      'layers of different contexts',
      'ERR_CONTEXT_MISMATCH',
      A,
      layered(
        name,
        2,
        2,
        make('layers/another context', [
          x25519Stanza(),
          context({ ...VECTOR_CONTEXT, epoch: 8 }),
          fixed('keyrise/layer', '1', '2'),
        ]).file,
      ),
    ),
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

/** A short chunk, alone, that its sender did not make the last. */
const shortBeginning = (): Bytes => {
  const { header, payload, fileKey } = make('a short chunk', [x25519Stanza()])
  const nonce = payload.subarray(0, PAYLOAD_NONCE_SIZE)
  const sealed = allocate(plaintext.length + TAG_SIZE)
  sealChaCha(derivePayloadKey(fileKey, nonce), allocate(12), plaintext, sealed)
  return concatBytes(header, nonce, sealed)
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
    refuse('a short chunk that is not the last', 'ERR_PAYLOAD_TRUNCATED', A, shortBeginning()),
    unarmored('armor without an end', (text) => text.slice(0, text.lastIndexOf('-----END'))),
    unarmored('armor with a header', (text) => text.replace('FILE-----\n', 'FILE-----\nVersion: 1\n')),
    unarmored('armor after text', (text) => `x${text}`),
    unarmored('armor with a digit missing', (text) => text.replace(/.\n-----END/, '\n-----END')),
  ]
}

export const refusedVectors = (): Vector[] => [...headerVectors(), ...contextVectors(), ...payloadVectors()]
