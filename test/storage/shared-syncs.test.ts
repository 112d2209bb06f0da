import test from 'ava'
import { MemoryFileSystem } from '../../faults/index.js'
import { DirectoryStore } from '../../storage/index.js'
import { SharedSyncs } from '../../storage/shared-syncs.js'

/** A file system whose fsyncs of directories end when a test says so. */
class HeldSyncs extends MemoryFileSystem {
  readonly begun: { readonly path: string; end: (error?: Error) => void }[] = []

  override syncDirectory(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.begun.push({ path, end: (error) => (error === undefined ? resolve() : reject(error)) })
    })
  }
}

/** Settles what can settle. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('fsyncs of one directory that come while one runs share the next, which begins after it', async (t) => {
  const held = new HeldSyncs()
  const fs = new SharedSyncs(held)
  const ended: string[] = []
  const sync = (name: string, path = '/a') => void fs.syncDirectory(path).then(() => ended.push(name))
  sync('first')
  for (const name of ['second', 'third']) sync(name)
  sync('other', '/b')
  await turn()
  t.deepEqual(
    held.begun.map(({ path }) => path),
    ['/a', '/b'],
  )
  held.begun[0]?.end()
  await turn()
  t.deepEqual(ended, ['first'])
  t.is(held.begun.length, 3)
  // What comes now is not covered by the one that runs.
  sync('fourth')
  held.begun[2]?.end()
  await turn()
  t.deepEqual(ended, ['first', 'second', 'third'])
  held.begun[3]?.end()
  held.begun[1]?.end()
  await turn()
  t.deepEqual(ended.sort(), ['first', 'fourth', 'other', 'second', 'third'])
  sync('later')
  await turn()
  t.is(held.begun.length, 5)
})

test('where an fsync of a directory fails, those that wait for the next one fail with it', async (t) => {
  const held = new HeldSyncs()
  const fs = new SharedSyncs(held)
  const syncs = [fs.syncDirectory('/a'), fs.syncDirectory('/a'), fs.syncDirectory('/a')]
  const settled = Promise.allSettled(syncs)
  held.begun[0]?.end(new Error('EIO'))
  t.deepEqual(
    (await settled).map(({ status }) => status),
    ['rejected', 'rejected', 'rejected'],
  )
  t.is(held.begun.length, 1)
})

test('puts of one moment into one directory are durable by fewer fsyncs than there are', async (t) => {
  const counts = { sync: 0, syncDirectory: 0 }
  const fs = new MemoryFileSystem(({ kind }) => {
    if (kind === 'sync' || kind === 'syncDirectory') counts[kind]++
    return undefined
  })
  const store = new DirectoryStore('/sealed', fs)
  await store.put('a/first', Uint8Array.of(0))
  Object.assign(counts, { sync: 0, syncDirectory: 0 })
  const names = Array.from({ length: 32 }, (_, index) => `a/${index}`)
  await Promise.all(names.map((name) => store.put(name, Uint8Array.of(1, 2, 3))))
  t.is(counts.sync, 32)
  t.true(counts.syncDirectory <= 4, String(counts.syncDirectory))
  fs.restart()
  const again = new DirectoryStore('/sealed', fs)
  for (const name of names) t.deepEqual(await again.get(name), Uint8Array.of(1, 2, 3))
})
