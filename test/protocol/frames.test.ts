import test from 'ava'
import fc from 'fast-check'
import { allocate, concatBytes, type Bytes } from '../../protocol/bytes.js'
import { sha256 } from '../../protocol/sha256.js'
import { decodeCbor, encodeCbor, type Cbor } from '../../protocol/cbor.js'
import { isKeyriseError } from '../../protocol/errors.js'
import {
  decodeKmsReply,
  decodeKmsRequest,
  decodeParts,
  encodeKmsRequest,
  encodeParts,
  makeSegmentReply,
  type KmsRequest,
} from '../../protocol/kms.js'
import {
  DELIVERED_SEGMENT_SIZE_BYTES_MAX,
  HEADER_SIZE_BYTES_MAX,
  SEALED_SEGMENT_SIZE_BYTES_MAX,
  STREAM_COUNT_MAX,
  STREAM_SIZE_BYTES_MAX,
} from '../../protocol/limits.js'
import { parseFlowId, parseStoreId } from '../../protocol/names.js'
import {
  decodeSessionReply,
  decodeSessionRequest,
  encodeSessionRequest,
  type SessionRequest,
} from '../../protocol/session.js'
import {
  decodeCertificateBody,
  decodeRoster,
  encodeCertificateBody,
  encodeRoster,
  splitCertificate,
  type RootCertificate,
  type RosterEntry,
} from '../../protocol/statements.js'

const segmentReply = (size: number): Bytes => {
  const { frame, delivered } = makeSegmentReply(size)
  delivered.fill(1)
  return frame
}

/** Frames of both layers: what one side writes the other reads, and of what is hostile nothing but our codes comes. */

const filled = (size: number, value: number): Bytes => allocate(size).fill(value)
const flow = parseFlowId('credit-a')
const task = parseFlowId('credit')
const head = { epoch: 3, digest: filled(32, 9) }

const OUTER: readonly KmsRequest[] = [
  { op: 'identity' },
  { op: 'challenge' },
  {
    op: 'handshake',
    handshake: filled(16, 1),
    enclaveKey: filled(32, 2),
    encapsulated: filled(32, 3),
    evidence: filled(200, 4),
  },
  { op: 'call', session: filled(16, 5), sealed: filled(40, 6) },
  { op: 'segment', stream: filled(16, 7), index: 3, sealed: filled(70_000, 8) },
]

const INNER: readonly SessionRequest[] = [
  { op: 'open', flow, task, holds: 3 },
  { op: 'claim', head: null, incarnation: 0, adopt: null, stale: false },
  { op: 'claim', head, incarnation: 2, adopt: { epoch: 4, digest: filled(32, 8), incarnation: 2 }, stale: false },
  { op: 'commit', incarnation: 2, parent: head, head: { epoch: 4, digest: filled(32, 8) } },
  { op: 'unwrap', headers: [filled(50, 1), filled(60, 2)] },
  {
    op: 'unwrap-stored',
    store: parseStoreId('party-2'),
    headers: [{ name: 'flow-1/root-0000000001.header-0000000001', digest: filled(32, 4) }],
  },
  {
    op: 'stream',
    items: [{ header: filled(50, 1), nonce: filled(16, 2), sizeBytes: 3_000_000 }],
    done: [filled(16, 3)],
  },
  { op: 'publish', incarnation: 1, signingKey: filled(32, 7), values: { 'he/public': filled(9, 1) } },
  { op: 'roster' },
  { op: 'destroy', incarnation: 2 },
]

test('requests survive encoding', (t) => {
  for (const request of OUTER) t.deepEqual(decodeKmsRequest(encodeKmsRequest(request)), request)
  for (const request of INNER) t.deepEqual(decodeSessionRequest(encodeSessionRequest(request)), request)
})

const DECODERS: readonly ((claimed: Uint8Array) => unknown)[] = [
  decodeKmsRequest,
  decodeSessionRequest,
  (claimed) => decodeKmsReply('handshake', claimed),
  (claimed) => decodeKmsReply('challenge', claimed),
  (claimed) => decodeSessionReply('open', claimed),
  (claimed) => decodeSessionReply('unwrap', claimed),
  (claimed) => decodeSessionReply('unwrap-stored', claimed),
  (claimed) => decodeSessionReply('stream', claimed),
  (claimed) => decodeKmsReply('segment', claimed),
  (claimed) => decodeSessionReply('roster', claimed),
  decodeRoster,
  decodeCertificateBody,
  decodeParts,
]

/** Refuses by a code of ours, or takes it: never another error. */
const survives = (decode: (claimed: Uint8Array) => unknown, claimed: Uint8Array): boolean => {
  try {
    decode(claimed)
    return true
  } catch (error) {
    return isKeyriseError(error)
  }
}

const withField = (request: object, name: string, value: Cbor): Bytes => encodeCbor({ ...request, [name]: value })

