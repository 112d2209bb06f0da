import { bech32 } from '@scure/base'
import * as age from 'age-encryption'
import test from 'ava'
import fc from 'fast-check'
import { encodeHeader, encodeMacInput, parseHeader, type Stanza } from '../../protocol/age-header.js'
import type { ByteSink } from '../../protocol/age-stream.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { envelopeDigest, openEnvelope, sealEnvelope, unwrapHeader } from '../../protocol/crypto/envelope.js'
import { openLayers, sealLayers } from '../../protocol/crypto/layers.js'
import { contextStanza } from '../../protocol/crypto/origin.js'
import { CHUNK_SIZE, SEALED_CHUNK_SIZE } from '../../protocol/crypto/payload.js'
import { hkdf, hmac, nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  scryptIdentity,
  scryptRecipient,
  x25519Identity,
  x25519Recipient,
  type Recipient,
} from '../../protocol/crypto/recipients.js'
import {
  resealEnvelope,
  resealer,
  rewrapHeader,
  rewrapper,
  type ResealOptions,
  type RewrapOptions,
} from '../../protocol/crypto/rewrap.js'
import type { ErrorCode } from '../../protocol/errors.js'
import { STANZA_COUNT_MAX } from '../../protocol/limits.js'
import { codeOf, collect, CONTEXT, flipBit, fromText, pushAll, randomBytes, randomSecret } from './fixtures.js'

const keyPair = () => {
  const privateKey = randomSecret()
  return { recipient: x25519Recipient(x25519PublicKey(privateKey)), identity: x25519Identity(privateKey) }
}
const [oldKey, newKey, otherKey] = [keyPair(), keyPair(), keyPair()]
const passphrase = randomSecret(20)
const byPassphrase = scryptRecipient(passphrase, 2)
const origins = [1, 2].map((byte) => ({ authority: allocate(32).fill(byte), key: randomSecret() }))
const [origin, otherOrigin] = origins as [(typeof origins)[0], (typeof origins)[0]]

const plaintext = randomBytes(CHUNK_SIZE + 100)
const stranger: Recipient = { wrap: () => ({ args: ['example.com/other', 'x'], body: randomBytes(80) }) }
const sealed = sealEnvelope(plaintext, {
  recipients: [otherKey.recipient, stranger, oldKey.recipient],
  context: CONTEXT,
  originKeys: origins,
  random: nodeRandom,
})
const payloadOf = (envelope: Uint8Array): Uint8Array => envelope.subarray(parseHeader(envelope).sizeBytes)
const typesOf = (envelope: Uint8Array) => parseHeader(envelope).stanzas.map(({ args }) => args[0])
const stanzaOf = (envelope: Uint8Array, type: string) =>
  parseHeader(envelope).stanzas.find(({ args }) => args[0] === type)

const rewrapOptions: RewrapOptions = {
  identities: [oldKey.identity],
  recipients: [newKey.recipient],
  random: nodeRandom,
}
const resealOptions: ResealOptions = { ...rewrapOptions, originKeys: origins }
const rewrapped = (envelope: Uint8Array, options = rewrapOptions): Bytes =>
  concatBytes(rewrapHeader(envelope, options), payloadOf(envelope))
/** What `stage` makes of `envelope`, pushed in pieces. */
const streamed = (envelope: Uint8Array, stage: (next: ByteSink) => ByteSink, pieceSize = 1000) => {
  const { sink, taken, isEnded } = collect()
  const code = codeOf(() => {
    pushAll(stage(sink), envelope, () => pieceSize)
  })
  return { code, file: taken(), isEnded: isEnded() }
}
const opensWith = (envelope: Uint8Array, { identity }: typeof oldKey) =>
  codeOf(() => openEnvelope(envelope, { identities: [identity], origin, expect: CONTEXT })) === undefined

test('a rewrap opens for the new recipients only, its context vouched for as before', (t) => {
  const envelope = rewrapped(sealed)
  const opened = openEnvelope(envelope, { identities: [newKey.identity], origin: otherOrigin, expect: CONTEXT })
  t.deepEqual(opened, { plaintext, context: CONTEXT })
  t.deepEqual(typesOf(envelope), ['X25519', 'keyrise/context'])
  t.deepEqual(stanzaOf(envelope, 'keyrise/context'), stanzaOf(sealed, 'keyrise/context'))
  t.false(opensWith(envelope, oldKey))
  t.false(opensWith(envelope, otherKey))
})

