import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parseHeader } from '../../protocol/age-header.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { envelopeOpener } from '../../protocol/crypto/envelope-stream.js'
import { openEnvelope, sealBehind, sealEnvelope, sealHeader, unwrapHeader } from '../../protocol/crypto/envelope.js'
import { layerStanza } from '../../protocol/crypto/layer-stanza.js'
import { openCopies, openLayers, sealCopies, sealLayers } from '../../protocol/crypto/layers.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeX25519Identity,
  scryptIdentity,
  scryptRecipient,
  subKeyIdentity,
  subKeyRecipient,
  x25519Identity,
  x25519Recipient,
  type Identity,
  type Recipient,
} from '../../protocol/crypto/recipients.js'
import { isKeyriseError, outsideCode, type KeyriseError } from '../../protocol/errors.js'
import { LAYER_COUNT_MAX } from '../../protocol/limits.js'
import {
  codeOf,
  collect,
  CONTEXT,
  flipBit,
  fromText,
  pushAll,
  randomBytes,
  randomSecret,
  secretOf,
} from './fixtures.js'

const key = () => {
  const privateKey = randomSecret()
  return {
    privateKey,
    recipient: x25519Recipient(x25519PublicKey(privateKey)),
    identity: x25519Identity(privateKey),
  }
}
const [k1, k2, k3, k4] = [key(), key(), key(), key()]
const origin = { authority: allocate(32).fill(1), key: randomSecret() }
const plaintext = randomBytes(1000)
const sealOptions = { context: CONTEXT, originKeys: [origin], random: nodeRandom }
const layers = [[k1.recipient, k2.recipient], [k3.recipient]]
const seal = (of: readonly (readonly Recipient[])[] = layers): Bytes =>
  sealLayers(plaintext, { ...sealOptions, layers: of })
const open = (envelope: Uint8Array, identities: readonly Identity[]) =>
  openLayers(envelope, { identities, origin, expect: CONTEXT })

const errorOf = (work: () => unknown): KeyriseError | undefined => {
  try {
    work()
    return undefined
  } catch (error) {
    if (isKeyriseError(error)) return error
    throw error
  }
}

test('any recipient of a layer will do, in any order, and every layer needs one', (t) => {
  const envelope = seal()
  for (const identities of [
    [k1, k3],
    [k2, k3],
    [k3, k2],
    [k4, k3, k1],
  ])
    t.deepEqual(
      open(
        envelope,
        identities.map(({ identity }) => identity),
      ),
      { plaintext, context: CONTEXT },
    )
})

test('missing one layer’s key names the layer', (t) => {
  const envelope = seal()
  for (const [identities, layer] of [
    [[], 2],
    [[k1, k2], 2],
    [[k3], 1],
    [[k3, k4], 1],
  ] as const) {
    const error = errorOf(() =>
      open(
        envelope,
        identities.map(({ identity }) => identity),
      ),
    )
    t.is(error?.code, 'ERR_IDENTITY_MISMATCH')
    t.is(error?.detail, `layer ${String(layer)} of 2`)
  }
})

test('one layer is an ordinary envelope, a passphrase file too', (t) => {
  const envelope = seal([[k1.recipient]])
  t.deepEqual(openEnvelope(envelope, { identities: [k1.identity], origin }), { plaintext, context: CONTEXT })
  const theirs = sealEnvelope(plaintext, { ...sealOptions, recipients: [k1.recipient] })
  t.deepEqual(open(theirs, [k1.identity]), { plaintext, context: CONTEXT })
  t.is(parseHeader(envelope).stanzas.length, parseHeader(theirs).stanzas.length)

  const passphrase = secretOf(fromText('swordfish'))
  const alone = sealLayers(plaintext, { layers: [[scryptRecipient(passphrase, 4)]], random: nodeRandom })
  t.deepEqual(openLayers(alone, { identities: [scryptIdentity(passphrase)] }).plaintext, plaintext)
})

