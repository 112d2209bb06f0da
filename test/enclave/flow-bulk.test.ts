import test from 'ava'
import type { BulkItem } from '../../enclave/index.js'
import type { Bytes } from '../../protocol/bytes.js'
import type { EntryName } from '../../protocol/names.js'
import { headerName, payloadName } from '../../protocol/sealed-pair.js'
import { isEntry, isSame, startBulkWorld, MIB, patterned, turns } from './bulk-world.js'
import { text } from './flow-world.js'

test('bulk gives every entry, in the order of the names, as read does', async (t) => {
  const sizes = [0, 1, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB + 5]
  const { launch, write, collect } = await startBulkWorld()
  const names = await write(sizes)
  const opened = await launch()
  await opened.flow.checkpoint({ 'password/p': text('not streamed') })
  const asked: EntryName[] = [...names.toReversed(), 'password/p', 'password/none', names[3] as EntryName]
  const items = await collect(opened, asked)
  t.deepEqual(
    items.map(({ name }) => name),
    asked,
  )
  for (const item of items) {
    const expected = await opened.flow.read(item.name)
    if ('bytes' in item) t.true(isSame(expected, item.bytes), item.name)
    else t.is(item.error.code, 'ERR_ENTRY_MISSING')
  }
  t.is(items.filter((item) => 'error' in item).length, 1)
})

test('what bulk gives is the caller’s: changing it changes nothing', async (t) => {
  const { launch, write, collect } = await startBulkWorld()
  const names = await write([100])
  const opened = await launch()
  const [first] = await collect(opened, names)
  if (first !== undefined && 'bytes' in first) first.bytes.fill(0)
  t.deepEqual(await opened.flow.read(names[0] as EntryName), patterned(0, 100))
})

test('the payload of an entry sealed to the KMS passes the enclave’s session neither for read nor for bulk', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([3 * MIB])
  const opened = await world.launch()
  world.frames.length = 0
  t.is((await opened.flow.read(names[0] as EntryName))?.length, 3 * MIB)
  t.deepEqual(
    world.frames.map(({ op }) => op),
    ['call'],
  )
  await world.collect(opened, names)
  const calls = world.frames.filter(({ op }) => op === 'call')
  t.true(calls.every(({ sizeBytes }) => sizeBytes < 10_000))
  t.is(world.frames.filter(({ op }) => op === 'segment').length, 3)
})

test('reading one entry has the file keys of the others unwrapped along, 256 at a time', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write(Array.from({ length: 300 }, () => 10))
  const opened = await world.launch()
  world.frames.length = 0
  for (const [index, name] of names.entries()) t.deepEqual(await opened.flow.read(name), patterned(index, 10))
  t.is(world.frames.length, 2)
})

/** Another character of the MAC’s base64. */
const withOtherMac = (header: Uint8Array): Uint8Array =>
  header.map((byte, index) => (index !== header.length - 5 ? byte : byte === 65 ? 66 : 65))

interface Damage {
  readonly change: (
    store: Awaited<ReturnType<typeof startBulkWorld>>['store'],
    pair: string,
    other: string,
  ) => Promise<void>
  readonly code: string
}
const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.map((byte, index) => (index === at ? byte ^ 1 : byte))
const flipAt =
  (at: number): Damage['change'] =>
  async (store, pair) =>
    store.replace(payloadName(pair), flipped((await store.get(payloadName(pair))) as Bytes, at))

