import test from 'ava'
import fc from 'fast-check'
import { isKeyriseError, KeyriseError, type ErrorCode } from '../../protocol/errors.js'
import type { EntryName } from '../../protocol/names.js'
import type { KmsChannel, SegmentChannel } from '../../protocol/ports.js'
import { startInProcess } from '../kms/in-process.js'
import { isEntry, MIB, patterned, startBulkWorld, turns } from './bulk-world.js'
import type { Interrupt } from './flow-world.js'

const SIZES = [2 * MIB + 10, 3 * MIB, 100]
const segmentsOf = (sizes: readonly number[]): number =>
  sizes.reduce((sum, size) => sum + Math.max(1, Math.ceil(size / MIB)), 0)

type BulkWorld = Awaited<ReturnType<typeof startBulkWorld>>
const restartKms = async ({ world: { kms } }: BulkWorld): Promise<KmsChannel> =>
  (await startInProcess({ fs: kms.fs, keyring: kms.keyring, platform: kms.platform })).service

/** More segments than are asked for at once. */
const LONG_SIZES = [5 * MIB + 10, 6 * MIB, 100]

for (const lost of ['restarted', 'unreachable for a while, then restarted'] as const) {
  test(`a KMS ${lost} in mid-read: the read goes on where it was`, async (t) => {
    const world = await startBulkWorld()
    const names = await world.write(LONG_SIZES)
    const opened = await world.launch()
    let arrivedCount = 0
    world.onSegment = () => {
      if (++arrivedCount !== 3) return
      const restarted = restartKms(world)
      let refusedCount = lost === 'restarted' ? 12 : 0
      const refuse = () => Promise.reject(new KeyriseError('ERR_KMS_UNREACHABLE'))
      world.kms = {
        exchange: async (frame) => (refusedCount++ < 12 ? refuse() : (await restarted).exchange(frame)),
      }
    }
    const items = await world.collect(opened, names)
    for (const [index, size] of LONG_SIZES.entries()) t.true(isEntry(items[index], index, size))
    t.true(world.frames.filter(({ op }) => op === 'handshake').length >= 3)
    // What had arrived is not asked for again.
    const answered = world.frames.filter(({ op }) => op === 'segment').length
    t.true(arrivedCount === segmentsOf(LONG_SIZES), `${String(arrivedCount)} of ${String(answered)}`)
  })
}

test.serial('a KMS that stays away ends the read with its code, and a later read gives everything', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([10 * MIB])
  const opened = await world.launch()
  const right = world.kms
  world.onSegment = () => void (world.kms = { exchange: () => Promise.reject(new KeyriseError('ERR_KMS_UNREACHABLE')) })
  const left = await world.buffersLeft(async () => {
    await t.throwsAsync(world.collect(opened, names), { code: 'ERR_KMS_UNREACHABLE' })
    await turns(50)
  }, 10 * MIB)
  t.deepEqual(left, { made: 1, dirty: 0 })
  world.onSegment = () => undefined
  world.kms = right
  t.true(isEntry((await world.collect(opened, names))[0], 0, 10 * MIB))
})

/** The n-th operation of a kind fails once, before or after it took effect. */
const failOnce = (operation: string, at: 'before' | 'after', n: number, code: ErrorCode) => {
  const state = { count: 0, isOver: false, isActive: false }
  const interrupt: Interrupt = (moment) => {
    if (!state.isActive || moment.operation !== operation || moment.at !== at || state.count++ !== n) return
    state.isOver = true
    throw new KeyriseError(code)
  }
  return { state, interrupt }
}

for (const at of ['before', 'after'] as const) {
  test(`a KMS that fails once, ${at} any one exchange of a read, is not noticed`, async (t) => {
    const world = await startBulkWorld()
    const names = await world.write(SIZES)
    let n = 0
    for (; ; n++) {
      const fault = failOnce('kms-exchange', at, n, 'ERR_KMS_UNREACHABLE')
      const opened = await world.launch({ interrupt: fault.interrupt })
      fault.state.isActive = true
      const items = await world.collect(opened, names)
      for (const [index, size] of SIZES.entries()) t.true(isEntry(items[index], index, size), String(n))
      opened.wipe()
      if (!fault.state.isOver) break
    }
    t.true(n >= segmentsOf(SIZES) + 1, String(n))
  })
}

test('a store that fails once, at any one read, fails that entry alone and with its code', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write(SIZES)
  let n = 0
  for (; ; n++) {
    const fault = failOnce('store-read', 'before', n, 'ERR_STORE_IO')
    const opened = await world.launch({ interrupt: fault.interrupt })
    fault.state.isActive = true
    const items = await world.collect(opened, names)
    opened.wipe()
    if (!fault.state.isOver) break
    t.is(items.filter((item) => 'error' in item && item.error.code === 'ERR_STORE_IO').length, 1, String(n))
    for (const [index, item] of items.entries())
      if ('bytes' in item) t.true(isEntry(item, index, SIZES[index] as number), String(n))
  }
  // A header, the one that would follow it, a nonce and the segments of each.
  t.is(n, 3 * SIZES.length + segmentsOf(SIZES))
})

test('a KMS that is busy is asked again', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write(SIZES)
  let refusedCount = 0
  const opened = await world.launch({
    segments: (right) => ({
      exchange: (request) =>
        request.index === 1 && refusedCount++ < 3
          ? Promise.reject(new KeyriseError('ERR_CALLS_LIMIT'))
          : right.exchange(request),
    }),
  })
  const items = await world.collect(opened, names)
  for (const [index, size] of SIZES.entries()) t.true(isEntry(items[index], index, size))
  t.true(refusedCount > 3)
})

