import { spawnSync } from 'node:child_process'
import test from 'ava'
import fc from 'fast-check'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf as nobleHkdf } from '@noble/hashes/hkdf.js'
import { hmac as nobleHmac } from '@noble/hashes/hmac.js'
import { scrypt as nobleScrypt } from '@noble/hashes/scrypt.js'
import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js'
import { sha3_256, shake256 as nobleShake256 } from '@noble/hashes/sha3.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import {
  ed25519FromSeed,
  ed25519Sign,
  ed25519Verify,
  x25519Agree,
  x25519Ephemeral,
  x25519PublicKey,
} from '../../protocol/crypto/curves.js'
import {
  equalSecret,
  hkdf,
  hmac,
  openChaCha,
  scrypt,
  sealChaCha,
  sha256,
  sha3,
  shake256,
  TAG_SIZE,
} from '../../protocol/crypto/primitives.js'
import { codeOf, flipBit, secretOf } from './fixtures.js'

/** noble is the reference: another author, another language, no OpenSSL. */

const bytes = (maxLength: number, minLength = 0) => fc.uint8Array({ minLength, maxLength })
const key = bytes(32, 32)
const CASES = { numRuns: 50 }

test('SHA-256, HMAC and HKDF are noble’s', (t) => {
  fc.assert(
    fc.property(bytes(200), bytes(100), bytes(100), fc.integer({ min: 0, max: 300 }), (a, b, c, size) => {
      t.deepEqual(sha256(a, b), copyBytes(nobleSha256(concatBytes(a, b))))
      t.deepEqual(hmac(a, b, c), copyBytes(nobleHmac(nobleSha256, a, concatBytes(b, c))))
      t.deepEqual(hkdf(a, b, c, size), size === 0 ? allocate(0) : copyBytes(nobleHkdf(nobleSha256, a, b, c, size)))
    }),
    CASES,
  )
  t.throws(() => hkdf(allocate(32), allocate(0), allocate(0), 255 * 32 + 1), { instanceOf: RangeError })
})

test('HMAC is noble’s for keys and messages of every size, and leaves nothing for the next one', (t) => {
  for (const keySize of [0, 1, 32, 63, 64, 65, 200])
    for (const size of [0, 1, 64, 1023, 1024, 1025, 70_000]) {
      const [hmacKey, message] = [allocate(keySize).fill(5), allocate(size).map((_, index) => index)]
      t.deepEqual(hmac(hmacKey, message), copyBytes(nobleHmac(nobleSha256, hmacKey, message)))
    }
})

const seal = (secretKey: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array): Bytes => {
  const sealed = allocate(plaintext.length + TAG_SIZE)
  sealChaCha(secretKey, nonce, plaintext, sealed)
  return sealed
}

test('SHA3-256 and SHAKE256 are noble’s', (t) => {
  fc.assert(
    fc.property(bytes(300), bytes(100), fc.integer({ min: 1, max: 200 }), (a, b, size) => {
      t.deepEqual(sha3(a, b), copyBytes(sha3_256(concatBytes(a, b))))
      t.deepEqual(shake256(a, size), copyBytes(nobleShake256(a, { dkLen: size })))
    }),
    CASES,
  )
})

test('ChaCha20-Poly1305 is noble’s; a wrong tag opens nothing', (t) => {
  fc.assert(
    fc.property(key, bytes(12, 12), bytes(200), fc.nat(), (secretKey, nonce, plaintext, bit) => {
      const sealed = seal(secretKey, nonce, plaintext)
      t.deepEqual(sealed, copyBytes(chacha20poly1305(secretKey, nonce).encrypt(plaintext)))
      const opened = allocate(plaintext.length)
      t.true(openChaCha(secretKey, nonce, sealed, opened))
      t.deepEqual(opened, copyBytes(plaintext))

      const untouched = allocate(plaintext.length)
      t.false(openChaCha(secretKey, nonce, flipBit(sealed, bit % (sealed.length * 8)), untouched))
      t.deepEqual(untouched, allocate(plaintext.length))
    }),
    CASES,
  )
})

test('ChaCha20-Poly1305 takes no output of another size', (t) => {
  t.throws(
    () => {
      sealChaCha(allocate(32), allocate(12), allocate(4), allocate(19))
    },
    { instanceOf: RangeError },
  )
  t.throws(() => openChaCha(allocate(32), allocate(12), allocate(20), allocate(5)), { instanceOf: RangeError })
})

test('inputs around the size of a piece are sealed and opened as noble does', (t) => {
  const secretKey = allocate(32).fill(3)
  const nonce = allocate(12).fill(4)
  for (const size of [0, 34 * 1024 - 1, 34 * 1024, 34 * 1024 + 1, 68 * 1024, 100_000]) {
    const plaintext = allocate(size).map((_, index) => index)
    const sealed = seal(secretKey, nonce, plaintext)
    t.deepEqual(sealed, copyBytes(chacha20poly1305(secretKey, nonce).encrypt(plaintext)))
    const opened = allocate(size)
    t.true(openChaCha(secretKey, nonce, sealed, opened))
    t.deepEqual(opened, plaintext)
    const untouched = allocate(size)
    t.false(openChaCha(secretKey, nonce, flipBit(sealed, sealed.length * 8 - 1), untouched))
    t.true(untouched.every((byte) => byte === 0))
  }
})