test('a passphrase is no layer of several', (t) => {
  const passphrase = scryptRecipient(secretOf(fromText('swordfish')), 4)
  for (const of of [
    [[passphrase], [k1.recipient]],
    [[k1.recipient], [passphrase]],
  ]) {
    t.is(
      codeOf(() => sealLayers(plaintext, { layers: of, random: nodeRandom })),
      'ERR_HEADER_MALFORMED',
    )
  }
})

test('as many layers as the limit, and no more, none at all, or one without a recipient', (t) => {
  const many = Array.from({ length: LAYER_COUNT_MAX }, () => [k1.recipient])
  t.deepEqual(open(seal(many), [k1.identity]).plaintext, plaintext)
  t.is(
    codeOf(() => seal([...many, [k1.recipient]])),
    'ERR_HEADER_LIMIT',
  )
  t.throws(() => seal([]), { instanceOf: TypeError })
  t.throws(() => seal([[k1.recipient], []]), { instanceOf: TypeError })
})

/** `inner` as layer `index` of `count`, sealed to k1. */
const layer = (inner: Uint8Array, index: number, count: number, context = CONTEXT): Bytes =>
  sealBehind(
    sealHeader({ ...sealOptions, context, recipients: [k1.recipient] }, [layerStanza({ index, count })]),
    inner,
    nodeRandom,
  )
const refusal = (envelope: Uint8Array) => codeOf(() => open(envelope, [k1.identity]))

test('a file that lost a layer, or whose layers do not fit, is refused', (t) => {
  t.deepEqual(open(layer(layer(plaintext, 1, 2), 2, 2), [k1.identity]).plaintext, plaintext)
  const alone = sealEnvelope(plaintext, { ...sealOptions, recipients: [k1.recipient] })
  for (const broken of [
    layer(plaintext, 1, 2),
    layer(layer(plaintext, 1, 3), 2, 3),
    layer(layer(plaintext, 1, 3), 3, 3),
    layer(layer(plaintext, 2, 2), 2, 2),
    layer(layer(layer(plaintext, 1, 3), 2, 2), 3, 3),
    layer(alone, 2, 2),
    layer(plaintext, 2, 2),
    layer(plaintext, 1, 1),
    layer(plaintext, 3, 2),
    layer(plaintext, 0, 2),
    layer(plaintext, 9, 9),
    layer(plaintext, 1, 10),
  ])
    t.is(refusal(broken), 'ERR_HEADER_MALFORMED')
  t.is(
    codeOf(() =>
      openLayers(layer(layer(plaintext, 1, 2, { ...CONTEXT, epoch: 8 }), 2, 2), { identities: [k1.identity] }),
    ),
    'ERR_CONTEXT_MISMATCH',
  )
})

test('two layer stanzas, or one with a body or an argument more, are refused', (t) => {
  const [one, two] = [layerStanza({ index: 1, count: 2 }), layerStanza({ index: 2, count: 2 })]
  for (const stanzas of [
    [one, two],
    [{ ...two, body: allocate(1) }],
    [{ ...two, args: [...two.args, 'x'] }],
    [{ ...two, args: [two.args[0]] }],
    [{ ...two, args: [two.args[0], '02', '2'] }],
  ] as Parameters<typeof sealHeader>[1][]) {
    const header = sealHeader({ ...sealOptions, recipients: [k1.recipient] }, stanzas)
    t.is(refusal(sealBehind(header, plaintext, nodeRandom)), 'ERR_HEADER_MALFORMED')
  }
})

test('a layer alone is not taken for what was sealed', (t) => {
  const envelope = seal()
  t.is(
    codeOf(() => openEnvelope(envelope, { identities: [k3.identity] })),
    'ERR_HEADER_MALFORMED',
  )
  const { sink, taken } = collect()
  t.is(
    codeOf(() => {
      pushAll(envelopeOpener({ identities: [k3.identity] }, sink), envelope)
    }),
    'ERR_HEADER_MALFORMED',
  )
  t.is(taken().length, 0)
})

