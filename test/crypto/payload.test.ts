import test from 'ava'
import { allocate, concatBytes, type Bytes } from '../../protocol/bytes.js'
import { CHUNK_SIZE, ChunkNonce, openPayload, payloadSize, sealPayload } from '../../protocol/crypto/payload.js'
import { hkdf, nodeRandom, sealChaCha, TAG_SIZE } from '../../protocol/crypto/primitives.js'
import { codeOf, flipBit, fromText, randomBytes, randomSecret } from './fixtures.js'

const NONCE_SIZE = 16
const SEALED_CHUNK_SIZE = CHUNK_SIZE + TAG_SIZE
const fileKey = randomSecret(16)
const seal = (plaintext: Uint8Array): Bytes => sealPayload(fileKey, plaintext, nodeRandom)
const open = (payload: Uint8Array) => codeOf(() => openPayload(fileKey, payload))

for (const size of [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 3 * CHUNK_SIZE + 5]) {
  test(`${String(size)} bytes come back, in a buffer of their size`, (t) => {
    const plaintext = randomBytes(size)
    const payload = seal(plaintext)
    t.is(payload.length, payloadSize(size))
    t.is(payload.length, NONCE_SIZE + size + TAG_SIZE * Math.max(1, Math.ceil(size / CHUNK_SIZE)))
    const opened = openPayload(fileKey, payload)
    t.deepEqual(opened, plaintext)
    t.is(opened.buffer.byteLength, size)
  })
}

test('one plaintext never seals twice to the same bytes', (t) => {
  const plaintext = randomBytes(100)
  t.notDeepEqual(seal(plaintext), seal(plaintext))
})

test('another file key opens nothing', (t) => {
  t.is(
    codeOf(() => openPayload(randomSecret(16), seal(randomBytes(10)))),
    'ERR_PAYLOAD_INVALID',
  )
})

/** The chunks of a payload of three and a bit, and the nonce before them. */
const split = (payload: Uint8Array): { nonce: Uint8Array; chunks: Uint8Array[] } => {
  const chunks: Uint8Array[] = []
  for (let offset = NONCE_SIZE; offset < payload.length; offset += SEALED_CHUNK_SIZE)
    chunks.push(payload.subarray(offset, offset + SEALED_CHUNK_SIZE))
  return { nonce: payload.subarray(0, NONCE_SIZE), chunks }
}
const whole = seal(randomBytes(3 * CHUNK_SIZE + 5))
const { nonce, chunks } = split(whole)
const join = (...indexes: number[]): Bytes =>
  concatBytes(nonce, ...indexes.map((index) => chunks[index] ?? allocate(0)))

test('chunks swapped, doubled or dropped open nothing', (t) => {
  t.is(open(join(0, 1, 2, 3)), undefined)
  for (const order of [
    [1, 0, 2, 3],
    [0, 2, 1, 3],
    [0, 1, 1, 3],
    [0, 0, 1, 2, 3],
    [0, 2, 3],
    [1, 2, 3],
    [3, 0, 1, 2],
    [0, 1, 2, 3, 3],
  ]) {
    t.is(open(join(...order)), 'ERR_PAYLOAD_INVALID')
  }
})

test('a payload cut between chunks is known as cut', (t) => {
  for (const rest of [[0, 1, 2], [0, 1], [0]]) t.is(open(join(...rest)), 'ERR_PAYLOAD_TRUNCATED')
  t.is(open(nonce), 'ERR_PAYLOAD_TRUNCATED')
  t.is(open(allocate(0)), 'ERR_PAYLOAD_TRUNCATED')
})

test('a payload cut within a chunk opens nothing', (t) => {
  for (const size of [NONCE_SIZE + 1, NONCE_SIZE + TAG_SIZE - 1, NONCE_SIZE + 2 * SEALED_CHUNK_SIZE + 1])
    t.is(open(whole.subarray(0, size)), 'ERR_PAYLOAD_TRUNCATED')
  for (const size of [NONCE_SIZE + TAG_SIZE, NONCE_SIZE + SEALED_CHUNK_SIZE - 1, whole.length - 1])
    t.is(open(whole.subarray(0, size)), 'ERR_PAYLOAD_INVALID')
})

test('trailing bytes or a second final chunk open nothing', (t) => {
  t.is(open(concatBytes(whole, allocate(1))), 'ERR_PAYLOAD_INVALID')
  t.is(open(concatBytes(whole, allocate(TAG_SIZE))), 'ERR_PAYLOAD_INVALID')
  const final = seal(randomBytes(CHUNK_SIZE))
  t.is(open(concatBytes(final, final.subarray(NONCE_SIZE))), 'ERR_PAYLOAD_INVALID')
})

test('a last chunk that is empty, though authentic, opens nothing where others stand before it', (t) => {
  const key = fileKey.expose((bytes) => hkdf(bytes, nonce, fromText('payload'), 32))
  const chunk = (index: number, isLast: boolean, size: number): Bytes => {
    const sealed = allocate(size + TAG_SIZE)
    sealChaCha(key, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, index, isLast ? 1 : 0), allocate(size), sealed)
    return sealed
  }
  t.is(open(concatBytes(nonce, chunk(0, false, CHUNK_SIZE), chunk(1, true, 1))), undefined)
  t.is(open(concatBytes(nonce, chunk(0, false, CHUNK_SIZE), chunk(1, true, 0))), 'ERR_PAYLOAD_INVALID')
  t.is(open(concatBytes(nonce, chunk(0, true, 0))), undefined)
})

test('a bit flipped in any chunk opens nothing', (t) => {
  for (let index = 0; index < chunks.length; index++) {
    const bit = (NONCE_SIZE + index * SEALED_CHUNK_SIZE + 3) * 8
    t.is(open(flipBit(whole, bit)), 'ERR_PAYLOAD_INVALID')
  }
  t.is(open(flipBit(whole, 0)), 'ERR_PAYLOAD_INVALID')
})

test('a NUL-filled payload opens nothing', (t) => {
  for (const size of [32, 1000, 3 * SEALED_CHUNK_SIZE]) t.is(open(allocate(size)), 'ERR_PAYLOAD_INVALID')
})

test('chunk nonces count beyond 2^32, and mark the last chunk', (t) => {
  const nonce = new ChunkNonce()
  const at = (index: number, isLast: boolean) => Buffer.from(nonce.at(index, isLast)).toString('hex')
  t.is(at(0, false), '000000000000000000000000')
  t.is(at(258, true), '000000000000000000010201')
  t.is(at(2 ** 32 + 1, false), '000000000000010000000100')
})
