import test from 'ava'
import fc from 'fast-check'
import type { MemoryFileSystem } from '../../faults/index.js'
import { FileLedger, LEDGER_NAME } from '../../kms/file-ledger.js'
import { copyBytes, type Bytes } from '../../protocol/bytes.js'
import { parseFlowId, type FlowId } from '../../protocol/names.js'
import { publish, readWhole } from '../../storage/index.js'
import type { FlowState } from '../../kms/ledger.js'
import { digestOf } from './attested-client.js'
import { flowState, headOf } from './flow-state.js'
import { makeFaultyDisk } from '../storage/faulty-disk.js'

const IDENTITY = digestOf(9)
const flowOf = (name: string) => parseFlowId(name)
const stateOf = (epoch: number) =>
  flowState({ task: flowOf('task'), head: epoch === 0 ? null : headOf(epoch), incarnation: 1 })

/** A disk with a ledger, and a fault that can be set later. */
const makeDisk = async () => {
  const { fs, setFault } = makeFaultyDisk()
  await fs.makeDirectory('/kms')
  await fs.syncDirectory('/')
  await FileLedger.create(fs, '/kms', IDENTITY)
  return { fs, open: () => FileLedger.open(fs, '/kms', IDENTITY), setFault }
}
const readLog = async (fs: MemoryFileSystem): Promise<Bytes> =>
  copyBytes((await readWhole(fs, `/kms/${LEDGER_NAME}`, 1 << 20)) ?? new Uint8Array(0))

test('a state is swapped only for the one that was expected, and is there after a restart', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  t.is(await ledger.read(flowOf('a')), undefined)
  t.true(await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(0)))
  t.false(await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1)))
  t.true(await ledger.compareAndSwap(flowOf('a'), stateOf(0), stateOf(1)))
  t.false(await ledger.compareAndSwap(flowOf('a'), stateOf(0), stateOf(2)))
  for (const other of [
    { incarnation: 2 },
    { destroyed: true },
    { staleAccepted: true },
    { task: flowOf('other') },
    { image: digestOf(2) },
    { head: null },
  ]) {
    t.false(await ledger.compareAndSwap(flowOf('a'), { ...stateOf(1), ...other }, stateOf(2)))
  }
  fs.restart()
  t.deepEqual(await (await open()).read(flowOf('a')), stateOf(1))
})

test('of two swaps at once from one state, one wins', async (t) => {
  const { open } = await makeDisk()
  const ledger = await open()
  const won = await Promise.all([1, 2, 3].map((epoch) => ledger.compareAndSwap(flowOf('a'), undefined, stateOf(epoch))))
  t.deepEqual(won, [true, false, false])
  t.deepEqual(await ledger.read(flowOf('a')), stateOf(1))
})

test('a state is shown once it is durable, and not while it is being written', async (t) => {
  const { open } = await makeDisk()
  const ledger = await open()
  const swapped = ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1))
  t.is(await ledger.read(flowOf('a')), undefined)
  t.true(await swapped)
  t.deepEqual(await ledger.read(flowOf('a')), stateOf(1))
})

test('swaps of one moment share one fsync', async (t) => {
  const { open, setFault } = await makeDisk()
  const ledger = await open()
  let syncs = 0
  setFault(({ kind }) => {
    if (kind === 'sync') syncs++
    return undefined
  })
  const flows = Array.from({ length: 300 }, (_, index) => flowOf(`flow-${index}`))
  t.true((await Promise.all(flows.map((flow) => ledger.compareAndSwap(flow, undefined, stateOf(0))))).every(Boolean))
  t.is(syncs, 1)
})

test('a log cut short at every byte of its last frame opens without it; cut anywhere else it loses whole frames only', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1))
  const before = (await readLog(fs)).length
  await ledger.compareAndSwap(flowOf('a'), stateOf(1), stateOf(2))
  const whole = await readLog(fs)
  for (let size = before; size < whole.length; size++) {
    await publish(fs, '/kms', LEDGER_NAME, whole.subarray(0, size))
    t.deepEqual(await (await open()).read(flowOf('a')), stateOf(1), `${size} of ${whole.length}`)
  }
})

