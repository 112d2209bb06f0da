import test from 'ava'
import { MachineStopped, MemoryFileSystem, type FileFault } from '../../faults/index.js'
import type { OpenFile } from '../../protocol/ports.js'
import { readWhole } from '../../storage/index.js'

const read = async (fs: MemoryFileSystem, path: string): Promise<number[] | undefined> => {
  const bytes = await readWhole(fs, path, 1 << 20)
  return bytes === undefined ? undefined : [...bytes]
}
const write = async (file: OpenFile, ...bytes: number[]): Promise<void> => {
  await file.write(new Uint8Array(bytes), 0)
}

test('what was not synced is lost; a file needs its own fsync and its directory’s', async (t) => {
  for (const [syncFile, syncDirectory] of [
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ] as const) {
    const fs = new MemoryFileSystem()
    const file = await fs.open('/a', 'create')
    await write(file, 1, 2)
    t.deepEqual(await read(fs, '/a'), [1, 2])
    if (syncFile) await file.sync()
    if (syncDirectory) await fs.syncDirectory('/')
    fs.restart()
    t.deepEqual(await read(fs, '/a'), syncDirectory ? (syncFile ? [1, 2] : []) : undefined)
  }
})

test('a power cut keeps any part of the rest: a size without its data, one page without the other', async (t) => {
  const seen = new Set<string>()
  for (let subset = 0; subset < 16; subset++) {
    const fs = new MemoryFileSystem()
    const file = await fs.open('/a', 'create')
    await fs.syncDirectory('/')
    await file.write(new Uint8Array(4097).fill(1), 0)
    t.is(fs.unsyncedCount, 3)
    fs.restart((index) => (subset & (1 << index)) !== 0)
    const bytes = (await read(fs, '/a')) ?? []
    seen.add(`${String(bytes.length)} ${String(bytes[0])} ${String(bytes[4096])}`)
  }
  t.deepEqual([...seen].sort(), [
    '0 undefined undefined',
    '4096 1 undefined',
    '4097 0 0',
    '4097 0 1',
    '4097 1 0',
    '4097 1 1',
  ])
})

test('a rename is whole or not at all, and durable with its directory', async (t) => {
  for (const survives of [true, false]) {
    const fs = new MemoryFileSystem()
    for (const [name, value] of [
      ['a', 1],
      ['b', 2],
    ] as const) {
      const file = await fs.open(`/${name}`, 'create')
      await write(file, value)
      await file.sync()
    }
    await fs.syncDirectory('/')
    await fs.rename('/a', '/b')
    t.is(await read(fs, '/a'), undefined)
    t.deepEqual(await read(fs, '/b'), [1])
    fs.restart(() => survives)
    t.deepEqual(await read(fs, '/a'), survives ? undefined : [1])
    t.deepEqual(await read(fs, '/b'), survives ? [1] : [2])
  }
})

test('after a failed fsync the next one succeeds and keeps nothing', async (t) => {
  let fault: FileFault | undefined
  const fs = new MemoryFileSystem(({ kind }) => (kind === 'sync' ? fault : undefined))
  const file = await fs.open('/a', 'create')
  await fs.syncDirectory('/')
  await write(file, 1)
  fault = { fail: 'EIO' }
  await t.throwsAsync(file.sync(), { code: 'EIO' })
  fault = undefined
  await file.sync()
  t.deepEqual(await read(fs, '/a'), [1])
  fs.restart()
  t.deepEqual(await read(fs, '/a'), [])
})

test('a stopped machine does nothing until it is restarted, and old handles stay dead', async (t) => {
  for (const [fault, expected] of [
    ['stop-before', undefined],
    ['stop-after', []],
  ] as const) {
    let choice: FileFault | undefined
    const fs = new MemoryFileSystem(() => choice)
    const before = await fs.open('/before', 'create')
    choice = fault
    await t.throwsAsync(fs.open('/a', 'create'), { instanceOf: MachineStopped })
    choice = undefined
    await t.throwsAsync(fs.list('/'), { instanceOf: MachineStopped })
    await t.throwsAsync(before.sync(), { instanceOf: MachineStopped })
    fs.restart(() => true)
    await t.throwsAsync(before.write(new Uint8Array(1), 0), { instanceOf: MachineStopped })
    t.deepEqual(await read(fs, '/a'), expected)
    t.deepEqual(await read(fs, '/before'), [])
  }
})

test('it fails as a file system does', async (t) => {
  const fs = new MemoryFileSystem()
  await fs.makeDirectory('/d/e')
  await fs.open('/d/f', 'create')
  await t.throwsAsync(fs.open('/d/f', 'create'), { code: 'EEXIST' })
  await t.throwsAsync(fs.open('/none', 'read'), { code: 'ENOENT' })
  await t.throwsAsync(fs.open('/none/f', 'create'), { code: 'ENOENT' })
  await t.throwsAsync(fs.open('/d/f/g', 'create'), { code: 'ENOTDIR' })
  await t.throwsAsync(fs.open('/d/e', 'read'), { code: 'EISDIR' })
  await t.throwsAsync(fs.unlink('/d/none'), { code: 'ENOENT' })
  await t.throwsAsync(fs.unlink('/d/e'), { code: 'EISDIR' })
  await t.throwsAsync(fs.rename('/d/none', '/d/x'), { code: 'ENOENT' })
  await t.throwsAsync(fs.rename('/d/f', '/d/e'), { code: 'EISDIR' })
  await t.throwsAsync(fs.list('/none'), { code: 'ENOENT' })
  await t.throwsAsync(fs.makeDirectory('/d/f/x'), { code: 'EEXIST' })
  t.deepEqual(await fs.list('/d'), [
    { name: 'e', kind: 'directory' },
    { name: 'f', kind: 'file' },
  ])
})

test('appending, truncating and reading in parts', async (t) => {
  const fs = new MemoryFileSystem(({ kind }) => (kind === 'write' ? { countMax: 2 } : undefined))
  const file = await fs.open('/a', 'update')
  t.is(await file.write(new Uint8Array([1, 2, 3]), 0), 2)
  await file.write(new Uint8Array([3, 4]), 2)
  t.is(await file.size(), 4)
  const into = new Uint8Array(3)
  t.is(await file.read(into, 2), 2)
  t.deepEqual([...into], [3, 4, 0])
  t.is(await file.read(into, 4), 0)
  await file.truncate(1)
  await file.sync()
  await file.close()
  await fs.syncDirectory('/')
  fs.restart()
  t.deepEqual(await read(fs, '/a'), [1])
})
