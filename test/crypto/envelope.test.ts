import test from 'ava'
import fc from 'fast-check'
import { encodeHeader, encodeMacInput, parseHeader, type Stanza } from '../../protocol/age-header.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { encodeContext, type EnvelopeContext } from '../../protocol/context.js'
import { outsideCode } from '../../protocol/errors.js'
import { parseFlowId } from '../../protocol/names.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import {
  claimedContext,
  envelopeDigest,
  openEnvelope,
  openPayloadOf,
  sealEnvelope,
  unwrapHeader,
  verifyOrigin,
  type CheckOptions,
  type Origin,
  type SealOptions,
} from '../../protocol/crypto/envelope.js'
import { hkdf, hmac, nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  scryptIdentity,
  scryptRecipient,
  subKeyIdentity,
  subKeyRecipient,
  x25519Identity,
  x25519Recipient,
  type Recipient,
} from '../../protocol/crypto/recipients.js'
import type { Secret } from '../../protocol/crypto/secret.js'
import { codeOf, CONTEXT, flipBit, fromText, randomBytes, randomSecret, secretOf } from './fixtures.js'

const privateKey = randomSecret()
const kms = { recipient: x25519Recipient(x25519PublicKey(privateKey)), identity: x25519Identity(privateKey) }
const subKey = randomSecret()
const step = { recipient: subKeyRecipient('epoch/7', subKey), identity: subKeyIdentity('epoch/7', subKey) }
const stranger = x25519Identity(randomSecret())
const origin: Origin = { authority: allocate(32).fill(1), key: randomSecret() }
const mirror: Origin = { authority: allocate(32).fill(2), key: randomSecret() }
const plaintext = fromText('gradient of round 3')

const seal = (options: Partial<SealOptions> = {}): Bytes =>
  sealEnvelope(plaintext, {
    recipients: [kms.recipient],
    context: CONTEXT,
    originKeys: [origin],
    random: nodeRandom,
    ...options,
  })
const open = (envelope: Uint8Array, options: CheckOptions = {}) =>
  openEnvelope(envelope, { identities: [kms.identity], ...options })
const refusal = (envelope: Uint8Array, options: CheckOptions = { origin, expect: CONTEXT }) =>
  codeOf(() => open(envelope, options))
const fileKeyOf = (envelope: Uint8Array): Secret => unwrapHeader(parseHeader(envelope), [kms.identity])

test('whatever was sealed opens with each of its recipients’ identities, and with no other', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const envelope = sealEnvelope(bytes, {
        recipients: [kms.recipient, step.recipient],
        context: CONTEXT,
        random: nodeRandom,
      })
      for (const identity of [kms.identity, step.identity]) {
        t.deepEqual(openEnvelope(envelope, { identities: [stranger, identity] }), {
          plaintext: copyBytes(bytes),
          context: CONTEXT,
        })
      }
      t.is(
        codeOf(() => openEnvelope(envelope, { identities: [stranger] })),
        'ERR_IDENTITY_MISMATCH',
      )
      t.is(
        codeOf(() => openEnvelope(envelope, { identities: [] })),
        'ERR_IDENTITY_MISMATCH',
      )
    }),
    { numRuns: 20 },
  )
})

test('every truncation of an envelope is refused', (t) => {
  const envelope = seal()
  t.is(refusal(envelope), undefined)
  for (let size = 0; size < envelope.length; size++)
    t.is(outsideCode(refusal(envelope.subarray(0, size)) ?? 'ERR_ECALL_UNKNOWN'), 'ERR_ENVELOPE_INVALID')
})

test('every flipped bit of an envelope is refused', (t) => {
  const envelope = seal()
  for (let bit = 0; bit < envelope.length * 8; bit++)
    t.is(outsideCode(refusal(flipBit(envelope, bit)) ?? 'ERR_ECALL_UNKNOWN'), 'ERR_ENVELOPE_INVALID')
})