test('a request with an unknown operation, an unknown field or a field of another type is refused', (t) => {
  for (const [requests, decode] of [
    [OUTER, decodeKmsRequest],
    [INNER, decodeSessionRequest],
  ] as const) {
    for (const request of requests) {
      if (request.op === 'segment') continue
      t.throws(() => decode(withField(request, 'op', 'other')), { code: 'ERR_REQUEST_INVALID' })
      t.throws(() => decode(withField(request, 'extra', 1)), { code: 'ERR_REQUEST_INVALID' })
      for (const [name, right] of Object.entries(request))
        for (const value of [true, -1, 'x'.repeat(300), new Uint8Array(0), [[]], { a: 1 }] as const)
          if (typeof value !== 'boolean' || typeof right !== 'boolean')
            t.throws(() => decode(withField(request, name, value)), { message: /./ }, `${request.op}.${name}`)
    }
  }
})

test('streams and segments beyond their bounds are refused; those at the bounds pass', (t) => {
  const item = { header: filled(HEADER_SIZE_BYTES_MAX, 1), nonce: filled(16, 2), sizeBytes: STREAM_SIZE_BYTES_MAX }
  const stream = (items: readonly Cbor[], done: readonly Cbor[] = []) =>
    decodeSessionRequest(encodeCbor({ op: 'stream', items, done }))
  const small = { ...item, header: filled(1, 1) }
  const full = Array<Cbor>(STREAM_COUNT_MAX).fill(small)
  const ids = Array<Cbor>(STREAM_COUNT_MAX).fill(filled(16, 1))
  t.notThrows(() => stream([item]))
  t.notThrows(() => stream(full, ids))
  const code = 'ERR_REQUEST_INVALID'
  t.throws(() => stream([...full, small]), { code })
  t.throws(() => stream([], [...ids, filled(16, 1)]), { code })
  t.throws(() => stream([{ ...item, sizeBytes: STREAM_SIZE_BYTES_MAX + 1 }]), { code })
  t.throws(() => stream([{ ...item, header: filled(HEADER_SIZE_BYTES_MAX + 1, 1) }]), { code })
  for (const size of [0, 15, 17, 32]) {
    t.throws(() => stream([{ ...small, nonce: filled(size, 1) }]), { code })
    t.throws(() => stream([], [filled(size, 1)]), { code })
  }
  const sealed = filled(SEALED_SEGMENT_SIZE_BYTES_MAX, 1)
  const segment: KmsRequest = { op: 'segment', stream: filled(16, 1), index: 65_536, sealed }
  t.notThrows(() => decodeKmsRequest(encodeKmsRequest(segment)))
  for (const [name, value] of [
    ['sealed', filled(SEALED_SEGMENT_SIZE_BYTES_MAX + 1, 1)],
    ['stream', filled(15, 1)],
    ['index', 65_537],
    ['index', 0.5],
  ] as const)
    t.throws(() => decodeKmsRequest(encodeKmsRequest({ ...segment, [name]: value })), { code }, name)
  const delivered = (size: number) => decodeKmsReply('segment', segmentReply(size))
  t.is(delivered(DELIVERED_SEGMENT_SIZE_BYTES_MAX).sealed.length, DELIVERED_SEGMENT_SIZE_BYTES_MAX)
  for (const size of [0, DELIVERED_SEGMENT_SIZE_BYTES_MAX + 1])
    t.throws(() => delivered(size), { code: 'ERR_KMS_FAILED' })
})

test('a segment stands behind its frame: a head of another size, of another kind or with other fields is refused', (t) => {
  const segment: KmsRequest = { op: 'segment', stream: filled(16, 1), index: 3, sealed: filled(100, 2) }
  const frame = encodeKmsRequest(segment)
  const headSize = frame.length - 100 - 3
  t.deepEqual([...frame.subarray(0, 3)], [0, 0, headSize])
  t.deepEqual(decodeCbor(frame.slice(3, -100)), { op: 'segment', stream: filled(16, 1), index: 3 })
  t.deepEqual(frame.slice(-100), filled(100, 2))
  const code = 'ERR_REQUEST_INVALID'
  for (let size = 0; size <= 3 + headSize; size++) t.throws(() => decodeKmsRequest(frame.slice(0, size)), { code })
  for (const size of [0, headSize - 1, headSize + 1, 255])
    t.throws(() => decodeKmsRequest(frame.with(2, size)), { code })
  const framed = (head: Cbor) => {
    const bytes = encodeCbor(head)
    return concatBytes(Uint8Array.of(0, 0, bytes.length), bytes, filled(100, 2))
  }
  const head = { op: 'segment', stream: filled(16, 1), index: 3 }
  t.notThrows(() => decodeKmsRequest(framed(head)))
  for (const other of [
    { ...head, op: 'call' },
    { ...head, session: filled(16, 1) },
    { op: 'segment', index: 3 },
    [],
    7,
  ])
    t.throws(() => decodeKmsRequest(framed(other)), { code })
  t.throws(() => decodeKmsRequest(encodeCbor({ ...head, sealed: filled(100, 2) })), { code })
  t.throws(() => decodeKmsReply('segment', framed({ error: 'ERR_FORK' })), { code: 'ERR_KMS_FAILED' })
  t.throws(() => decodeKmsReply('segment', Uint8Array.of(0, 0, 1)), { code: 'ERR_KMS_FAILED' })
  t.throws(() => decodeKmsReply('segment', encodeCbor({ error: 'ERR_CALLS_LIMIT' })), { code: 'ERR_CALLS_LIMIT' })
  t.throws(() => decodeKmsReply('call', segmentReply(100)), { code: 'ERR_KMS_FAILED' })
})

