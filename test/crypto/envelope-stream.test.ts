import { bech32 } from '@scure/base'
import * as age from 'age-encryption'
import test from 'ava'
import fc from 'fast-check'
import { encodeHeader, parseHeader } from '../../protocol/age-header.js'
import { pull } from '../../protocol/age-stream.js'
import { allocate, concatBytes, copyBytes, type Bytes } from '../../protocol/bytes.js'
import { x25519PublicKey } from '../../protocol/crypto/curves.js'
import { envelopeOpener, envelopeSealer } from '../../protocol/crypto/envelope-stream.js'
import { openEnvelope, sealEnvelope } from '../../protocol/crypto/envelope.js'
import { payloadOpener, payloadSealer } from '../../protocol/crypto/payload-stream.js'
import { CHUNK_SIZE, SEALED_CHUNK_SIZE } from '../../protocol/crypto/payload.js'
import { nodeRandom } from '../../protocol/crypto/primitives.js'
import { x25519Identity, x25519Recipient } from '../../protocol/crypto/recipients.js'
import { outsideCode, type ErrorCode } from '../../protocol/errors.js'
import { HEADER_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import {
  codeOf,
  collect,
  CONTEXT,
  flipBit,
  fromText,
  inPieces,
  pushAll,
  randomBytes,
  randomSecret,
} from './fixtures.js'

const privateKey = randomSecret()
const identities = [x25519Identity(privateKey)]
const origin = { authority: allocate(32).fill(1), key: randomSecret() }
const sealOptions = {
  recipients: [x25519Recipient(x25519PublicKey(privateKey))],
  context: CONTEXT,
  originKeys: [origin],
  random: nodeRandom,
}
const openOptions = { identities, origin, expect: CONTEXT }

/** What came out of `envelope`, pushed in pieces. */
const streamed = (envelope: Uint8Array, sizes: () => number = () => 1000, options = openOptions) => {
  const { sink, taken, isEnded } = collect()
  const code = codeOf(() => {
    pushAll(envelopeOpener(options, sink), envelope, sizes)
  })
  return { code, released: taken(), isEnded: isEnded() }
}

const sizes = fc.oneof(
  fc.nat({ max: 300 }),
  fc.constantFrom(CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 200_000),
)

test('what is sealed and opened in pieces is what is sealed and opened whole', (t) => {
  fc.assert(
    fc.property(sizes, fc.integer({ min: 10, max: 150_000 }), (size, pieceSize) => {
      const plaintext = randomBytes(size)
      const { sink, taken } = collect()
      pushAll(envelopeSealer(sealOptions, sink), plaintext, () => pieceSize)
      t.deepEqual(openEnvelope(taken(), openOptions), { plaintext, context: CONTEXT })
      for (const envelope of [taken(), sealEnvelope(plaintext, sealOptions)]) {
        t.deepEqual(
          streamed(envelope, () => pieceSize),
          { code: undefined, released: plaintext, isEnded: true },
        )
      }
    }),
    { numRuns: 15 },
  )
})

test('typage opens what is pulled', async (t) => {
  const identity = await age.generateX25519Identity()
  const recipient = bech32.decodeToBytes(await age.identityToRecipient(identity)).bytes
  const plaintext = randomBytes(150_000)
  const parts: Uint8Array[] = []
  const sealed = pull(
    inPieces(plaintext, () => 777),
    (next) => envelopeSealer({ ...sealOptions, recipients: [x25519Recipient(recipient)] }, next),
  )
  for await (const part of sealed) parts.push(part)
  const decrypter = new age.Decrypter()
  decrypter.addIdentity(identity)
  t.deepEqual(copyBytes(await decrypter.decrypt(concatBytes(...parts))), plaintext)
})

test('the context is told before any plaintext, once', (t) => {
  const order: string[] = []
  const { sink } = collect()
  const opener = envelopeOpener(
    {
      ...openOptions,
      onContext: (context) => {
        t.deepEqual(context, CONTEXT)
        order.push('context')
      },
    },
    { ...sink, push: () => order.push('plaintext') },
  )
  pushAll(opener, sealEnvelope(randomBytes(10), sealOptions), () => 1)
  t.deepEqual(order, ['context', 'plaintext'])
})

const plaintext = randomBytes(2 * CHUNK_SIZE + 100)
const whole = sealEnvelope(plaintext, sealOptions)
const { sizeBytes } = parseHeader(whole)
const chunkEnd = (count: number): number => sizeBytes + 16 + count * SEALED_CHUNK_SIZE

test('a truncated stream is never complete, and releases whole verified chunks only', (t) => {
  const cuts = [0, 1, sizeBytes - 1, sizeBytes, sizeBytes + 15, sizeBytes + 16, sizeBytes + 32]
  for (const end of [chunkEnd(1), chunkEnd(2), whole.length]) cuts.push(end - 17, end - 1, end, end + 1, end + 16)
  for (const size of cuts.filter((cut) => cut < whole.length)) {
    const { code, released, isEnded } = streamed(whole.subarray(0, size))
    t.is(outsideCode(code ?? 'ERR_ECALL_UNKNOWN'), 'ERR_ENVELOPE_INVALID')
    t.false(isEnded)
    t.is(released.length % CHUNK_SIZE, 0)
    t.deepEqual(released, copyBytes(plaintext.subarray(0, released.length)))
  }
  t.is(streamed(whole.subarray(0, chunkEnd(1))).code, 'ERR_PAYLOAD_TRUNCATED')
  t.is(streamed(whole.subarray(0, chunkEnd(2))).code, 'ERR_PAYLOAD_TRUNCATED')
})

test('a chunk that was changed releases nothing of itself, nor of what follows', (t) => {
  for (const [offset, releasedSize] of [
    [0, 0],
    [sizeBytes + 1, 0],
    [chunkEnd(0), 0],
    [chunkEnd(1) - 1, 0],
    [chunkEnd(1), CHUNK_SIZE],
    [chunkEnd(2), 2 * CHUNK_SIZE],
    [whole.length - 1, 2 * CHUNK_SIZE],
  ] as const) {
    const { code, released, isEnded } = streamed(flipBit(whole, offset * 8))
    t.is(outsideCode(code ?? 'ERR_ECALL_UNKNOWN'), 'ERR_ENVELOPE_INVALID')
    t.false(isEnded)
    t.deepEqual(released, copyBytes(plaintext.subarray(0, releasedSize)))
  }
})

test('cases 3, 4: chunks swapped, doubled or dropped, and trailing bytes, end nothing', (t) => {
  const chunk = (index: number): Uint8Array => whole.subarray(chunkEnd(index), chunkEnd(index + 1))
  const head = whole.subarray(0, chunkEnd(0))
  for (const order of [
    [1, 0, 2],
    [0, 0, 1, 2],
    [0, 2],
    [0, 1, 1, 2],
    [0, 1, 2, 2],
  ]) {
    const { code, isEnded } = streamed(concatBytes(head, ...order.map(chunk)))
    t.is(code, 'ERR_PAYLOAD_INVALID')
    t.false(isEnded)
  }
  t.is(streamed(concatBytes(whole, allocate(1))).code, 'ERR_PAYLOAD_INVALID')
})

const { macInput, mac } = parseHeader(whole)
const wrongMac = concatBytes(encodeHeader(macInput, flipBit(mac, 0)), whole.subarray(sizeBytes))

test('what `openEnvelope` refuses before its payload releases nothing', (t) => {
  const refused: readonly [ErrorCode, Bytes, Partial<typeof openOptions>][] = [
    ['ERR_IDENTITY_MISMATCH', whole, { identities: [x25519Identity(randomSecret())] }],
    ['ERR_ORIGIN_INVALID', whole, { origin: { ...origin, key: randomSecret() } }],
    ['ERR_CONTEXT_MISMATCH', whole, { expect: { ...CONTEXT, epoch: 8 } }],
    ['ERR_HEADER_MAC', wrongMac, {}],
    ['ERR_HEADER_MALFORMED', copyBytes(whole.subarray(0, sizeBytes + 15)), {}],
    ['ERR_HEADER_MALFORMED', fromText('age-encryption.org/v2\n'), {}],
    [
      'ERR_HEADER_LIMIT',
      concatBytes(fromText('age-encryption.org/v1\n-> '), new Uint8Array(HEADER_SIZE_BYTES_MAX).fill(0x41)),
      {},
    ],
  ]
  for (const [expected, envelope, options] of refused) {
    for (const pieceSize of [1, 100_000]) {
      const { code, released, isEnded } = streamed(envelope, () => pieceSize, { ...openOptions, ...options })
      t.is(code, expected)
      t.is(released.length, 0)
      t.false(isEnded)
    }
  }
})

test('256 MiB stream with memory for a part of them', (t) => {
  const fileKey = randomSecret(16)
  const piece = new Uint8Array(1024 * 1024).fill(7)
  let [size, peak] = [0, 0]
  const before = process.memoryUsage().arrayBuffers
  const opener = payloadOpener(fileKey, {
    push(bytes) {
      size += bytes.length
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - before)
    },
    end: () => undefined,
    [Symbol.dispose]: () => undefined,
  })
  const sealer = payloadSealer(fileKey, nodeRandom, opener)
  for (let count = 0; count < 256; count++) sealer.push(piece)
  sealer.end()
  t.is(size, 256 * piece.length)
  // Chunks that were passed on wait for the collector; what counts is that they are not all held.
  t.true(peak < 112 * 1024 * 1024, `${String(peak)} bytes`)
})