test('every flipped bit is damage, said by name; no acknowledged record is dropped for it', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1))
  await ledger.compareAndSwap(flowOf('a'), stateOf(1), stateOf(2))
  await ledger.close()
  const whole = await readLog(fs)
  for (let bit = 0; bit < whole.length * 8; bit += 3) {
    const damaged = whole.slice()
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    await publish(fs, '/kms', LEDGER_NAME, damaged)
    await t.throwsAsync(FileLedger.inspect(fs, '/kms'), { code: 'ERR_LEDGER_DAMAGED' }, `bit ${bit}`)
  }
})

test('a log that is empty, doubled, or whose middle is gone, is damage', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  for (let epoch = 0; epoch < 5; epoch++) await ledger.compareAndSwap(flowOf(`f${epoch}`), undefined, stateOf(epoch))
  const whole = await readLog(fs)
  const damaged = [
    new Uint8Array(0),
    new Uint8Array(whole.length),
    new Uint8Array([...whole, ...whole]),
    whole.slice(10),
    new Uint8Array([...whole.subarray(0, 200), ...whole.subarray(260)]),
  ]
  for (const bytes of damaged) {
    await publish(fs, '/kms', LEDGER_NAME, bytes)
    await t.throwsAsync(open(), { code: 'ERR_LEDGER_DAMAGED' })
  }
})

test('another KMS’s ledger is refused, and stays untouched', async (t) => {
  const { fs } = await makeDisk()
  const before = await readLog(fs)
  await t.throwsAsync(FileLedger.open(fs, '/kms', digestOf(8)), { code: 'ERR_LEDGER_DAMAGED' })
  t.deepEqual(await readLog(fs), before)
  await t.throwsAsync(FileLedger.open(fs, '/', IDENTITY), { code: 'ERR_LEDGER_MISSING' })
})

test('on a full disk a swap fails and changes nothing; with space again the next succeeds', async (t) => {
  const { fs, open, setFault } = await makeDisk()
  const ledger = await open()
  await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1))
  let writes = 0
  setFault(({ kind }) => (kind === 'write' ? (writes++ === 0 ? { countMax: 7 } : { fail: 'ENOSPC' }) : undefined))
  await t.throwsAsync(ledger.compareAndSwap(flowOf('a'), stateOf(1), stateOf(2)), { code: 'ERR_STORE_FULL' })
  t.deepEqual(await ledger.read(flowOf('a')), stateOf(1))
  setFault(() => undefined)
  t.true(await ledger.compareAndSwap(flowOf('a'), stateOf(1), stateOf(3)))
  fs.restart()
  t.deepEqual(await (await open()).read(flowOf('a')), stateOf(3))
})

