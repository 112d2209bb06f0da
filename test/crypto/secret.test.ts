import { inspect } from 'node:util'
import { hkdf } from '@noble/hashes/hkdf.js'
import { sha256 } from '@noble/hashes/sha2.js'
import test from 'ava'
import { allocate } from '../../protocol/bytes.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { fromText, secretOf } from './fixtures.js'

test('take moves the bytes: the source is zero afterwards', (t) => {
  const source = Buffer.from('correct horse')
  const secret = Secret.take(source)
  t.deepEqual(
    [...source],
    Array.from({ length: 13 }, () => 0),
  )
  secret.expose((bytes) => {
    t.deepEqual(bytes, fromText('correct horse'))
  })
})

test('the bytes have a buffer of their own, of their size', (t) => {
  const secret = Secret.take(Buffer.from('0123456789').subarray(2, 6))
  for (const each of [secret, secret.clone(), Secret.random(4, nodeRandom)]) {
    each.expose((bytes) => {
      t.is(bytes.byteOffset, 0)
      t.is(bytes.buffer.byteLength, 4)
    })
  }
})

test('disposal zero-fills, can be repeated, and ends every use', (t) => {
  const secret = secretOf(Uint8Array.of(1, 2, 3))
  const bytes = secret.expose((lent) => lent)
  secret.derive(fromText('key'), 32)
  secret[Symbol.dispose]()
  secret[Symbol.dispose]()
  t.deepEqual(bytes, allocate(3))
  const other = secretOf(Uint8Array.of(1, 2, 3))
  for (const use of [
    () => secret.expose(() => 0),
    () => secret.equals(other),
    () => other.equals(secret),
    () => secret.clone(),
    () => secret.size,
    () => secret.derive(fromText('key'), 32),
  ]) {
    t.throws(use, { message: /disposed/ })
  }
})

test('what is derived is HKDF without salt, of any size, as often as it is asked for', (t) => {
  const secret = secretOf(fromText('0123456789abcdef'))
  for (const [info, size] of [
    ['one', 32],
    ['two', 32],
    ['one', 80],
  ] as const)
    t.deepEqual(
      secret.derive(fromText(info), size),
      hkdf(sha256, fromText('0123456789abcdef'), undefined, fromText(info), size),
    )
})

test('a clone has a life of its own', (t) => {
  const secret = secretOf(Uint8Array.of(1, 2, 3))
  const clone = secret.clone()
  secret[Symbol.dispose]()
  t.true(clone.equals(secretOf(Uint8Array.of(1, 2, 3))))
})

test('equality is of size and bytes', (t) => {
  const secret = secretOf(Uint8Array.of(1, 2))
  t.true(secret.equals(secretOf(Uint8Array.of(1, 2))))
  t.false(secret.equals(secretOf(Uint8Array.of(1, 3))))
  t.false(secret.equals(secretOf(Uint8Array.of(1, 2, 3))))
})

test('a secret prints as [secret], and is empty where it is copied', (t) => {
  const secret = secretOf(fromText('swordfish'))
  t.is(String(secret), '[secret]')
  t.is(JSON.stringify({ secret }), '{"secret":"[secret]"}')
  t.is(inspect({ secret }, { showHidden: true, depth: 9 }), '{ secret: [secret] }')
  t.deepEqual(Object.entries(secret), [])
  t.deepEqual(structuredClone(secret) as unknown, {})
})