test('a rewrap keeps file key, payload and digest', (t) => {
  const envelope = rewrapped(sealed)
  using before = unwrapHeader(parseHeader(sealed), [oldKey.identity])
  using after = unwrapHeader(parseHeader(envelope), [newKey.identity])
  t.true(after.equals(before))
  t.deepEqual(envelopeDigest(envelope), envelopeDigest(sealed))
})

test('a header alone rewraps as the file does, any number of times', (t) => {
  let header = copyBytes(sealed.subarray(0, parseHeader(sealed).sizeBytes))
  for (const [from, to] of [
    [oldKey, newKey],
    [newKey, otherKey],
    [otherKey, oldKey],
  ] as const)
    header = rewrapHeader(header, { ...rewrapOptions, identities: [from.identity], recipients: [to.recipient] })
  t.true(opensWith(concatBytes(header, payloadOf(sealed)), oldKey))
})

test('a rewrap in a stream is one of the whole, and a refusal passes nothing on', (t) => {
  for (const pieceSize of [1, 777, sealed.length]) {
    const { file, isEnded } = streamed(sealed, (next) => rewrapper(rewrapOptions, next), pieceSize)
    t.true(isEnded)
    t.deepEqual(copyBytes(payloadOf(file)), copyBytes(payloadOf(sealed)))
    t.true(opensWith(file, newKey))
  }
  const wrong = { ...rewrapOptions, identities: [newKey.identity] }
  t.deepEqual(
    streamed(sealed, (next) => rewrapper(wrong, next)),
    { code: 'ERR_IDENTITY_MISMATCH', file: allocate(0), isEnded: false },
  )
})

test('a passphrase file becomes a file for a key and the other way round, but never a file for both', (t) => {
  const plain = sealEnvelope(plaintext, { recipients: [byPassphrase], random: nodeRandom })
  const identities = [scryptIdentity(passphrase, 2)]
  for (const change of [rewrapped, resealEnvelope]) {
    const toKey = change(plain, { ...rewrapOptions, identities })
    t.deepEqual(openEnvelope(toKey, { identities: [newKey.identity] }).plaintext, plaintext)
    const back = change(toKey, { ...rewrapOptions, identities: [newKey.identity], recipients: [byPassphrase] })
    t.deepEqual(openEnvelope(back, { identities }).plaintext, plaintext)
    for (const recipients of [
      [byPassphrase, newKey.recipient],
      [byPassphrase, byPassphrase],
    ])
      t.is(
        codeOf(() => change(plain, { ...rewrapOptions, identities, recipients })),
        'ERR_HEADER_MALFORMED',
      )
  }
  // A context is another stanza.
  for (const change of [rewrapped, resealEnvelope])
    t.is(
      codeOf(() => change(sealed, { ...resealOptions, recipients: [byPassphrase] })),
      'ERR_HEADER_MALFORMED',
    )
})

test('a reseal has another file key, nonce and digest, and opens for the new recipients only', (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 5),
      fc.integer({ min: 50, max: 99_999 }),
      (size, piece) => {
        const content = randomBytes(size)
        const envelope = sealEnvelope(content, { recipients: [oldKey.recipient], random: nodeRandom })
        const { file } = streamed(envelope, (next) => resealer(rewrapOptions, next), piece)
        for (const changed of [resealEnvelope(envelope, rewrapOptions), file]) {
          t.deepEqual(openEnvelope(changed, { identities: [newKey.identity] }).plaintext, content)
          using before = unwrapHeader(parseHeader(envelope), [oldKey.identity])
          using after = unwrapHeader(parseHeader(changed), [newKey.identity])
          t.false(after.equals(before))
          t.notDeepEqual(payloadOf(changed).slice(0, 16), payloadOf(envelope).slice(0, 16))
          t.notDeepEqual(envelopeDigest(changed), envelopeDigest(envelope))
          t.is(
            codeOf(() => openEnvelope(changed, { identities: [oldKey.identity] })),
            'ERR_IDENTITY_MISMATCH',
          )
        }
      },
    ),
    { numRuns: 10 },
  )
})

