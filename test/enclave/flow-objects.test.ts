import test from 'ava'
import fc from 'fast-check'
import { dataOffset, packEpoch, stateOf, unpackIndex, type EpochIndex } from '../../enclave/epoch-file.js'
import { KmsSessions } from '../../enclave/kms-session.js'
import { ObjectCache } from '../../enclave/object-cache.js'
import {
  byAge,
  formatObjectName,
  parseObjectName,
  parseStoreNames,
  type ObjectName,
} from '../../enclave/object-names.js'
import { allocate } from '../../protocol/bytes.js'
import { encodeCbor } from '../../protocol/cbor.js'
import { Secret } from '../../protocol/crypto/secret.js'
import { ENTRY_KINDS, parseFlowId, type EntryName } from '../../protocol/names.js'
import { encodeSessionRequest } from '../../protocol/session.js'
import { commitChannel } from '../../host/commits.js'
import { MemoryStore } from '../../storage/index.js'
import { hastyClock, text } from './flow-world.js'
import { ScriptedKms } from './scripted-kms.js'

const secret = (value: string): Secret => Secret.take(text(value))
const readable = (bytes: Uint8Array | undefined): string | undefined => bytes && new TextDecoder().decode(bytes)

test('the cache gives copies, displaces the least recently used, and zero-fills what it lets go', (t) => {
  const cache = new ObjectCache(10)
  const [a, b, c] = [secret('aaaa'), secret('bbbb'), secret('cccc')]
  cache.hold('a', a, 0)
  cache.hold('b', b, 2)
  t.is(readable(cache.read('a', 1, 3)), 'aaa')
  t.is(readable(cache.read('b', 0, 2)), 'bb')
  cache.read('a', 0, 4)?.fill(0)
  cache.hold('c', c, 0)
  t.false(cache.has('b'))
  t.throws(() => b.size)
  t.is(readable(cache.read('a', 0, 4)), 'aaaa')
  cache.hold('a', secret('again'), 0)
  t.throws(() => a.size)
  t.throws(() => cache.read('a', 3, 3), { instanceOf: RangeError })
  cache.hold('large', secret('larger than all'), 0)
  t.false(cache.has('a') || cache.has('c'))
  t.is(readable(cache.read('large', 0, 6)), 'larger')
  cache[Symbol.dispose]()
  t.is(cache.read('large', 0, 6), undefined)
  t.throws(() => c.size)
})

const place = fc.record<ObjectName>({
  kind: fc.constantFrom('epoch', 'direct'),
  epoch: fc.nat(),
  incarnation: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  serial: fc.nat(),
})

test('object names parse to what they were made of, in one spelling only', (t) => {
  fc.assert(fc.property(place, (name) => t.deepEqual(parseObjectName(formatObjectName(name)), name)))
  t.deepEqual(parseObjectName('root-0000000007'), { kind: 'root', epoch: 1, incarnation: 7, serial: 0 })
  for (const other of [
    'root-7',
    'root-00000000007',
    'epoch-0000000001-0000000001',
    'epoch-0000000001-0000000001-0000001',
    'x',
    '',
  ])
    t.is(parseObjectName(other), undefined, other)
  const [pair, epoch] = ['root-0000000001', 'epoch-0000000002-0000000001-000001']
  const own = [`f/${pair}.payload`, `f/${pair}.header-0000000001`, `f/${pair}.header-0000000002`, `f/${epoch}.age`]
  const foreign = ['f/x.age', 'f/x.payload', `g/${pair}.payload`, `f/${pair}`, `f/${pair}.age`, `ff/${epoch}.age`]
  const names = [...own, ...foreign, `f/${epoch}.payload`, `f/g/${epoch}.age`, `f/${pair}.header-1`]
  t.deepEqual(parseStoreNames(parseFlowId('f'), names).map(formatObjectName), [pair, epoch])
  const [older, newer] = [
    { kind: 'epoch', epoch: 9, incarnation: 9, serial: 10 },
    { kind: 'epoch', epoch: 10, incarnation: 1, serial: 1 },
  ] as const
  t.deepEqual([older, newer].sort(byAge), [newer, older])
})

const entryName = fc
  .tuple(fc.constantFrom(...ENTRY_KINDS), fc.stringMatching(/^[a-z0-9]{1,8}$/))
  .map(([kind, path]): EntryName => `${kind}/${path}`)