test('trailing bytes, NULs and foreign bytes are refused', (t) => {
  t.is(refusal(concatBytes(seal(), allocate(1))), 'ERR_PAYLOAD_INVALID')
  t.is(refusal(allocate(0)), 'ERR_HEADER_MALFORMED')
  t.is(refusal(allocate(1000)), 'ERR_HEADER_MALFORMED')
  t.is(refusal(randomBytes(1000)), 'ERR_HEADER_MALFORMED')
})

test('case 5: the header of one envelope with the payload of another is refused', (t) => {
  const [a, b] = [seal(), seal()]
  const [headerA, headerB] = [parseHeader(a), parseHeader(b)]
  t.is(refusal(concatBytes(a.subarray(0, headerA.sizeBytes), b.subarray(headerB.sizeBytes))), 'ERR_PAYLOAD_INVALID')
})

/** A header of `stanzas` with a right MAC, as one who knows the file key can make it. */
const rebuild = (fileKey: Secret, stanzas: readonly Stanza[], payload: Uint8Array): Bytes => {
  const macInput = encodeMacInput(stanzas)
  const key = fileKey.expose((bytes) => hkdf(bytes, allocate(0), fromText('header'), 32))
  return concatBytes(encodeHeader(macInput, hmac(key, macInput)), payload)
}
const partsOf = (envelope: Uint8Array) => {
  const header = parseHeader(envelope)
  return { stanzas: header.stanzas, payload: envelope.subarray(header.sizeBytes), fileKey: fileKeyOf(envelope) }
}

test('a stanza added, dropped, doubled or moved breaks the MAC', (t) => {
  const envelope = seal({ recipients: [kms.recipient, step.recipient] })
  const { stanzas, payload } = partsOf(envelope)
  const [first, second, context] = stanzas as [Stanza, Stanza, Stanza]
  const { mac } = parseHeader(envelope)
  for (const changed of [
    [first, context],
    [second, first, context],
    [first, first, second, context],
    [...stanzas, { args: ['x'] as const, body: allocate(0) }],
  ]) {
    t.is(refusal(concatBytes(encodeHeader(encodeMacInput(changed), mac), payload)), 'ERR_HEADER_MAC')
  }
})

test('a wrong file key is refused by the MAC before anything is opened', (t) => {
  const envelope = seal()
  t.deepEqual(openPayloadOf(envelope, fileKeyOf(envelope), { origin, expect: CONTEXT }).plaintext, plaintext)
  t.is(
    codeOf(() => openPayloadOf(envelope, randomSecret(16))),
    'ERR_HEADER_MAC',
  )
})

test('case 6: a file that a host forges to the right recipient has no origin', (t) => {
  t.is(refusal(seal({ originKeys: [] })), 'ERR_ORIGIN_INVALID')
  t.is(refusal(sealEnvelope(plaintext, { recipients: [kms.recipient], random: nodeRandom })), 'ERR_ORIGIN_INVALID')
  t.is(refusal(seal({ originKeys: [{ authority: origin.authority, key: randomSecret() }] })), 'ERR_ORIGIN_INVALID')
  t.is(refusal(seal({ originKeys: [mirror] })), 'ERR_ORIGIN_INVALID')
})

test('the context stanza of another envelope, under a right MAC, is refused: the tag binds the file key', (t) => {
  const [genuine, forged] = [partsOf(seal()), partsOf(seal({ originKeys: [] }))]
  const stolen = [...forged.stanzas.slice(0, 1), ...genuine.stanzas.slice(1)]
  t.is(refusal(rebuild(forged.fileKey, stolen, forged.payload)), 'ERR_ORIGIN_INVALID')
  t.is(refusal(rebuild(genuine.fileKey, genuine.stanzas, genuine.payload)), undefined)
})

