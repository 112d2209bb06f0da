import { existsSync, readFileSync } from 'node:fs'
import { ml_kem768_x25519 } from '@noble/post-quantum/hybrid.js'
import * as age from 'age-encryption'
import test from 'ava'
import { decodeBase64, encodeBase64, type Stanza } from '../../protocol/age-header.js'
import { allocate, copyBytes } from '../../protocol/bytes.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import {
  encodeHybridIdentity,
  encodeHybridRecipient,
  hybridIdentity,
  hybridPublicKey,
  hybridRecipient,
} from '../../protocol/crypto/hybrid.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { expandXWingKey, xWingDecapsulate, xWingEncapsulate } from '../../protocol/crypto/x-wing.js'
import { codeOf, flipBit, fromText, randomBytes, randomSecret, secretOf, toText } from './fixtures.js'

const VECTORS = '../shared/vectors/x-wing/test-vectors.json'
if (existsSync(VECTORS)) {
  test('X-Wing: the draft’s vectors', (t) => {
    const vectors = JSON.parse(readFileSync(VECTORS, 'utf8')) as Record<'sk' | 'pk' | 'ct' | 'ss', string>[]
    const hex = (text: string) => copyBytes(Buffer.from(text, 'hex'))
    for (const { sk, pk, ct, ss } of vectors) {
      using key = expandXWingKey(secretOf(hex(sk)))
      t.deepEqual(key.publicKey, hex(pk))
      t.true(xWingDecapsulate(key, hex(ct)).equals(secretOf(hex(ss))))
    }
    t.is(vectors.length, 3)
  })
} else test.skip('X-Wing: the draft’s vectors: absent', () => undefined)

test('X-Wing is noble’s, both ways', (t) => {
  for (let count = 0; count < 10; count++) {
    const seed = randomBytes(32)
    using key = expandXWingKey(secretOf(seed))
    const publicKey = copyBytes(ml_kem768_x25519.getPublicKey(seed))
    t.deepEqual(key.publicKey, publicKey)
    const ours = xWingEncapsulate(publicKey, nodeRandom)
    t.true(ours.secret.equals(secretOf(ml_kem768_x25519.decapsulate(ours.ciphertext, seed))))
    const theirs = ml_kem768_x25519.encapsulate(publicKey)
    t.true(xWingDecapsulate(key, theirs.cipherText).equals(secretOf(theirs.sharedSecret)))
  }
})

const seed = randomSecret()
const publicKey = hybridPublicKey(seed)
const identity = hybridIdentity(seed)
const fileKey = randomSecret(16)
const wrap = (): Stanza => hybridRecipient(publicKey).wrap(fileKey, nodeRandom)

test('the identity unwraps, a stranger does not, and no two stanzas are alike', (t) => {
  const [a, b] = [wrap(), wrap()]
  t.is(a.args[0], 'mlkem768x25519')
  t.true(identity.unwrap(a)?.equals(fileKey))
  t.true(identity.unwrap(b)?.equals(fileKey))
  t.is(hybridIdentity(randomSecret()).unwrap(a), undefined)
  t.notDeepEqual(a, b)
})

test('every flipped bit of the body, and any of the share, unwraps nothing', (t) => {
  const stanza = wrap()
  for (let bit = 0; bit < stanza.body.length * 8; bit++)
    t.is(identity.unwrap({ ...stanza, body: flipBit(stanza.body, bit) }), undefined)
  const share = decodeBase64(stanza.args[1] ?? '')
  for (let bit = 3; bit < share.length * 8; bit += 301)
    t.is(identity.unwrap({ ...stanza, args: [stanza.args[0], encodeBase64(flipBit(share, bit))] }), undefined)
})

test('a body or share of another size, an argument more, and a share of low order are refused', (t) => {
  const stanza = wrap()
  const [type, share = ''] = stanza.args
  const bytes = decodeBase64(share)
  const lowOrder = copyBytes(bytes)
  lowOrder.fill(0, 1088)
  const refused: Stanza[] = [
    ...[0, 16, 31, 33].map((size) => ({ ...stanza, body: allocate(size) })),
    { ...stanza, args: [type] },
    { ...stanza, args: [type, share, 'x'] },
    { ...stanza, args: [type, encodeBase64(bytes.subarray(1))] },
    { ...stanza, args: [type, `${share}=`] },
    { ...stanza, args: [type, encodeBase64(lowOrder)] },
  ]
  for (const each of refused) {
    t.is(
      codeOf(() => identity.unwrap(each)),
      'ERR_HEADER_MALFORMED',
    )
  }
  t.is(identity.unwrap({ ...stanza, args: ['MLKEM768X25519', share] }), undefined)
})

test('what is not a public key is refused', (t) => {
  const unreduced = copyBytes(publicKey)
  unreduced.fill(0xff, 0, 3)
  const lowOrder = copyBytes(publicKey)
  lowOrder.fill(0, 1184)
  for (const claimed of [allocate(0), publicKey.subarray(1), unreduced, lowOrder]) {
    t.is(
      codeOf(() => hybridRecipient(claimed).wrap(fileKey, nodeRandom)),
      'ERR_KEY_INVALID',
    )
  }
})

test('an identity that was disposed of unwraps nothing', (t) => {
  const other = hybridIdentity(seed)
  other[Symbol.dispose]()
  t.throws(() => other.unwrap(wrap()), { message: /disposed/ })
})

test('typage opens what we seal, and we open what typage seals', async (t) => {
  const text = toText(encodeHybridIdentity(seed))
  t.is(await age.identityToRecipient(text), encodeHybridRecipient(publicKey))
  for (const size of [0, 1, 1000, 65_536]) {
    const plaintext = randomBytes(size)
    const decrypter = new age.Decrypter()
    decrypter.addIdentity(text)
    const sealed = sealEnvelope(plaintext, { recipients: [hybridRecipient(publicKey)], random: nodeRandom })
    t.deepEqual(copyBytes(await decrypter.decrypt(sealed)), plaintext)
    const encrypter = new age.Encrypter()
    encrypter.addRecipient(encodeHybridRecipient(publicKey))
    const theirs = await encrypter.encrypt(plaintext)
    t.deepEqual(openEnvelope(theirs, { identities: [identity] }).plaintext, plaintext)
  }
})

test('keys print as the specification’s example begins', (t) => {
  t.true(encodeHybridRecipient(publicKey).startsWith('age1pq1'))
  t.deepEqual(encodeHybridIdentity(seed).subarray(0, 19), fromText('AGE-SECRET-KEY-PQ-1'))
})
