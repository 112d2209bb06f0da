import test from 'ava'
import { bech32 } from '@scure/base'
import { decodeBase64, encodeBase64, type Stanza } from '../../protocol/age-header.js'
import { allocate } from '../../protocol/bytes.js'
import { x25519PrivateKeyObject, x25519PublicKey } from '../../protocol/crypto/curves.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import {
  encodeX25519Identity,
  encodeX25519Recipient,
  scryptIdentity,
  scryptRecipient,
  subKeyIdentity,
  subKeyRecipient,
  x25519Identity,
  x25519Recipient,
  type Identity,
  type Recipient,
} from '../../protocol/crypto/recipients.js'
import { codeOf, flipBit, fromText, randomBytes, randomSecret, secretOf, toText } from './fixtures.js'

const LOG_N = 4
const privateKey = randomSecret()
const publicKey = x25519PublicKey(privateKey)
const subKey = randomSecret()
const passphrase = secretOf(fromText('correct horse battery staple'))
const fileKey = randomSecret(16)

const PAIRS: Readonly<Record<string, { recipient: Recipient; identity: Identity; stranger: Identity }>> = {
  X25519: {
    recipient: x25519Recipient(publicKey),
    identity: x25519Identity(privateKey),
    stranger: x25519Identity(randomSecret()),
  },
  'keyrise/sub-key': {
    recipient: subKeyRecipient('epoch/3', subKey),
    identity: subKeyIdentity('epoch/3', subKey),
    stranger: subKeyIdentity('epoch/3', randomSecret()),
  },
  scrypt: {
    recipient: scryptRecipient(passphrase, LOG_N),
    identity: scryptIdentity(passphrase),
    stranger: scryptIdentity(secretOf(fromText('Correct horse battery staple'))),
  },
}

for (const [type, { recipient, identity, stranger }] of Object.entries(PAIRS)) {
  test(`${type}: the identity unwraps, a stranger does not, and no two stanzas are alike`, (t) => {
    const [a, b] = [recipient.wrap(fileKey, nodeRandom), recipient.wrap(fileKey, nodeRandom)]
    t.is(a.args[0], type)
    t.is(a.body.length, 32)
    t.true(identity.unwrap(a)?.equals(fileKey))
    t.true(identity.unwrap(b)?.equals(fileKey))
    t.is(stranger.unwrap(a), undefined)
    t.notDeepEqual(a.args, b.args)
    t.notDeepEqual(a.body, b.body)
  })

  test(`${type}: every flipped bit of the body unwraps nothing`, (t) => {
    const stanza = recipient.wrap(fileKey, nodeRandom)
    for (let bit = 0; bit < stanza.body.length * 8; bit++)
      t.is(identity.unwrap({ ...stanza, body: flipBit(stanza.body, bit) }), undefined)
  })

  test(`${type}: a body of another size is refused before it is decrypted`, (t) => {
    const stanza = recipient.wrap(fileKey, nodeRandom)
    for (const size of [0, 16, 31, 33, 48]) {
      t.is(
        codeOf(() => identity.unwrap({ ...stanza, body: allocate(size) })),
        'ERR_HEADER_MALFORMED',
      )
    }
  })

  test(`${type}: arguments too few, too many, or of another size are refused`, (t) => {
    const stanza = recipient.wrap(fileKey, nodeRandom)
    const refused = (...args: string[]) => codeOf(() => identity.unwrap({ ...stanza, args: [type, ...args] }))
    const [, ...args] = stanza.args
    t.is(refused(...args, 'x'), 'ERR_HEADER_MALFORMED')
    t.is(refused(...args.slice(1)), 'ERR_HEADER_MALFORMED')
    const position = type === 'keyrise/sub-key' ? 1 : 0
    const size = decodeBase64(args[position] ?? '').length
    for (const other of [allocate(0), allocate(size - 1), allocate(size + 1)].map(encodeBase64)) {
      t.is(refused(...args.with(position, other)), 'ERR_HEADER_MALFORMED')
    }
    t.is(refused(...args.with(position, `${args[position] ?? ''}=`)), 'ERR_HEADER_MALFORMED')
  })

  test(`${type}: stanzas of other types are ignored`, (t) => {
    t.is(identity.unwrap({ args: ['example.com/enigma', 'x', 'y', 'z'], body: allocate(3) }), undefined)
  })

  test(`${type}: a file key has 16 bytes`, (t) => {
    t.throws(() => recipient.wrap(randomSecret(32), nodeRandom), { instanceOf: RangeError })
  })
}

