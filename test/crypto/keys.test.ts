import test from 'ava'
import fc from 'fast-check'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf as nobleHkdf } from '@noble/hashes/hkdf.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { allocate, concatBytes, copyBytes } from '../../protocol/bytes.js'
import { parseFlowId } from '../../protocol/names.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import {
  agreeKey,
  deriveAgreementKey,
  deriveOriginKey,
  deriveSigningSeed,
  deriveSubKey,
  ed25519Signer,
  verifyEd25519,
} from '../../protocol/crypto/keys.js'
import { labelled } from '../../protocol/crypto/labels.js'
import type { Secret } from '../../protocol/crypto/secret.js'
import { codeOf, fromText, randomSecret, secretOf } from './fixtures.js'

const ROOT = copyBytes(Uint8Array.from({ length: 32 }, (_, index) => index))
const root = secretOf(ROOT)

const hex = (secret: Secret): string => secret.expose((bytes) => Buffer.from(bytes).toString('hex'))
/** A derivation as docs/envelope.md §2 writes it down, by noble. */
const documented = (info: Uint8Array): string =>
  Buffer.from(nobleHkdf(sha256, ROOT, undefined, info, 32)).toString('hex')
const sized = (part: Uint8Array): Uint8Array => concatBytes(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, part.length), part)

test('every derivation is the documented one: changing it would orphan what is sealed', (t) => {
  const image = allocate(32).fill(9)
  const step = fromText('epoch/3')
  t.is(hex(deriveSubKey(root, 'epoch/3')), documented(concatBytes(fromText('keyrise/v1/sub-key'), sized(step))))
  t.is(hex(deriveSigningSeed(root)), documented(fromText('keyrise/v1/signing-seed')))
  t.is(hex(deriveAgreementKey(root)), documented(fromText('keyrise/v1/agreement-key')))
  t.is(
    hex(deriveOriginKey(root, parseFlowId('f'), image)),
    documented(concatBytes(fromText('keyrise/v1/origin-key'), sized(fromText('f')), sized(image))),
  )
})

test('derivations of other purposes, steps, flows and images have other keys', (t) => {
  const [one, two] = [allocate(32).fill(1), allocate(32).fill(2)]
  const keys = [
    deriveSubKey(root, 'a'),
    deriveSubKey(root, 'b'),
    deriveSubKey(root, 'a/b'),
    deriveSubKey(randomSecret(), 'a'),
    deriveSigningSeed(root),
    deriveAgreementKey(root),
    deriveOriginKey(root, parseFlowId('a'), one),
    deriveOriginKey(root, parseFlowId('b'), one),
    deriveOriginKey(root, parseFlowId('a'), two),
  ]
  t.is(new Set(keys.map(hex)).size, keys.length)
})

test('two lists of parts never share an encoding', (t) => {
  const parts = fc.array(fc.uint8Array({ maxLength: 3, max: 1 }), { maxLength: 3 })
  fc.assert(
    fc.property(parts, parts, (a, b) => {
      const equal = Buffer.from(concatBytes(...labelled('x', ...a))).equals(concatBytes(...labelled('x', ...b)))
      t.is(equal, JSON.stringify(a) === JSON.stringify(b))
    }),
    { numRuns: 500 },
  )
})

test('a step is a path', (t) => {
  for (const step of ['', '../x', 'a b', 'a\0', 'x'.repeat(257)]) {
    t.is(
      codeOf(() => deriveSubKey(root, step)),
      'ERR_NAME_INVALID',
    )
    t.is(
      codeOf(() => agreeKey(root, allocate(32), step)),
      'ERR_NAME_INVALID',
    )
  }
})

test('two flows agree on one key, another for each step and peer', (t) => {
  const [a, b, c] = [randomSecret(), randomSecret(), randomSecret()]
  t.true(agreeKey(a, x25519PublicKey(b), 'mask').equals(agreeKey(b, x25519PublicKey(a), 'mask')))
  t.false(agreeKey(a, x25519PublicKey(b), 'mask').equals(agreeKey(a, x25519PublicKey(b), 'mask/2')))
  t.false(agreeKey(a, x25519PublicKey(b), 'mask').equals(agreeKey(a, x25519PublicKey(c), 'mask')))
})

test('the agreed key is the documented one', (t) => {
  const [ours, theirs] = [copyBytes(ROOT), allocate(32).fill(0x77)]
  const publicKeys = [x25519.getPublicKey(ours), x25519.getPublicKey(theirs)].sort((x, y) => Buffer.compare(x, y))
  const info = concatBytes(fromText('keyrise/v1/agreed-key'), ...publicKeys.map(sized), sized(fromText('mask')))
  const expected = nobleHkdf(sha256, x25519.getSharedSecret(ours, x25519.getPublicKey(theirs)), undefined, info, 32)
  t.is(hex(agreeKey(root, x25519.getPublicKey(theirs), 'mask')), Buffer.from(expected).toString('hex'))
})

test('a peer key of low order, or of another size, agrees on nothing', (t) => {
  const one = allocate(32)
  one[0] = 1
  for (const peerKey of [allocate(32), one, allocate(31)]) {
    t.is(
      codeOf(() => agreeKey(root, peerKey, 'mask')),
      'ERR_KEY_INVALID',
    )
  }
})

test('a signer signs as the seed does, and no more after its disposal', (t) => {
  const seed = secretOf(ROOT)
  const signer = ed25519Signer(seed)
  seed[Symbol.dispose]()
  const message = fromText('the sum of round 3')
  const signature = signer.sign(message)
  t.deepEqual(signature, copyBytes(ed25519.sign(message, ROOT)))
  t.true(verifyEd25519(signer.publicKey, message, signature))
  t.false(verifyEd25519(signer.publicKey, fromText('the sum of round 4'), signature))
  signer[Symbol.dispose]()
  t.throws(() => signer.sign(message), { message: /disposed/ })
})