const DAMAGES: Record<string, Damage> = {
  'a flipped bit in the first segment': { change: flipAt(20), code: 'ERR_DIGEST_MISMATCH' },
  'a flipped bit in the last segment': { change: flipAt(2 * MIB + 100), code: 'ERR_DIGEST_MISMATCH' },
  'another nonce': { change: flipAt(0), code: 'ERR_DIGEST_MISMATCH' },
  'a payload cut short': {
    change: async (store, pair) =>
      store.replace(payloadName(pair), ((await store.get(payloadName(pair))) as Bytes).subarray(0, 2 * MIB)),
    code: 'ERR_DIGEST_MISMATCH',
  },
  'a payload without a whole nonce': {
    change: async (store, pair) => store.replace(payloadName(pair), new Uint8Array(9)),
    code: 'ERR_DIGEST_MISMATCH',
  },
  'no payload': { change: (store, pair) => store.delete(payloadName(pair)), code: 'ERR_STATE_LOST' },
  'no header': { change: (store, pair) => store.delete(headerName(pair, 1)), code: 'ERR_STATE_LOST' },
  'the payload of another': {
    change: async (store, pair, other) =>
      store.replace(payloadName(pair), (await store.get(payloadName(other))) as Bytes),
    code: 'ERR_DIGEST_MISMATCH',
  },
  'header and payload of another': {
    change: async (store, pair, other) => {
      await store.replace(payloadName(pair), (await store.get(payloadName(other))) as Bytes)
      await store.replace(headerName(pair, 1), (await store.get(headerName(other, 1))) as Bytes)
    },
    code: 'ERR_DIGEST_MISMATCH',
  },
  'a header that does not open': {
    change: async (store, pair) => {
      const header = (await store.get(headerName(pair, 1))) as Bytes
      await store.replace(headerName(pair, 1), withOtherMac(header))
    },
    code: 'ERR_ENVELOPE_INVALID',
  },
}

for (const [what, { change, code }] of Object.entries(DAMAGES)) {
  test(`${what}: that entry fails alone, in bulk and in read`, async (t) => {
    const { launch, write, collect, pairOf, store } = await startBulkWorld()
    const size = 2 * MIB + 1000
    const names = await write([size, size, size])
    await change(store, await pairOf(1), await pairOf(2))
    const opened = await launch()
    const items = await collect(opened, names)
    t.deepEqual(
      items.map((item) => ('error' in item ? item.error.code : item.bytes.length)),
      [size, code, size],
    )
    const read = await t.throwsAsync(opened.flow.read(names[1] as EntryName), undefined)
    t.is((read as { code?: string }).code, code)
    for (const index of [0, 2])
      t.true(isSame(await opened.flow.read(names[index] as EntryName), patterned(index, size)))
  })
}

test('of two headers the older one serves where the newer is damaged', async (t) => {
  const { launch, write, collect, pairOf, store } = await startBulkWorld()
  const names = await write([10])
  const pair = await pairOf(0)
  const header = (await store.get(headerName(pair, 1))) as Bytes
  await store.put(headerName(pair, 2), withOtherMac(header))
  t.like((await collect(await launch(), names))[0], { bytes: patterned(0, 10) })
  t.deepEqual(await (await launch()).flow.read(names[0] as EntryName), patterned(0, 10))
})

test('of two headers the right one serves where the newer is another entry’s', async (t) => {
  const { launch, write, collect, pairOf, store } = await startBulkWorld()
  const names = await write([10, 10])
  await store.put(headerName(await pairOf(0), 2), (await store.get(headerName(await pairOf(1), 1))) as Bytes)
  const items = await collect(await launch(), names)
  t.true(items.every((item, index) => isEntry(item, index, 10)))
})

test('after a rotation, one list of the store tells which headers there are', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write(Array.from({ length: 20 }, () => 10))
  for (const pair of await world.store.pairs('direct-')) {
    await world.store.put(headerName(pair, 2), (await world.store.get(headerName(pair, 1))) as Bytes)
    await world.store.delete(headerName(pair, 1))
  }
  let listCount = 0
  const opened = await world.launch({
    interrupt: ({ at, operation }) => {
      if (at === 'before' && operation === 'store-list') listCount++
    },
  })
  listCount = 0
  const items = await world.collect(opened, names)
  t.true(items.every((item, index) => isEntry(item, index, 10)))
  t.is(listCount, 1)
  for (const [index, name] of names.entries()) t.deepEqual(await opened.flow.read(name), patterned(index, 10))
  t.true(listCount <= 3, String(listCount))
})

test('nothing is fetched while the caller is busy, and never more than the window', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([3 * MIB, ...Array.from({ length: 40 }, () => 2 * MIB)])
  const opened = await world.launch()
  const seen: number[] = []
  let inFlightMax = 0
  world.onSegment = () => void (inFlightMax = Math.max(inFlightMax, world.inFlight))
  for await (const item of opened.flow.readBulk(names)) {
    t.true('bytes' in item)
    // What was on its way arrives; nothing starts.
    await turns(50)
    t.is(world.inFlight, 0)
    const before = world.segmentCount
    await turns(20)
    t.is(world.segmentCount, before)
    seen.push(before)
  }
  t.is(inFlightMax, 8)
  t.is(seen.at(-1), 83)
  for (const [index, count] of seen.entries()) t.true(count <= 3 + 2 * index + 8, `${String(index)}: ${String(count)}`)
})

