import { bech32 } from '@scure/base'
import test from 'ava'
import fc from 'fast-check'
import { asciiBytes } from '../../protocol/bytes.js'
import { decodeBech32, encodeBech32 } from '../../protocol/crypto/bech32.js'
import {
  hybridPublicKey,
  encodeHybridIdentity,
  encodeHybridRecipient,
  parseHybridIdentity,
  parseHybridRecipient,
} from '../../protocol/crypto/hybrid.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import {
  encodeX25519Identity,
  encodeX25519Recipient,
  parseX25519Identity,
  parseX25519Recipient,
} from '../../protocol/crypto/recipients.js'
import { codeOf, randomSecret, toText } from './fixtures.js'

const bytesOf = fc.uint8Array({ maxLength: 100 })

test('bytes survive encoding, in either case, as the reference encodes them', (t) => {
  fc.assert(
    fc.property(bytesOf, fc.constantFrom('age', 'age1pq', 'age-secret-key-'), (bytes, prefix) => {
      const text = bech32.encodeFromBytes(prefix, bytes)
      t.is(toText(encodeBech32(prefix, bytes)), text)
      for (const form of [text, text.toUpperCase()])
        t.deepEqual(Array.from(decodeBech32(prefix, asciiBytes(form)) ?? []), Array.from(bytes))
    }),
  )
})

test('a changed character, a case that changes, another prefix or size are refused, as by the reference', (t) => {
  fc.assert(
    fc.property(bytesOf, fc.nat(), fc.constantFrom(...'qpzry9x8 b1io~A'.split('')), (bytes, place, character) => {
      const text = bech32.encodeFromBytes('age', bytes)
      const index = place % text.length
      const changed = text.slice(0, index) + character + text.slice(index + 1)
      fc.pre(changed !== text)
      t.is(decodeBech32('age', asciiBytes(changed)), undefined, changed)
      t.is(decodeBech32('age', asciiBytes(text.slice(0, index))), undefined)
      t.is(decodeBech32('ag', asciiBytes(text)), undefined)
    }),
  )
})

test('bits that no byte needs must be zeroes, and fewer than five', (t) => {
  const withWords = (...words: number[]) => decodeBech32('age', asciiBytes(bech32.encode('age', words)))
  t.deepEqual(Array.from(withWords(31, 28) ?? []), [255])
  t.is(withWords(31, 29), undefined)
  t.is(withWords(31, 28, 0), undefined)
})

test('keys as text are read as they are written, in their case and size only', (t) => {
  const secret = randomSecret()
  for (const { identity, recipient, publicKey, parseIdentity, parseRecipient } of [
    {
      identity: encodeX25519Identity(secret),
      recipient: encodeX25519Recipient(x25519PublicKey(secret)),
      publicKey: x25519PublicKey(secret),
      parseIdentity: parseX25519Identity,
      parseRecipient: parseX25519Recipient,
    },
    {
      identity: encodeHybridIdentity(secret),
      recipient: encodeHybridRecipient(hybridPublicKey(secret)),
      publicKey: hybridPublicKey(secret),
      parseIdentity: parseHybridIdentity,
      parseRecipient: parseHybridRecipient,
    },
  ]) {
    t.true(parseIdentity(identity).equals(secret))
    t.deepEqual(parseRecipient(recipient), publicKey)
    const lower = asciiBytes(toText(identity).toLowerCase())
    t.is(
      codeOf(() => parseIdentity(lower)),
      'ERR_KEY_INVALID',
    )
    t.is(
      codeOf(() => parseRecipient(recipient.toUpperCase())),
      'ERR_KEY_INVALID',
    )
    t.is(
      codeOf(() => parseRecipient(toText(encodeBech32('age', new Uint8Array(31))))),
      'ERR_KEY_INVALID',
    )
    t.is(
      codeOf(() => parseRecipient('é')),
      'ERR_KEY_INVALID',
    )
  }
})
