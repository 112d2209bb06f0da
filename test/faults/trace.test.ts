import { Buffer } from 'node:buffer'
import test from 'ava'
import fc from 'fast-check'
import { changedFile, changedPage, Disk, PAGE_SIZE_BYTES, pagesOf } from '../../faults/disk.js'
import { chooser, crashStates, disksOf, type TracePoint } from '../../faults/trace.js'

const step = fc.oneof(
  fc.record({ offset: fc.integer({ min: 0, max: 20_000 }), size: fc.integer({ min: 1, max: 9000 }), fill: fc.nat(3) }),
  fc.record({ truncateTo: fc.integer({ min: 0, max: 25_000 }) }),
)

test('a file’s pages after some of its changes are those of the file after them', (t) => {
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 5 }),
      fc.array(step, { maxLength: 4 }),
      fc.string(),
      (before, after, seed) => {
        const disk = new Disk()
        const file = disk.create('/file')
        const make = (steps: typeof before): void => {
          for (const each of steps)
            if ('truncateTo' in each) disk.truncate(file, each.truncateTo)
            else disk.write(file, new Uint8Array(each.size).fill(each.fill), each.offset)
        }
        make(before)
        disk.sync(file)
        const bytes = disk.bytes(file)
        make(after)
        const choose = chooser(seed)
        const changes = disk.moment.unsynced.flatMap((change) =>
          'offset' in change || 'sizeBytes' in change ? (choose(3) > 0 ? [change] : []) : [],
        )
        const whole = changedFile(bytes, changes)
        const { sizeBytes, changesOf } = pagesOf(bytes, changes)
        t.is(sizeBytes, whole.length)
        for (let page = 0; page * PAGE_SIZE_BYTES < sizeBytes; page++) {
          const start = page * PAGE_SIZE_BYTES
          const expected = new Uint8Array(PAGE_SIZE_BYTES)
          expected.set(whole.subarray(start, start + PAGE_SIZE_BYTES))
          t.deepEqual(Buffer.from(changedPage(bytes, page, changesOf.get(page) ?? [])), Buffer.from(expected))
        }
      },
    ),
  )
})

test('states have one key where the disks hold the same, and only there', (t) => {
  const host = new Disk()
  const file = host.create('/file')
  host.sync(host.directory('/'))
  host.write(file, new Uint8Array(10_000).fill(1), 0)
  // The same again: with either of the two kept, the page is one.
  host.write(file, new Uint8Array(4096).fill(1), 0)
  const point: TracePoint = {
    name: 'last',
    on: 'host',
    disks: { host: host.moment, kms: new Disk().moment },
    progress: {},
  }
  const held = new Map<string, string>()
  const options = { choose: chooser('1'), subsetCountMax: 2 ** 14, crashes: ['both'] } as const
  let count = 0
  for (const state of crashStates([point], 0, options)) {
    count++
    const bytes = Buffer.from(disksOf([point], state).host.get('/file') ?? new Uint8Array()).toString('base64')
    t.is(held.get(state.key) ?? bytes, bytes)
    held.set(state.key, bytes)
  }
  t.is(count, 32)
  t.is(new Set(held.values()).size, held.size)
  t.true(held.size < count)
})