test('a reseal keeps the context, and every authority vouches for it anew', (t) => {
  for (const changed of [
    resealEnvelope(sealed, resealOptions),
    streamed(sealed, (next) => resealer(resealOptions, next)).file,
  ]) {
    for (const each of origins)
      t.deepEqual(openEnvelope(changed, { identities: [newKey.identity], origin: each, expect: CONTEXT }), {
        plaintext,
        context: CONTEXT,
      })
    t.deepEqual(stanzaOf(changed, 'keyrise/context')?.body, stanzaOf(sealed, 'keyrise/context')?.body)
    t.notDeepEqual(stanzaOf(changed, 'keyrise/context'), stanzaOf(sealed, 'keyrise/context'))
    t.deepEqual(typesOf(changed), ['X25519', 'keyrise/context'])
  }
})

test('a reseal never loses an authority, adds one, or vouches for what was not vouched for', (t) => {
  const untagged = sealEnvelope(plaintext, { recipients: [oldKey.recipient], context: CONTEXT, random: nodeRandom })
  const twice = rebuild(untagged, ([recipient], fileKey) => [
    recipient,
    contextStanza(CONTEXT, fileKey, [origin, origin]),
  ])
  const forged = { ...otherOrigin, key: randomSecret() }
  for (const [envelope, originKeys] of [
    [sealed, []],
    [sealed, [origin]],
    [sealed, [origin, origin]],
    [sealed, [origin, forged]],
    [sealed, [...origins, { ...origin, authority: allocate(32).fill(3) }]],
    [untagged, [origin]],
    [twice, [origin]],
  ] as const)
    t.is(
      codeOf(() => resealEnvelope(envelope, { ...resealOptions, originKeys })),
      'ERR_ORIGIN_INVALID',
    )
  t.notThrows(() => resealEnvelope(untagged, { ...resealOptions, originKeys: [] }))
})

/** `envelope` with other stanzas under a right MAC, as one who knows the file key can make it. */
function rebuild(
  envelope: Uint8Array,
  change: (stanzas: readonly [Stanza, ...Stanza[]], fileKey: ReturnType<typeof unwrapHeader>) => readonly Stanza[],
): Bytes {
  const header = parseHeader(envelope)
  using fileKey = unwrapHeader(header, [oldKey.identity])
  const macInput = encodeMacInput(change(header.stanzas as readonly [Stanza, ...Stanza[]], fileKey))
  const macKey = fileKey.expose((bytes) => hkdf(bytes, allocate(0), fromText('header'), 32))
  return concatBytes(encodeHeader(macInput, hmac(macKey, macInput)), envelope.subarray(header.sizeBytes))
}

test('the outermost layer changes its recipients and stays a layer', (t) => {
  const [inner, outer] = [keyPair(), keyPair()]
  const layers = [[inner.recipient], [outer.recipient]]
  const envelope = sealLayers(plaintext, { layers, context: CONTEXT, originKeys: origins, random: nodeRandom })
  const options = { ...resealOptions, identities: [outer.identity] }
  for (const changed of [
    rewrapped(envelope, options),
    resealEnvelope(envelope, options),
    streamed(envelope, (next) => resealer(options, next)).file,
  ]) {
    t.deepEqual(stanzaOf(changed, 'keyrise/layer'), stanzaOf(envelope, 'keyrise/layer'))
    const identities = [newKey.identity, inner.identity]
    t.deepEqual(openLayers(changed, { identities, origin, expect: CONTEXT }), { plaintext, context: CONTEXT })
    t.is(
      codeOf(() => openLayers(changed, { identities: [outer.identity, inner.identity] })),
      'ERR_IDENTITY_MISMATCH',
    )
  }
  t.is(
    codeOf(() => rewrapHeader(envelope, { ...options, recipients: [byPassphrase] })),
    'ERR_HEADER_MALFORMED',
  )
})

const wrongMac = (() => {
  const { macInput, mac, sizeBytes } = parseHeader(sealed)
  return concatBytes(encodeHeader(macInput, flipBit(mac, 0)), sealed.subarray(sizeBytes))
})()
const lowOrder = x25519Recipient(allocate(32))

