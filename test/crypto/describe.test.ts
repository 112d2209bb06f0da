import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseHeader } from '../../protocol/age-header.js'
import { allocate, toHex } from '../../protocol/bytes.js'
import { describeEnvelope, describePayload } from '../../protocol/crypto/describe.js'
import { sealEnvelope } from '../../protocol/crypto/envelope.js'
import { sealLayers } from '../../protocol/crypto/layers.js'
import { CHUNK_SIZE, payloadSize, SEALED_CHUNK_SIZE } from '../../protocol/crypto/payload.js'
import { nodeRandom, sha256, TAG_SIZE } from '../../protocol/crypto/primitives.js'
import { scryptRecipient, subKeyRecipient, type Recipient } from '../../protocol/crypto/recipients.js'
import { VECTORS_FILE, type VectorsDocument } from '../vectors/envelopes.js'
import { codeOf, CONTEXT, randomBytes, randomSecret } from './fixtures.js'

const subKey = subKeyRecipient('epoch/7', randomSecret())
const stanza = (...args: [string, ...string[]]): Recipient => ({ wrap: () => ({ args, body: allocate(32) }) })

test('a header tells its recipients, context, authorities and layer without a key', (t) => {
  const authority = randomBytes(32)
  const file = sealLayers(randomBytes(10), {
    layers: [[subKey], [stanza('X25519', 'AAAA'), subKey, stanza('ssh-rsa', 'abcdef'), stanza('x-grease', 'y')]],
    context: CONTEXT,
    originKeys: [{ authority, key: randomSecret() }],
    random: nodeRandom,
  })
  t.deepEqual(describeEnvelope(file), {
    headerSizeBytes: parseHeader(file).sizeBytes,
    recipients: [
      { type: 'X25519', opens: 'an X25519 key; its stanza does not tell which' },
      { type: 'keyrise/sub-key', opens: 'a sub key of a flow', hint: 'step epoch/7' },
      { type: 'ssh-rsa', opens: 'an SSH key, RSA', hint: 'tag abcdef' },
      { type: 'x-grease', opens: 'unknown: passed over' },
    ],
    context: CONTEXT,
    authorities: [toHex(sha256(authority).subarray(0, 16))],
    layer: { index: 2, count: 2 },
  })
})

test('a file without a context is told as such', (t) => {
  const recipients = [scryptRecipient(randomSecret(10), 3)]
  const description = describeEnvelope(sealEnvelope(randomBytes(10), { recipients, random: nodeRandom }))
  t.deepEqual(description.recipients, [{ type: 'scrypt', opens: 'a passphrase', hint: 'work factor 2^3' }])
  t.is(description.context, undefined)
  t.deepEqual(description.authorities, [])
  t.deepEqual(description.layer, { index: 1, count: 1 })
})

test('every header of the vectors is told or refused with a code, and those that open are told', (t) => {
  const { vectors } = JSON.parse(readFileSync(VECTORS_FILE, 'utf8')) as VectorsDocument
  for (const { name, file, code, armored } of vectors) {
    if (armored === true) continue
    const described = codeOf(() => describeEnvelope(Buffer.from(file, 'base64')))
    if (described !== undefined) t.not(code, null, name)
  }
})

test('a payload’s size tells that of its plaintext', (t) => {
  const size = fc.oneof(fc.nat({ max: 2 ** 45 }), fc.constantFrom(0, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1))
  fc.assert(
    fc.property(size, (plaintextSizeBytes) => {
      const chunkCount = Math.max(1, Math.ceil(plaintextSizeBytes / CHUNK_SIZE))
      t.deepEqual(describePayload(payloadSize(plaintextSizeBytes)), { plaintextSizeBytes, chunkCount })
    }),
  )
})

test('a size that no payload has is refused', (t) => {
  for (const [size, code] of [
    [0, 'ERR_HEADER_MALFORMED'],
    [15, 'ERR_HEADER_MALFORMED'],
    [16, 'ERR_PAYLOAD_TRUNCATED'],
    [31, 'ERR_PAYLOAD_TRUNCATED'],
    [16 + SEALED_CHUNK_SIZE + TAG_SIZE - 1, 'ERR_PAYLOAD_TRUNCATED'],
    [16 + SEALED_CHUNK_SIZE + TAG_SIZE, 'ERR_PAYLOAD_INVALID'],
  ] as const)
    t.is(
      codeOf(() => describePayload(size)),
      code,
    )
})

test('the example seals, explains and reseals by the public API', (t) => {
  const { stdout, stderr } = spawnSync(process.execPath, ['dist/examples/envelope/main.js'], { encoding: 'utf8' })
  t.is(stderr, '')
  t.deepEqual(stdout.trim().split('\n'), [
    'opened: hello',
    'for: an X25519 key; its stanza does not tell which',
    'plaintext: 5 bytes',
    'with the old key: ERR_IDENTITY_MISMATCH',
    'with the new key: 5 bytes',
  ])
})