test('what an fsync failed to write is durable once a restarted process has shown it', async (t) => {
  const { fs, open, setFault } = await makeDisk()
  const ledger = await open()
  await ledger.compareAndSwap(flowOf('a'), undefined, stateOf(0))
  setFault(({ kind }) => (kind === 'sync' ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(ledger.compareAndSwap(flowOf('a'), stateOf(0), stateOf(1)), { code: 'ERR_STORE_IO' })
  setFault(() => undefined)
  // The process starts again, the machine does not: the frame can still be read.
  const shown = await (await open()).read(flowOf('a'))
  fs.restart()
  t.deepEqual(await (await open()).read(flowOf('a')), shown)
})

test('after a failed fsync nothing is acknowledged any more, nor shown', async (t) => {
  const { open, setFault } = await makeDisk()
  const ledger = await open()
  let syncs = 0
  setFault(({ kind }) => (kind === 'sync' && syncs++ === 0 ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1)), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(ledger.compareAndSwap(flowOf('a'), undefined, stateOf(1)), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(ledger.read(flowOf('a')), { code: 'ERR_STORE_IO' })
})

test('what is done meanwhile is done once a swap is written, and before it is durable or fails to be', async (t) => {
  const { open, setFault } = await makeDisk()
  const ledger = await open()
  const [flow, order]: [FlowId, string[]] = [flowOf('a'), []]
  const swap = (from: FlowState | undefined, to: FlowState) =>
    ledger.compareAndSwap(flow, from, to, undefined, () => order.push('meanwhile'))
  setFault(({ kind }) => {
    if (kind === 'write') order.push('write')
    return undefined
  })
  await swap(undefined, stateOf(1))
  order.push('durable')
  t.false(await swap(undefined, stateOf(2)))
  t.deepEqual(order.splice(0), ['write', 'meanwhile', 'durable'])
  setFault(({ kind }) => (kind === 'sync' ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(swap(stateOf(1), stateOf(2)), { code: 'ERR_STORE_IO' })
  t.deepEqual(order, ['meanwhile'])
})

test('a second process takes the ledger over: the first shows and swaps nothing any more', async (t) => {
  const { open } = await makeDisk()
  const first = await open()
  await first.compareAndSwap(flowOf('a'), undefined, stateOf(1))
  const second = await open()
  await t.throwsAsync(first.read(flowOf('a')), { code: 'ERR_LEDGER_TAKEN' })
  await t.throwsAsync(first.compareAndSwap(flowOf('a'), stateOf(1), stateOf(2)), { code: 'ERR_LEDGER_TAKEN' })
  t.deepEqual([first.hasFailed, second.hasFailed], [true, false])
  t.true(await second.compareAndSwap(flowOf('a'), stateOf(1), stateOf(3)))
})

test('a ledger whose end goes away while it is open answers nothing more', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  const file = await fs.open(`/kms/${LEDGER_NAME}`, 'update')
  await file.truncate((await file.size()) - 1)
  await t.throwsAsync(ledger.read(flowOf('a')), { code: 'ERR_LEDGER_DAMAGED', message: /its end is gone/ })
})

test('acknowledged implies durable: crash at any operation, with any part of what was unsynced', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(60),
      fc.boolean(),
      fc.infiniteStream(fc.boolean()),
      fc.integer({ min: 1, max: 12 }),
      async (stopAt, isBefore, kept, width) => {
        const { fs, open, setFault } = await makeDisk()
        const ledger = await open()
        let left = stopAt
        setFault(() => (left-- === 0 ? (isBefore ? 'stop-before' : 'stop-after') : undefined))
        const acknowledged = new Map<string, number>()
        const sent = new Map<string, number>()
        const run = async (name: string): Promise<void> => {
          for (let epoch = 0; epoch < 6; epoch++) {
            sent.set(name, epoch)
            await ledger.compareAndSwap(flowOf(name), epoch === 0 ? undefined : stateOf(epoch - 1), stateOf(epoch))
            acknowledged.set(name, epoch)
          }
        }
        await Promise.allSettled(Array.from({ length: width }, (_, index) => run(`flow-${index}`)))
        setFault(() => undefined)
        fs.restart(() => kept.next().value === true)
        const recovered = await open()
        for (const [name, epoch] of sent) {
          const state = await recovered.read(flowOf(name))
          const atLeast = acknowledged.get(name) ?? -1
          const found = state === undefined ? -1 : (state.head?.epoch ?? 0)
          t.true(found >= atLeast && found <= epoch, `${name}: acknowledged ${atLeast}, found ${found}, sent ${epoch}`)
        }
        // And it goes on from there.
        t.true(await recovered.compareAndSwap(flowOf('new'), undefined, stateOf(1)))
      },
    ),
    { numRuns: 200 },
  )
})

test('publications survive; a destroyed flow is no member', async (t) => {
  const { fs, open } = await makeDisk()
  const ledger = await open()
  for (const name of ['b', 'a', 'c']) {
    await ledger.compareAndSwap(flowOf(name), undefined, stateOf(1))
    await ledger.publish(flowOf(name), { signingKey: digestOf(5), values: { 'key/he': new Uint8Array([1, 2]) } })
  }
  await ledger.compareAndSwap(flowOf('c'), stateOf(1), { ...stateOf(1), destroyed: true })
  fs.restart()
  const members = await (await open()).members(flowOf('task'))
  t.deepEqual(
    members.map(({ flow }) => flow),
    [flowOf('a'), flowOf('b')],
  )
  t.deepEqual(members[0]?.values, { 'key/he': new Uint8Array([1, 2]) })
  t.deepEqual(await (await open()).members(flowOf('other')), [])
})