const stored = fc.record({
  name: place,
  digest: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => new Uint8Array(bytes)),
})
const location = fc.record({ object: fc.option(stored), offset: fc.nat(), sizeBytes: fc.nat() })

test('an epoch file’s index reads back, and an entry that the file holds is the file’s', (t) => {
  const entries = fc.uniqueArray(fc.tuple(entryName, location), { selector: ([name]) => name, maxLength: 12 })
  const unique = entries.filter((rows) => {
    const names = rows.flatMap(([, { object }]) => (object === null ? [] : [formatObjectName(object.name)]))
    return new Set(names).size === names.length
  })
  fc.assert(
    fc.property(unique, (rows) => {
      const index: EpochIndex = {
        parent: { epoch: 4, digest: allocate(32) },
        acknowledgement: allocate(64),
        entries: new Map(rows),
      }
      const plaintext = packEpoch(index, [secret('one'), secret('two')])
      t.deepEqual(unpackIndex(plaintext), index)
      t.is(readable(plaintext.subarray(dataOffset(plaintext))), 'onetwo')
      const here = { name: { kind: 'epoch', epoch: 5, incarnation: 1, serial: 1 }, digest: allocate(32) } as const
      for (const [name, { object }] of rows) t.deepEqual(stateOf(index, here).entries.get(name)?.object, object ?? here)
    }),
    { numRuns: 50 },
  )
})

test('an index that does not fit together is refused', (t) => {
  const right = {
    v: 1,
    parentEpoch: 1,
    parentDigest: allocate(32),
    acknowledgement: allocate(64),
    objects: ['epoch-0000000002-0000000001-000001'],
    digests: [allocate(32)],
    names: ['password/a'],
    holders: [1],
    offsets: [0],
    sizes: [1],
  }
  const framed = (index: Record<string, unknown>, sizeBytes?: number): Uint8Array => {
    const encoded = encodeCbor(index as Parameters<typeof encodeCbor>[0])
    const bytes = allocate(4 + encoded.length)
    new DataView(bytes.buffer).setUint32(0, sizeBytes ?? encoded.length)
    bytes.set(encoded, 4)
    return bytes
  }
  t.notThrows(() => unpackIndex(framed(right)))
  const wrong: Record<string, unknown>[] = [
    { v: 2 },
    { parentEpoch: 0 },
    { parentDigest: allocate(31) },
    { acknowledgement: allocate(63) },
    { objects: ['root'] },
    { digests: [] },
    { holders: [2] },
    { holders: [] },
    { offsets: [-1] },
    { offsets: [] },
    { sizes: [] },
    { sizes: ['1'] },
    { names: ['password/a', 'password/a'], holders: [1, 1], offsets: [0, 0], sizes: [1, 1] },
    { names: ['nothing/a'] },
    { more: 1 },
  ]
  for (const change of wrong)
    t.throws(() => unpackIndex(framed({ ...right, ...change })), undefined, JSON.stringify(change))
  t.throws(() => unpackIndex(framed(right, 10_000)), { code: 'ERR_PAYLOAD_INVALID' })
  t.throws(() => unpackIndex(allocate(3)), { code: 'ERR_PAYLOAD_INVALID' })
})

test('what a session’s answer carried is zero-filled once it was read', async (t) => {
  const kms = new ScriptedKms()
  const attester = { attest: () => Promise.resolve(text('evidence')) }
  const sessions = new KmsSessions({
    channel: kms,
    commits: commitChannel(new MemoryStore(), kms),
    attester,
    kmsIdentity: kms.identity.publicKey,
    clock: hastyClock,
  })
  const request = encodeSessionRequest({ op: 'open', flow: parseFlowId('f'), task: parseFlowId('t'), holds: 0 })
  let kept: Uint8Array = allocate(0)
  const sum = (): number => kept.reduce((total, byte) => total + byte, 0)
  const during = await sessions.ask(request, ({ secrets }) => ((kept = secrets), sum()), { repeatable: true })
  t.true(during > 0)
  t.is(sum(), 0)
  await t.throwsAsync(
    sessions.ask(request, ({ secrets }) => ((kept = secrets), Promise.reject(new Error())), { repeatable: true }),
  )
  t.is(sum(), 0)
})