const OTHERS: { readonly [Field in keyof EnvelopeContext]: EnvelopeContext[Field] } = {
  flow: parseFlowId('credit-2027'),
  task: parseFlowId('debit'),
  kind: 'final-result',
  name: 'intermediate-result/round-4',
  epoch: 8,
  incarnation: 3,
  image: allocate(32),
}
for (const field of Object.keys(OTHERS) as (keyof EnvelopeContext)[]) {
  test(`another ${field} is refused where it is expected, and where it is put into the context`, (t) => {
    const other = { ...CONTEXT, [field]: OTHERS[field] }
    t.is(refusal(seal(), { origin, expect: other }), 'ERR_CONTEXT_MISMATCH')
    t.is(refusal(seal(), { origin, expect: { [field]: OTHERS[field] } }), 'ERR_CONTEXT_MISMATCH')
    const { stanzas, payload, fileKey } = partsOf(seal())
    const changed = stanzas.map((stanza) =>
      stanza.args[0] === 'keyrise/context' ? { ...stanza, body: encodeContext(other) } : stanza,
    )
    t.is(refusal(rebuild(fileKey, changed, payload)), 'ERR_ORIGIN_INVALID')
  })
}

test('a context is expected in vain where there is none', (t) => {
  const envelope = sealEnvelope(plaintext, { recipients: [kms.recipient], random: nodeRandom })
  t.is(refusal(envelope, { expect: { flow: CONTEXT.flow } }), 'ERR_CONTEXT_MISMATCH')
  t.deepEqual(open(envelope), { plaintext, context: undefined })
})

test('each authority verifies its own tag', (t) => {
  const envelope = seal({ originKeys: [origin, mirror] })
  const header = parseHeader(envelope)
  for (const each of [origin, mirror]) t.deepEqual(verifyOrigin(header, fileKeyOf(envelope), each), CONTEXT)
  t.deepEqual(claimedContext(header), CONTEXT)
  t.is(
    codeOf(() => verifyOrigin(header, fileKeyOf(envelope), { authority: origin.authority, key: mirror.key })),
    'ERR_ORIGIN_INVALID',
  )
})

test('two contexts, a fingerprint without a tag, and a body that is no context are refused', (t) => {
  const { stanzas, payload, fileKey } = partsOf(seal())
  const [wrapped, context] = stanzas as [Stanza, Stanza]
  const refused = (...changed: Stanza[]) => refusal(rebuild(fileKey, [wrapped, ...changed], payload))
  t.is(refused(context, context), 'ERR_HEADER_MALFORMED')
  const [, authority = ''] = context.args
  t.is(refused({ ...context, args: ['keyrise/context', authority] }), 'ERR_HEADER_MALFORMED')
  t.is(refused({ ...context, args: [...context.args, authority] }), 'ERR_HEADER_MALFORMED')
  const unread = (body: Bytes) => refusal(rebuild(fileKey, [wrapped, { ...context, body }], payload), {})
  t.is(unread(allocate(0)), 'ERR_HEADER_MALFORMED')
  t.is(unread(concatBytes(context.body, allocate(1))), 'ERR_HEADER_MALFORMED')
  t.is(unread(encodeContext({ ...CONTEXT, name: '../x' })), 'ERR_HEADER_MALFORMED')
})

test('case 20: a passphrase is alone in its header, in either order, for whoever opens it', (t) => {
  const passphrase = secretOf(fromText('swordfish'))
  const [scrypt, identity] = [scryptRecipient(passphrase, 4), scryptIdentity(passphrase)]
  const alone = sealEnvelope(plaintext, { recipients: [scrypt], random: nodeRandom })
  t.deepEqual(openEnvelope(alone, { identities: [identity] }).plaintext, plaintext)

  const mixes: Recipient[][] = [
    [scrypt, kms.recipient],
    [kms.recipient, scrypt],
    [scrypt, scrypt],
  ]
  for (const recipients of mixes) {
    t.is(
      codeOf(() => sealEnvelope(plaintext, { recipients, random: nodeRandom })),
      'ERR_HEADER_MALFORMED',
    )
    const fileKey = randomSecret(16)
    const mixed = rebuild(
      fileKey,
      recipients.map((recipient) => recipient.wrap(fileKey, nodeRandom)),
      allocate(32),
    )
    for (const each of [identity, kms.identity]) {
      t.is(
        codeOf(() => openEnvelope(mixed, { identities: [each] })),
        'ERR_HEADER_MALFORMED',
      )
    }
  }
  t.is(
    codeOf(() => seal({ recipients: [scrypt] })),
    'ERR_HEADER_MALFORMED',
  )
})

