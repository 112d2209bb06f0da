import test from 'ava'
import { PayloadAssembly } from '../../enclave/payload-assembly.js'
import { allocate, type Bytes } from '../../protocol/bytes.js'
import { segmentAt, segmentCount, sealDelivery } from '../../protocol/crypto/delivery.js'
import { payloadDigest, SEGMENT_SIZE } from '../../protocol/crypto/payload.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { isSame, patterned } from './bulk-world.js'

const [CONTEXT, NONCE] = [patterned(1, 50), patterned(2, 16)]

/** What a KMS would deliver of a payload, with leaves of its own making. */
const delivered = (plaintext: Uint8Array, key: Secret) => {
  const count = segmentCount(plaintext.length)
  const leaves = nodeRandom.fill(allocate(count * 32))
  const segments = Array.from({ length: count }, (_, index): Bytes => {
    const segment = segmentAt(plaintext.length, index)
    const into = allocate(segment.deliveredSizeBytes)
    const part = plaintext.subarray(index * SEGMENT_SIZE, index * SEGMENT_SIZE + segment.sizeBytes)
    const digest = leaves.subarray(index * 32, (index + 1) * 32)
    key.expose((bytes) => sealDelivery(bytes, { ...segment, digest }, part, into))
    return into
  })
  return { segments, digest: payloadDigest(CONTEXT, NONCE, leaves) }
}

test('a payload is taken once, when all of it is there and its digest is the one that is listed', (t) => {
  for (const size of [0, 1, SEGMENT_SIZE, 2 * SEGMENT_SIZE + 7]) {
    using key = Secret.random(32, nodeRandom)
    const plaintext = patterned(3, size)
    const { segments, digest } = delivered(plaintext, key)
    using assembly = new PayloadAssembly(size)
    t.is(assembly.segmentCount, segments.length)
    for (const [index, segment] of [...segments.entries()].reverse()) {
      t.false(assembly.isWhole)
      t.true(assembly.add(index, key, segment))
    }
    t.true(assembly.isWhole)
    t.true(isSame(assembly.take(CONTEXT, NONCE, digest), plaintext))
    t.is(assembly.take(CONTEXT, NONCE, digest), undefined)
  }
})

test('nothing is taken of a part, or of a payload that is not the one listed', (t) => {
  using key = Secret.random(32, nodeRandom)
  const { segments, digest } = delivered(patterned(3, 2 * SEGMENT_SIZE), key)
  const assemble = (count: number): PayloadAssembly => {
    const assembly = new PayloadAssembly(2 * SEGMENT_SIZE)
    for (const [index, segment] of segments.slice(0, count).entries()) assembly.add(index, key, segment)
    return assembly
  }
  t.is(assemble(1).take(CONTEXT, NONCE, digest), undefined)
  t.is(assemble(2).take(patterned(4, 50), NONCE, digest), undefined)
  t.is(assemble(2).take(CONTEXT, patterned(4, 16), digest), undefined)
  t.is(assemble(2).take(CONTEXT, NONCE, patterned(4, 32)), undefined)
  t.not(assemble(2).take(CONTEXT, NONCE, digest), undefined)
})

test('a segment that is another, or under another key, is not added, and what was there stays', (t) => {
  using key = Secret.random(32, nodeRandom)
  using otherKey = Secret.random(32, nodeRandom)
  const plaintext = patterned(3, 2 * SEGMENT_SIZE + 7)
  const { segments, digest } = delivered(plaintext, key)
  const [first, second, third] = segments as [Bytes, Bytes, Bytes]
  using assembly = new PayloadAssembly(plaintext.length)
  t.true(assembly.add(0, key, first))
  for (const claimed of [first, third, second.subarray(1), second.subarray(0, -1), allocate(0)])
    t.false(assembly.add(1, key, claimed))
  t.false(assembly.add(1, otherKey, second))
  t.false(assembly.add(2, key, second))
  t.true(assembly.add(1, key, second))
  t.true(assembly.add(2, key, third))
  t.true(isSame(assembly.take(CONTEXT, NONCE, digest), plaintext))
})