test('data that is an age file comes back as it is', (t) => {
  const data = sealEnvelope(plaintext, { recipients: [k1.recipient], random: nodeRandom })
  for (const of of [layers, [[k1.recipient]]]) {
    const opened = openLayers(sealLayers(data, { ...sealOptions, layers: of }), {
      identities: [k1.identity, k3.identity],
    })
    t.deepEqual(opened.plaintext, data)
  }
})

test('flipped bits and truncations of a layered envelope are refused', (t) => {
  const envelope = sealLayers(fromText('x'), { ...sealOptions, layers })
  const code = (claimed: Uint8Array) =>
    outsideCode(codeOf(() => open(claimed, [k1.identity, k3.identity])) ?? 'ERR_ECALL_UNKNOWN')
  for (let bit = 0; bit < envelope.length * 8; bit += 31) t.is(code(flipBit(envelope, bit)), 'ERR_ENVELOPE_INVALID')
  for (let size = 0; size < envelope.length; size += 7) t.is(code(envelope.subarray(0, size)), 'ERR_ENVELOPE_INVALID')
})

test('copies open each under its own keys; the first that opens is taken', (t) => {
  const mirror = { authority: allocate(32).fill(2), key: randomSecret() }
  const copies = sealCopies(plaintext, {
    ...sealOptions,
    layers,
    copies: [{ layers: [[k4.recipient]], originKeys: [mirror] }, { layers: [[k2.recipient], [k4.recipient]] }],
  })
  t.is(copies.length, 3)
  const [first, second, third] = copies as [Bytes, Bytes, Bytes]
  const all = { identities: [k1, k2, k3, k4].map(({ identity }) => identity) }
  t.is(openCopies(copies, { ...all, origin }).copy, 0)
  t.is(openCopies([flipBit(first, 9), second, third], { ...all, origin: mirror }).copy, 1)
  t.is(openCopies([undefined, second, third], { ...all, origin }).copy, 2)
  t.deepEqual(openCopies([first, second, third], { identities: [k4.identity] }), {
    plaintext,
    context: CONTEXT,
    copy: 1,
  })

  const error = errorOf(() => openCopies([first, undefined, third], { identities: [k3.identity] }))
  t.is(error?.code, 'ERR_IDENTITY_MISMATCH')
  t.regex(error?.detail ?? '', /copy 1: .*layer 1 of 2; copy 3: .*layer 2 of 2/)
  t.is(
    codeOf(() => openCopies([undefined], all)),
    'ERR_ENVELOPE_INVALID',
  )
})

test('copies share no file key', (t) => {
  const [a, b] = sealCopies(plaintext, {
    ...sealOptions,
    layers: [[k1.recipient]],
    copies: [{ layers: [[k1.recipient]] }],
  })
  const fileKey = (envelope: Uint8Array) => unwrapHeader(parseHeader(envelope), [k1.identity])
  t.false(fileKey(a as Bytes).equals(fileKey(b as Bytes)))
})

test('a sub key and a root key compose', (t) => {
  const subKey = randomSecret()
  const envelope = seal([[subKeyRecipient('epoch/1', subKey)], [k1.recipient, k2.recipient]])
  t.deepEqual(open(envelope, [subKeyIdentity('epoch/1', subKey), k2.identity]).plaintext, plaintext)
})

if (spawnSync('age', ['--version'], { stdio: 'ignore' }).status === 0) {
  test('the age command opens layer after layer', (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'keyrise-age-'))
    t.teardown(() => {
      rmSync(directory, { recursive: true })
    })
    let file: Uint8Array = seal()
    for (const { privateKey } of [k3, k1]) {
      writeFileSync(join(directory, 'key'), encodeX25519Identity(privateKey))
      file = execFileSync('age', ['-d', '-i', join(directory, 'key')], { input: concatBytes(file) })
    }
    t.deepEqual(copyBytes(file), plaintext)
  })
} else test.skip('the age command opens layer after layer: no age', () => undefined)