test('an envelope without a recipient, and a tag without a context, are a programmer’s bugs', (t) => {
  t.throws(() => seal({ recipients: [] }), { instanceOf: TypeError })
  t.throws(() => sealEnvelope(plaintext, { recipients: [kms.recipient], originKeys: [origin], random: nodeRandom }), {
    instanceOf: TypeError,
  })
})

test('the digest outlives a rewrap, and nothing else', (t) => {
  const envelope = seal()
  const { stanzas, payload, fileKey } = partsOf(envelope)
  const rewrapped = rebuild(fileKey, [step.recipient.wrap(fileKey, nodeRandom), ...stanzas.slice(1)], payload)
  t.notDeepEqual(rewrapped, envelope)
  t.deepEqual(envelopeDigest(rewrapped), envelopeDigest(envelope))
  t.deepEqual(openEnvelope(rewrapped, { identities: [step.identity], origin }).plaintext, plaintext)

  const others = [
    seal(),
    rebuild(fileKey, stanzas.slice(0, 1), payload),
    rebuild(
      fileKey,
      [stanzas[0] as Stanza, { ...(stanzas[1] as Stanza), body: encodeContext({ ...CONTEXT, epoch: 8 }) }],
      payload,
    ),
    rebuild(fileKey, stanzas, flipBit(payload, 0)),
    rebuild(fileKey, stanzas, flipBit(payload, payload.length * 8 - 1)),
  ]
  for (const other of others) t.notDeepEqual(envelopeDigest(other), envelopeDigest(envelope))
  t.is(
    codeOf(() => envelopeDigest(rebuild(fileKey, stanzas, allocate(31)))),
    'ERR_PAYLOAD_TRUNCATED',
  )
})

test('file keys are wiped, whether the envelope opens or not', (t) => {
  const lent: Bytes[] = []
  const watched = (recipient: Recipient): Recipient => ({
    wrap(fileKey, random) {
      lent.push(fileKey.expose((bytes) => bytes))
      return recipient.wrap(fileKey, random)
    },
  })
  const spy = {
    unwrap(stanza: Stanza) {
      const fileKey = kms.identity.unwrap(stanza)
      if (fileKey !== undefined) lent.push(fileKey.expose((bytes) => bytes))
      return fileKey
    },
  }
  const envelope = seal({ recipients: [watched(kms.recipient)] })
  openEnvelope(envelope, { identities: [spy] })
  const { macInput, mac, sizeBytes } = parseHeader(envelope)
  const wrongMac = concatBytes(encodeHeader(macInput, flipBit(mac, 0)), envelope.subarray(sizeBytes))
  const openSpied = (broken: Uint8Array) => codeOf(() => openEnvelope(broken, { identities: [spy] }))
  t.is(openSpied(flipBit(envelope, envelope.length * 8 - 1)), 'ERR_PAYLOAD_INVALID')
  t.is(openSpied(wrongMac), 'ERR_HEADER_MAC')
  const failing: Recipient = {
    wrap() {
      throw new Error('no')
    },
  }
  t.throws(() => seal({ recipients: [watched(kms.recipient), failing] }))
  t.is(lent.length, 5)
  for (const bytes of lent) t.deepEqual(bytes, allocate(16))
})