const lowOrder = (first: number): Uint8Array => {
  const point = allocate(32)
  point[0] = first
  return point
}

test('case 21: X25519: a share or a recipient of low order is refused', (t) => {
  const stanza = x25519Recipient(publicKey).wrap(fileKey, nodeRandom)
  for (const point of [lowOrder(0), lowOrder(1)]) {
    const forged: Stanza = { ...stanza, args: ['X25519', encodeBase64(point)] }
    t.is(
      codeOf(() => x25519Identity(privateKey).unwrap(forged)),
      'ERR_HEADER_MALFORMED',
    )
    t.is(
      codeOf(() => x25519Recipient(point).wrap(fileKey, nodeRandom)),
      'ERR_KEY_INVALID',
    )
  }
})

test('X25519: an identity from a KeyObject is the same, and neither needs the secret afterwards', (t) => {
  const own = privateKey.clone()
  const [a, b] = [x25519Identity(own), x25519Identity(x25519PrivateKeyObject(own))]
  own[Symbol.dispose]()
  const stanza = x25519Recipient(publicKey).wrap(fileKey, nodeRandom)
  t.true(a.unwrap(stanza)?.equals(fileKey))
  t.true(b.unwrap(stanza)?.equals(fileKey))
})

test('a sub key opens stanzas of its own step only', (t) => {
  const stanza = subKeyRecipient('epoch/3', subKey).wrap(fileKey, nodeRandom)
  t.is(subKeyIdentity('epoch/4', subKey).unwrap(stanza), undefined)
  const [type, , salt = ''] = stanza.args
  t.is(subKeyIdentity('epoch/4', subKey).unwrap({ ...stanza, args: [type, 'epoch/4', salt] }), undefined)
  t.is(
    codeOf(() => subKeyRecipient('epoch 3', subKey)),
    'ERR_NAME_INVALID',
  )
})

for (const factor of ['31', '21', '018', '-1', '0', '', '1e1', '+4', ' 4', '4.0', '0x4', '100', '9'.repeat(1000)]) {
  test(`case 19: scrypt: the work factor ‘${factor.slice(0, 8)}’ is refused before any work`, (t) => {
    const stanza = scryptRecipient(passphrase, LOG_N).wrap(fileKey, nodeRandom)
    const [type, salt = ''] = stanza.args
    t.is(
      codeOf(() => scryptIdentity(passphrase).unwrap({ ...stanza, args: [type, salt, factor] })),
      'ERR_WORK_FACTOR',
    )
  })
}

test('scrypt: the limit is the caller’s, up to 22', (t) => {
  const stanza = scryptRecipient(passphrase, 5).wrap(fileKey, nodeRandom)
  t.true(scryptIdentity(passphrase, 5).unwrap(stanza)?.equals(fileKey))
  t.is(
    codeOf(() => scryptIdentity(passphrase, 4).unwrap(stanza)),
    'ERR_WORK_FACTOR',
  )
  for (const logN of [0, 23, 1.5, -1, Number.NaN]) {
    t.is(
      codeOf(() => scryptIdentity(passphrase, logN)),
      'ERR_WORK_FACTOR',
    )
    t.is(
      codeOf(() => scryptRecipient(passphrase, logN)),
      'ERR_WORK_FACTOR',
    )
  }
})

test('keys print as the specification’s example', (t) => {
  // C2SP age, "The X25519 recipient type": the identity is 32 times 0x42.
  const identity = secretOf(allocate(32).fill(0x42))
  t.is(
    toText(encodeX25519Identity(identity)),
    'AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX',
  )
  t.is(
    encodeX25519Recipient(x25519PublicKey(identity)),
    'age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj',
  )
})

test('Bech32 is scure’s', (t) => {
  for (let size = 0; size < 64; size++) {
    const bytes = randomBytes(size)
    t.is(encodeX25519Recipient(bytes), bech32.encode('age', bech32.toWords(bytes), false))
  }
})
