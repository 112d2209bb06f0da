import test from 'ava'
import { aroundStore } from '../../faults/index.js'
import { asciiBytes, concatBytes, type Bytes } from '../../protocol/bytes.js'
import { HEADER_SIZE_BYTES_MAX } from '../../protocol/limits.js'
import type { Store } from '../../protocol/ports.js'
import {
  deletePair,
  getHeaders,
  headerName,
  pairsAmong,
  parseHalfName,
  payloadName,
  putPair,
  splitEnvelope,
} from '../../protocol/sealed-pair.js'
import { MemoryStore } from '../../storage/index.js'

const header = (tag: string): Bytes => asciiBytes(`age-encryption.org/v1\n-> type ${tag}\n\n--- ${'A'.repeat(43)}\n`)
const PAYLOAD = asciiBytes('payload')

/** A store that tells which of its names were asked for. */
const watched = (store: Store): { store: Store; calls: string[] } => {
  const calls: string[] = []
  return {
    calls,
    store: aroundStore(store, ({ operation, subject }, work) => {
      calls.push(`${operation} ${subject}`)
      return work()
    }),
  }
}

test('an envelope is stored as payload, then header, and read back the same', async (t) => {
  const { store, calls } = watched(new MemoryStore())
  await putPair(store, 'f/a', concatBytes(header('one'), PAYLOAD))
  t.deepEqual(calls, ['store-put f/a.payload', 'store-put f/a.header-0000000001'])
  const [only, ...others] = await getHeaders(store, 'f/a')
  t.deepEqual(others, [])
  t.deepEqual(only, { name: 'f/a.header-0000000001', generation: 1, bytes: header('one') })
  const { header: head, payload } = splitEnvelope(concatBytes(only?.bytes ?? PAYLOAD, PAYLOAD))
  t.deepEqual([...head], [...header('one')])
  t.deepEqual([...payload], [...PAYLOAD])
})

test('halves are known by name, in one spelling only', (t) => {
  t.deepEqual(parseHalfName(payloadName('f/a')), { name: 'f/a' })
  for (const generation of [1, 99, 12_345_678_901])
    t.deepEqual(parseHalfName(headerName('f/a', generation)), { name: 'f/a', generation })
  for (const other of ['f/a', '.payload', 'f/a.header-1', 'f/a.header-0000000000', 'f/a.header-00000000001', 'f/a.age'])
    t.is(parseHalfName(other), undefined, other)
  const pairs = pairsAmong(['f/a.header-0000000002', 'f/a.header-0000000010', 'f/a.payload', 'f/b.payload', 'f/c.age'])
  t.deepEqual(
    [...pairs],
    [
      ['f/a', { hasPayload: true, generations: [10, 2] }],
      ['f/b', { hasPayload: true, generations: [] }],
    ],
  )
})

test('headers come newest first, without what is none by its form', async (t) => {
  const store = new MemoryStore()
  await store.put(headerName('f/a', 1), header('one'))
  await store.put(headerName('f/a', 2), header('two'))
  await store.put(headerName('f/a', 3), concatBytes(header('three'), PAYLOAD))
  await store.put(headerName('f/a', 4), PAYLOAD)
  await store.put(headerName('f/a', 5), new Uint8Array(HEADER_SIZE_BYTES_MAX + 9))
  await store.put(headerName('f/ab', 9), header('another'))
  t.deepEqual(await getHeaders(store, 'f/a'), [
    { name: headerName('f/a', 2), generation: 2, bytes: header('two') },
    { name: headerName('f/a', 1), generation: 1, bytes: header('one') },
  ])
  t.deepEqual(await getHeaders(store, 'f/none'), [])
})

test('a reader whose list a rewrap has made outdated finds the newer header', async (t) => {
  const inner = new MemoryStore()
  await inner.put(headerName('f/a', 1), header('one'))
  let rewrapped = false
  const store = aroundStore(inner, async ({ operation }, work) => {
    if (operation === 'store-read' && !rewrapped) {
      rewrapped = true
      await inner.put(headerName('f/a', 2), header('two'))
      await inner.delete(headerName('f/a', 1))
    }
    return work()
  })
  t.deepEqual(await getHeaders(store, 'f/a'), [{ name: headerName('f/a', 2), generation: 2, bytes: header('two') }])
  // What is expected saves the list, where it is all there is.
  const { store: counted, calls } = watched(inner)
  t.is((await getHeaders(counted, 'f/a', [2])).length, 1)
  t.false(calls.some((call) => call.startsWith('store-list')))
  t.is((await getHeaders(counted, 'f/a', [1])).at(0)?.generation, 2)
  await inner.put(headerName('f/a', 3), header('three'))
  t.deepEqual(
    (await getHeaders(counted, 'f/a', [2])).map(({ generation }) => generation),
    [3, 2],
  )
})

test('a store that lists headers without end, or such as it hasn’t, is not followed for ever', async (t) => {
  const names = Array.from({ length: 10_000 }, (_value, index) => headerName('f/a', index + 1))
  const { store, calls } = watched({
    ...aroundStore(new MemoryStore(), (_call, work) => work()),
    list: () => Promise.resolve(names),
  })
  t.deepEqual(await getHeaders(store, 'f/a'), [])
  t.true(calls.length < 100)
})

test('of a pair that is deleted, the older header goes first and the payload last', async (t) => {
  const inner = new MemoryStore()
  await putPair(inner, 'f/a', concatBytes(header('one'), PAYLOAD))
  await inner.put(headerName('f/a', 2), header('two'))
  const { store, calls } = watched(inner)
  const pair = pairsAmong(await inner.list('f/')).get('f/a')
  await deletePair(store, 'f/a', pair ?? { hasPayload: false, generations: [] })
  t.deepEqual(calls, [
    'store-delete f/a.header-0000000001',
    'store-delete f/a.header-0000000002',
    'store-delete f/a.payload',
  ])
  t.deepEqual(await inner.list(''), [])
})