test.serial('a read that is broken off, and one whose signal is aborted, lets go of everything', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([MIB, 10 * MIB, MIB])
  const opened = await world.launch()
  const left = await world.buffersLeft(async () => {
    for await (const item of opened.flow.readBulk(names)) {
      t.true('bytes' in item)
      break
    }
    const controller = new AbortController()
    const iterator = opened.flow.readBulk(names, { signal: controller.signal })[Symbol.asyncIterator]()
    await iterator.next()
    world.onSegment = ({ index }) => {
      if (index === 9) controller.abort(new Error('no longer needed'))
    }
    await t.throwsAsync(iterator.next() as Promise<unknown>, { message: 'no longer needed' })
    t.deepEqual(await iterator.next(), { done: true, value: undefined })
    await turns(50)
  }, 10 * MIB)
  t.deepEqual(left, { made: 2, dirty: 0 })
  // Aborted between two items, of which the next is not streamed.
  await opened.flow.checkpoint({ 'password/p': text('p') })
  const between = new AbortController()
  const rest = opened.flow
    .readBulk([names[0] as EntryName, 'password/p'], { signal: between.signal })
    [Symbol.asyncIterator]()
  await rest.next()
  between.abort(new Error('enough'))
  await t.throwsAsync(rest.next() as Promise<unknown>, { message: 'enough' })
  // Aborted from the start: nothing is fetched.
  const before = world.segmentCount
  const signal = AbortSignal.abort(new Error('never wanted'))
  await t.throwsAsync(world.collect(opened, names, signal), { message: 'never wanted' })
  t.is(world.segmentCount, before)
})

test.serial('what was fetched ahead, and is whole, is zero-filled when the read is broken off', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([3 * MIB, MIB + 1])
  const opened = await world.launch()
  const left = await world.buffersLeft(async () => {
    for await (const item of opened.flow.readBulk(names)) {
      t.true('bytes' in item)
      await turns(50)
      break
    }
  }, MIB + 1)
  t.deepEqual(left, { made: 1, dirty: 0 })
})

test.serial('a payload that fails, and an enclave that is wiped in mid-read, leave no plaintext behind', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([10 * MIB, 10 * MIB])
  const pair = await world.pairOf(0)
  await flipAt(9 * MIB + 9000)(world.store, pair, pair)
  const opened = await world.launch()
  const left = await world.buffersLeft(async () => {
    const [failed] = await world.collect(opened, names.slice(0, 1))
    t.like(failed, { error: { code: 'ERR_DIGEST_MISMATCH' } })
    world.onSegment = ({ index }) => {
      if (index === 9) opened.wipe()
    }
    await t.throwsAsync(world.collect(opened, names.slice(1)), { code: 'ERR_ENCLAVE_CLOSED' })
    await turns(50)
  }, 10 * MIB)
  t.deepEqual(left, { made: 2, dirty: 0 })
  await t.throwsAsync(world.collect(opened, names), { code: 'ERR_ENCLAVE_CLOSED' })
})

test('an entry that is replaced, and whose old object is gone, before its turn is given as it is then', async (t) => {
  const world = await startBulkWorld()
  // While the first is waited for, the window reaches as far as the second.
  const names = await world.write([10, 8 * MIB, 2 * MIB])
  const opened = await world.launch()
  const items: BulkItem[] = []
  for await (const item of opened.flow.readBulk(names)) {
    items.push(item)
    if (items.length > 1) continue
    await opened.flow.checkpoint({ [names[2] as EntryName]: { to: 'kms', bytes: text('newer') } as const })
    // What a checkpoint drops is deleted by the next, where it is large.
    await opened.flow.checkpoint({ 'password/a': text('a') })
  }
  t.true(isEntry(items[1], 1, 8 * MIB))
  t.true(items[2] !== undefined && 'bytes' in items[2] && isSame(items[2].bytes, text('newer')))
})

test('names are checked before anything is fetched', async (t) => {
  const { launch } = await startBulkWorld()
  const { flow } = await launch()
  t.throws(() => flow.readBulk(['nothing/a' as EntryName]), { code: 'ERR_NAME_INVALID' })
})