/** What a host that carries segments may answer instead. */
const lies: Record<string, (right: SegmentChannel) => SegmentChannel['exchange']> = {
  garbage: () => () => Promise.resolve(new Uint8Array(100)),
  nothing: () => () => Promise.resolve(new Uint8Array(0)),
  'another segment': (right) => (request) => right.exchange({ ...request, index: 0, offset: 16 }),
  'a flipped bit': (right) => async (request) => {
    const answer = await right.exchange(request)
    return answer?.map((byte, index) => (index === 1000 ? byte ^ 1 : byte))
  },
  'one byte more': (right) => async (request) => {
    const answer = (await right.exchange(request)) as Uint8Array
    const longer = new Uint8Array(answer.length + 1)
    longer.set(answer)
    return longer
  },
  'the first answer to everything': (right) => {
    let first: Promise<Uint8Array | undefined> | undefined
    return (request) => (first ??= right.exchange(request))
  },
}

for (const [what, lie] of Object.entries(lies)) {
  test.serial(`a host that answers with ${what} is asked again, and gets nothing released`, async (t) => {
    const world = await startBulkWorld()
    const names = await world.write([2 * MIB])
    let isLying = true
    const opened = await world.launch({
      segments: (right) => {
        const lying = lie(right)
        return { exchange: (request) => (isLying ? lying(request) : right.exchange(request)) }
      },
    })
    const left = await world.buffersLeft(async () => {
      await t.throwsAsync(world.collect(opened, names), { code: 'ERR_KMS_FAILED' })
      await turns(50)
    }, 2 * MIB)
    t.is(left.dirty, 0)
    // One that stops lying is believed again.
    let answerCount = 0
    world.onSegment = () => void (isLying = ++answerCount < 2)
    isLying = true
    t.true(isEntry((await world.collect(opened, names))[0], 0, 2 * MIB))
  })
}

test('a host that says what a KMS would has the segment asked for again, or its entry refused', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([2 * MIB, 10])
  let said: ErrorCode = 'ERR_SESSION_INVALID'
  const opened = await world.launch({
    segments: (right) => ({
      exchange: (request) => (request.index === 1 ? Promise.reject(new KeyriseError(said)) : right.exchange(request)),
    }),
  })
  for (said of ['ERR_SESSION_INVALID', 'ERR_CALLS_LIMIT', 'ERR_KMS_FAILED', 'ERR_KMS_UNREACHABLE'] as const)
    await t.throwsAsync(world.collect(opened, names), { code: said })
  for (said of ['ERR_ENVELOPE_INVALID', 'ERR_STORE_IO'] as const) {
    const [first, second] = await world.collect(opened, names)
    const code = said === 'ERR_STORE_IO' ? said : 'ERR_DIGEST_MISMATCH'
    t.like(first, { error: { code } })
    t.like(second, { bytes: patterned(1, 10) })
  }
})

test('segments may come in any order', async (t) => {
  const world = await startBulkWorld()
  const sizes = [2 * MIB + 10, 0, 3 * MIB, 100, MIB, 1]
  const names = await world.write(sizes)
  // A deck of answers that are ready; a seeded number says which is dealt next, whenever nothing else happens.
  const order = fc.array(fc.nat(), { minLength: 40, maxLength: 40 })
  await fc.assert(
    fc.asyncProperty(order, fc.shuffledSubarray([...names.keys()]), async (picks, chosen) => {
      const ready: (() => void)[] = []
      const reading = { isOver: false }
      const opened = await world.launch({
        segments: (right) => ({
          exchange: async (request) => {
            const answer = await right.exchange(request)
            await new Promise<void>((resolve) => ready.push(resolve))
            return answer
          },
        }),
      })
      const dealing = (async () => {
        for (let turn = 0; !reading.isOver; turn++) {
          await turns(3)
          const pick = (picks[turn % picks.length] as number) % Math.max(1, ready.length)
          ready.splice(pick, 1)[0]?.()
        }
      })()
      const items = await world.collect(
        opened,
        chosen.map((index) => names[index] as EntryName),
      )
      reading.isOver = true
      await dealing
      opened.wipe()
      for (const [place, index] of chosen.entries()) t.true(isEntry(items[place], index, sizes[index] as number))
    }),
    { numRuns: 15 },
  )
})

test('two reads at once do not disturb each other, nor a checkpoint', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write(SIZES)
  const opened = await world.launch()
  const [first, second] = await Promise.all([
    world.collect(opened, names),
    world.collect(opened, names.toReversed()),
    opened.flow.checkpoint({ 'password/a': new Uint8Array(3) }),
  ])
  for (const [index, size] of SIZES.entries()) {
    t.true(isEntry(first[index], index, size))
    t.true(isEntry(second.toReversed()[index], index, size))
  }
})

test('a flow that another instance took over still reads what it knows, and a destroyed one nothing', async (t) => {
  const world = await startBulkWorld()
  const names = await world.write([10])
  const opened = await world.launch()
  const successor = await world.launch()
  t.like((await world.collect(opened, names))[0], { bytes: patterned(0, 10) })
  await successor.flow.destroy()
  await t.throwsAsync(world.collect(successor, names), { code: 'ERR_FLOW_DESTROYED' })
  const outcome = await world.collect(opened, names).catch((error: unknown) => error)
  t.true(isKeyriseError(outcome) || (Array.isArray(outcome) && 'error' in (outcome[0] as object)))
})