test('a stream’s answer says for each item whether it opened, and refuses ids of another size', (t) => {
  const opened = { key: 'root@1', error: null, sizeBytes: 32, stream: filled(16, 1) }
  const failed = { key: null, error: 'ERR_ENVELOPE_INVALID', sizeBytes: 0, stream: null }
  const reply = (items: readonly Cbor[]) =>
    decodeSessionReply('stream', encodeCbor({ items, epoch: 2, receipt: new Uint8Array(1) }))
  t.deepEqual(reply([opened, failed]).items, [opened, failed])
  t.throws(() => reply([{ ...opened, stream: filled(15, 1) }]), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => reply(Array<Cbor>(STREAM_COUNT_MAX + 1).fill(failed)), { code: 'ERR_REQUEST_INVALID' })
})

test('no bytes make a decoder fail in a way of its own', (t) => {
  const frames = [...OUTER.map(encodeKmsRequest), ...INNER.map(encodeSessionRequest)]
  const changed = fc
    .tuple(fc.constantFrom(...frames), fc.nat(), fc.nat(255))
    .map(([frame, place, value]) => frame.with(place % frame.length, value))
  const shaped = fc
    .dictionary(fc.constantFrom('op', 'error', 'items', 'head', 'certificates', 'flow', 'values'), fc.jsonValue())
    .map((fields) => new TextEncoder().encode(JSON.stringify(fields)))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), changed, shaped), fc.constantFrom(...DECODERS), (claimed, decode) =>
      survives(decode, claimed),
    ),
    { numRuns: 3000 },
  )
  t.pass()
})

test('a peer’s error counts if it is one of our codes, and is a failure if not', (t) => {
  t.throws(() => decodeKmsReply('challenge', encodeCbor({ error: 'ERR_POLICY_DENIED' })), { code: 'ERR_POLICY_DENIED' })
  for (const claimed of ['ERR_OTHER', 'constructor', '__proto__', 7, [], { code: 'ERR_FORK' }] as const)
    t.throws(() => decodeKmsReply('challenge', encodeCbor({ error: claimed })), { code: 'ERR_KMS_FAILED' })
})

test('parts are cut where they were joined, and sizes that do not fit are refused', (t) => {
  const parts = { meta: filled(3, 1), secrets: filled(5, 2), proof: filled(2, 3) }
  const frame = encodeParts(parts)
  t.deepEqual(decodeParts(frame), parts)
  decodeParts(frame).secrets.fill(0)
  t.deepEqual(decodeParts(frame).secrets, filled(5, 0), 'a view: wiping the frame wipes the secrets')
  for (let size = 0; size < 8 + 3 + 5; size++)
    t.throws(() => decodeParts(frame.slice(0, size)), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => decodeParts(concatBytes(filled(8, 0xff), filled(8, 0))), { code: 'ERR_REQUEST_INVALID' })
})

const CERTIFICATE: RootCertificate = {
  key: 'root@1',
  suite: 'x25519',
  encryptionKey: filled(32, 1),
  originKey: filled(32, 2),
}

const MEMBER: RosterEntry = {
  flow,
  image: 'party',
  measurement: sha256(filled(1, 1)),
  signingKey: filled(32, 3),
  published: { 'he/public': filled(4, 4) },
}

test('certificates and rosters survive encoding, and neither passes for the other', (t) => {
  const [body, roster] = [encodeCertificateBody(CERTIFICATE), encodeRoster(task, [MEMBER])]
  t.deepEqual(decodeCertificateBody(body), CERTIFICATE)
  t.deepEqual(decodeRoster(roster), { task, members: [MEMBER] })
  t.throws(() => decodeRoster(body), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => decodeCertificateBody(roster), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => splitCertificate(filled(64, 0)), { code: 'ERR_REQUEST_INVALID' })
  const [, fields] = decodeCbor(body) as [string, Record<string, Cbor>]
  for (const suite of ['x25519 ', 'rot13'])
    t.throws(() => decodeCertificateBody(encodeCbor(['keyrise/v1/root-key', { ...fields, suite }])), {
      code: 'ERR_REQUEST_INVALID',
    })
})

test('an outer frame of many items is refused before it is read, in either direction', (t) => {
  const many = encodeCbor({ op: Array.from({ length: 100 }, () => 0) })
  t.throws(() => decodeKmsRequest(many), { code: 'ERR_REQUEST_INVALID' })
  t.throws(() => decodeKmsReply('challenge', encodeCbor({ error: Array.from({ length: 100 }, () => 0) })), {
    code: 'ERR_KMS_FAILED',
    message: /failed to answer$/,
  })
})