test('what does not open is neither rewrapped nor resealed', (t) => {
  const many = Array.from({ length: STANZA_COUNT_MAX }, () => newKey.recipient)
  const refused: [ErrorCode, Bytes, Partial<ResealOptions>][] = [
    ['ERR_IDENTITY_MISMATCH', sealed, { identities: [newKey.identity] }],
    ['ERR_HEADER_MAC', wrongMac, {}],
    ['ERR_HEADER_MALFORMED', fromText('age-encryption.org/v2\n'), {}],
    ['ERR_HEADER_MALFORMED', rebuild(sealed, (stanzas) => [...stanzas, stanzas[3] as Stanza]), {}],
    [
      'ERR_HEADER_MALFORMED',
      rebuild(sealed, (stanzas) => [...stanzas, { args: ['keyrise/layer', '0', '2'], body: allocate(0) }]),
      {},
    ],
    [
      'ERR_HEADER_MALFORMED',
      rebuild(sealed, ([first]) => [first, { args: ['X25519', 'AAAA'], body: allocate(32) }]),
      {},
    ],
    ['ERR_ORIGIN_INVALID', sealed, { origin: { ...origin, key: randomSecret() } }],
    ['ERR_CONTEXT_MISMATCH', sealed, { expect: { epoch: 8 } }],
    ['ERR_HEADER_LIMIT', sealed, { recipients: many }],
    ['ERR_KEY_INVALID', sealed, { recipients: [lowOrder] }],
  ]
  for (const [code, envelope, change] of refused) {
    const options = { ...resealOptions, ...change }
    t.is(
      codeOf(() => rewrapHeader(envelope, options)),
      code,
    )
    t.is(
      codeOf(() => resealEnvelope(envelope, options)),
      code,
    )
    t.deepEqual(
      streamed(envelope, (next) => resealer(options, next)),
      { code, file: allocate(0), isEnded: false },
    )
  }
  for (const change of [rewrapHeader, resealEnvelope])
    t.throws(() => change(sealed, { ...resealOptions, recipients: [] }), { instanceOf: TypeError })
})

test('a work factor above the reader’s limit is neither rewrapped nor resealed', (t) => {
  const costly = sealEnvelope(plaintext, { recipients: [scryptRecipient(passphrase, 3)], random: nodeRandom })
  for (const change of [rewrapHeader, resealEnvelope])
    t.is(
      codeOf(() => change(costly, { ...rewrapOptions, identities: [scryptIdentity(passphrase, 2)] })),
      'ERR_WORK_FACTOR',
    )
})

test('a payload that does not open is resealed to nothing that opens', (t) => {
  const { sizeBytes } = parseHeader(sealed)
  const firstEnd = sizeBytes + 16 + SEALED_CHUNK_SIZE
  for (const [envelope, code] of [
    [flipBit(sealed, sealed.length * 8 - 1), 'ERR_PAYLOAD_INVALID'],
    [copyBytes(sealed.subarray(0, firstEnd)), 'ERR_PAYLOAD_TRUNCATED'],
    [copyBytes(sealed.subarray(0, sizeBytes + 16)), 'ERR_PAYLOAD_TRUNCATED'],
    [copyBytes(sealed.subarray(0, sizeBytes + 15)), 'ERR_HEADER_MALFORMED'],
  ] as const) {
    t.is(
      codeOf(() => resealEnvelope(envelope, resealOptions)),
      code,
    )
    const { code: streamCode, file, isEnded } = streamed(envelope, (next) => resealer(resealOptions, next))
    t.is(streamCode, code)
    t.false(isEnded)
    t.false(opensWith(file, newKey))
  }
})

test('typage opens what was rewrapped and what was resealed', async (t) => {
  const identity = await age.generateX25519Identity()
  const recipient = await age.identityToRecipient(identity)
  const options = { ...resealOptions, recipients: [x25519Recipient(bech32.decodeToBytes(recipient).bytes)] }
  const decrypter = new age.Decrypter()
  decrypter.addIdentity(identity)
  for (const file of [rewrapped(sealed, options), resealEnvelope(sealed, options)])
    t.deepEqual(copyBytes(await decrypter.decrypt(file)), plaintext)
})