test('what a cipher put out is freed at once, without the collector', (t) => {
  const [plaintext, sealed] = [allocate(65_536), allocate(65_552)]
  const [secretKey, nonce] = [allocate(32), allocate(12)]
  const work = (): void => {
    sealChaCha(secretKey, nonce, plaintext, sealed)
    t.true(openChaCha(secretKey, nonce, sealed, plaintext))
  }
  work()
  const before = process.memoryUsage().arrayBuffers
  for (let count = 0; count < 100; count++) work()
  t.true(process.memoryUsage().arrayBuffers - before < 1024 * 1024)
})

test('without MessageChannel, as in an enclave, ciphers work all the same', (t) => {
  const code = `
    delete globalThis.MessageChannel
    const { openChaCha, sealChaCha } = await import('./dist/protocol/crypto/primitives.js')
    const [key, nonce, sealed] = [new Uint8Array(32), new Uint8Array(12), new Uint8Array(65_552)]
    sealChaCha(key, nonce, new Uint8Array(65_536), sealed)
    console.log(openChaCha(key, nonce, sealed, new Uint8Array(65_536)))
  `
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], { encoding: 'utf8' })
  t.is(stdout, 'true\n')
})

test('scrypt is noble’s', (t) => {
  fc.assert(
    fc.property(bytes(40), bytes(40), fc.integer({ min: 1, max: 8 }), (passphrase, salt, logN) => {
      t.deepEqual(
        scrypt(passphrase, salt, logN),
        copyBytes(nobleScrypt(passphrase, salt, { N: 2 ** logN, r: 8, p: 1, dkLen: 32 })),
      )
    }),
    { numRuns: 20 },
  )
})

test('X25519 is noble’s', (t) => {
  fc.assert(
    fc.property(key, key, (ours, theirs) => {
      const theirPublic = x25519.getPublicKey(theirs)
      t.deepEqual(x25519PublicKey(secretOf(ours)), copyBytes(x25519.getPublicKey(ours)))
      x25519Agree(secretOf(ours), theirPublic).expose((shared) => {
        t.deepEqual(shared, copyBytes(x25519.getSharedSecret(ours, theirPublic)))
      })
    }),
    CASES,
  )
})

test('an ephemeral key pair agrees with both of its halves, and each is new', (t) => {
  const [a, b] = [x25519Ephemeral(), x25519Ephemeral()]
  t.true(x25519Agree(a.privateKey, b.publicKey).equals(x25519Agree(b.privateKey, a.publicKey)))
  t.deepEqual(x25519PublicKey(a.privateKey), a.publicKey)
  t.notDeepEqual(a.publicKey, b.publicKey)
})

test('public keys of another size, and private keys of another kind, are refused', (t) => {
  for (const size of [0, 31, 33])
    t.is(
      codeOf(() => x25519Agree(secretOf(allocate(32)), allocate(size))),
      'ERR_KEY_INVALID',
    )
  t.throws(() => x25519PublicKey(secretOf(allocate(31))), { instanceOf: RangeError })
  t.throws(() => x25519PublicKey(ed25519FromSeed(secretOf(allocate(32))).privateKey), { instanceOf: TypeError })
})

test('Ed25519 is noble’s; whatever is not a signature is false, never a failure', (t) => {
  fc.assert(
    fc.property(
      key,
      bytes(100),
      fc.nat({ max: 511 }),
      bytes(80),
      bytes(80),
      (seed, message, bit, someKey, someSignature) => {
        const { privateKey, publicKey } = ed25519FromSeed(secretOf(seed))
        const signature = ed25519Sign(privateKey, message)
        t.deepEqual(publicKey, copyBytes(ed25519.getPublicKey(seed)))
        t.deepEqual(signature, copyBytes(ed25519.sign(message, seed)))
        t.true(ed25519Verify(publicKey, message, signature))
        t.false(ed25519Verify(publicKey, message, flipBit(signature, bit)))
        t.false(ed25519Verify(publicKey, concatBytes(message, Uint8Array.of(0)), signature))
        t.false(ed25519Verify(someKey, message, signature))
        t.false(ed25519Verify(publicKey, message, someSignature))
      },
    ),
    CASES,
  )
})

test('equality is of size and bytes', (t) => {
  t.true(equalSecret(Uint8Array.of(1, 2), Uint8Array.of(1, 2)))
  t.false(equalSecret(Uint8Array.of(1, 2), Uint8Array.of(1, 3)))
  t.false(equalSecret(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3)))
})

test('every result has a buffer of its own, of its size', (t) => {
  const { privateKey, publicKey } = ed25519FromSeed(secretOf(allocate(32)))
  const results = [
    sha256(),
    hmac(allocate(32)),
    hkdf(allocate(32), allocate(0), allocate(0), 33),
    scrypt(allocate(1), allocate(1), 1),
    publicKey,
  ]
  for (const result of [...results, ed25519Sign(privateKey, allocate(1)), x25519Ephemeral().publicKey]) {
    t.is(result.constructor, Uint8Array)
    t.is(result.buffer.byteLength, result.length)
  }
})
