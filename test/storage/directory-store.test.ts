import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { MemoryFileSystem, type FileFault, type FileOperation } from '../../faults/index.js'
import { DirectoryStore } from '../../storage/index.js'

const directory = await mkdtemp(join(tmpdir(), 'keyrise-directory-'))
test.after.always(() => rm(directory, { recursive: true }))

let count = 0
/** A real directory with a store in it, and one beside it that nothing may reach. */
const place = async (): Promise<{ root: string; outside: string }> => {
  const base = join(directory, String(count++))
  const [root, outside] = [join(base, 'sealed'), join(base, 'outside')]
  await mkdir(outside, { recursive: true })
  await writeFile(join(outside, 'secret'), 'mine')
  return { root, outside }
}

const ONE = new Uint8Array(6_000).fill(1)
const TWO = new Uint8Array(6_000).fill(2)

/** A store on a simulated disk, and a fault for what comes after. */
const simulated = (): {
  fs: MemoryFileSystem
  open: () => DirectoryStore
  fail: (next: (operation: FileOperation) => FileFault | undefined) => void
} => {
  let choice: (operation: FileOperation) => FileFault | undefined = () => undefined
  const fs = new MemoryFileSystem((operation) => choice(operation))
  return { fs, open: () => new DirectoryStore('/sealed', fs), fail: (next) => (choice = next) }
}

test('a missing parent directory is said at the first operation, with its path, and is not made', async (t) => {
  const store = new DirectoryStore(join(directory, 'no-such-disk', 'sealed'))
  await t.throwsAsync(store.list(''), { code: 'ERR_STORE_UNWRITABLE', message: /no-such-disk.*ENOENT/ })
  await t.throwsAsync(store.get('a/x'), { code: 'ERR_STORE_UNWRITABLE' })
  await t.throwsAsync(store.put('a/x', ONE), { code: 'ERR_STORE_UNWRITABLE' })
  t.false((await readdir(directory)).includes('no-such-disk'))
})

test('a file where the directory should be is said', async (t) => {
  const { outside } = await place()
  await t.throwsAsync(new DirectoryStore(join(outside, 'secret')).list(''), {
    code: 'ERR_STORE_UNWRITABLE',
    message: /ENOTDIR/,
  })
})

for (const system of ['EACCES', 'EROFS', 'EPERM']) {
  test(`a directory that cannot be written (${system}) is said at the first operation, and works once that is mended`, async (t) => {
    const { open, fail } = simulated()
    const store = open()
    fail(({ kind, path }) => (kind === 'open' && path.startsWith('/sealed') ? { fail: system } : undefined))
    const error = await t.throwsAsync(store.list('a/'), { code: 'ERR_STORE_UNWRITABLE' })
    t.regex(error.message, new RegExp(`/sealed.*${system}`))
    fail(() => undefined)
    await store.put('a/x', ONE)
    t.deepEqual(await store.get('a/x'), ONE)
  })
}

test('files are the owner’s alone', async (t) => {
  const { root } = await place()
  await new DirectoryStore(root).put('a/x', ONE)
  t.is((await stat(root)).mode & 0o777, 0o700)
  t.is((await stat(join(root, 'a'))).mode & 0o777, 0o700)
  t.is((await stat(join(root, 'a/x'))).mode & 0o777, 0o600)
})

test('a full disk: the old state is intact, and it works again once there is space', async (t) => {
  const { fs, open, fail } = simulated()
  const store = open()
  await store.put('a/1', ONE)
  fail(({ kind }) => (kind === 'write' ? { fail: 'ENOSPC' } : undefined))
  await t.throwsAsync(store.put('a/2', TWO), { code: 'ERR_STORE_FULL' })
  t.deepEqual(await store.get('a/1'), ONE)
  t.is(await store.get('a/2'), undefined)
  t.deepEqual(await store.list('a/'), ['a/1'])
  // Space is also found missing only at the fsync.
  fail(({ kind }) => (kind === 'sync' ? { fail: 'ENOSPC' } : undefined))
  await t.throwsAsync(store.put('a/2', TWO), { code: 'ERR_STORE_FULL' })
  fail(() => undefined)
  await store.put('a/2', TWO)
  fs.restart()
  t.deepEqual(await open().get('a/2'), TWO)
})

test('a full disk can still be read', async (t) => {
  const { open, fail } = simulated()
  await open().put('a/1', ONE)
  fail(({ kind, path }) =>
    kind === 'write' || (kind === 'open' && path.includes('probe')) ? { fail: 'ENOSPC' } : undefined,
  )
  t.deepEqual(await open().get('a/1'), ONE)
})

for (const kind of ['sync', 'syncDirectory'] as const) {
  test(`after a failed ${kind} the store stops, and acknowledges nothing more`, async (t) => {
    const { open, fail } = simulated()
    const store = open()
    await store.put('a/1', ONE)
    fail((operation) => (operation.kind === kind ? { fail: 'EIO' } : undefined))
    await t.throwsAsync(store.put('a/2', TWO), { code: 'ERR_STORE_IO', message: /fsync/ })
    fail(() => undefined)
    for (const operation of [
      () => store.put('a/2', TWO),
      () => store.get('a/1'),
      () => store.list('a/'),
      () => store.delete('a/1'),
    ]) {
      await t.throwsAsync(operation, { code: 'ERR_STORE_IO' })
    }
    t.deepEqual(await open().get('a/1'), ONE)
  })
}

test('a repeated put of the same bytes is made durable by itself, not believed because it can be read', async (t) => {
  const { fs, open, fail } = simulated()
  await open().put('a/0', ONE)
  fail(({ kind, path }) => (kind === 'syncDirectory' && path === '/sealed/a' ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(open().put('a/1', ONE), { code: 'ERR_STORE_IO' })
  fail(() => undefined)
  await open().put('a/1', ONE)
  fs.restart()
  t.deepEqual(await open().get('a/1'), ONE)
})

test('a crash at every step of the first puts: acknowledged means durable, and no name is ever torn', async (t) => {
  const script = async (store: DirectoryStore, acknowledged: string[]): Promise<void> => {
    for (const [name, value] of [
      ['a/1', ONE],
      ['b/c/1', TWO],
    ] as const) {
      await store.put(name, value)
      acknowledged.push(name)
    }
  }
  const whole = simulated()
  await script(whole.open(), [])
  const steps = whole.fs.operationCount
  for (let step = 0; step < steps; step++) {
    for (const fault of ['stop-before', 'stop-after'] as const) {
      for (let subset = 0, subsets = 1; subset < Math.min(subsets, 64); subset++) {
        const { fs, open, fail } = simulated()
        fail(({ index }) => (index === step ? fault : undefined))
        const acknowledged: string[] = []
        await t.throwsAsync(script(open(), acknowledged))
        fail(() => undefined)
        subsets = 2 ** fs.unsyncedCount
        fs.restart((index) => (subset & (1 << index)) !== 0)
        const store = open()
        const where = `step ${String(step)}, ${fault}, subset ${subset.toString(2)}`
        const present = await store.list('')
        t.true(
          acknowledged.every((name) => present.includes(name)),
          where,
        )
        for (const name of present) t.deepEqual(await store.get(name), name === 'a/1' ? ONE : TWO, where)
        await script(store, [])
        fs.restart()
        t.deepEqual(await open().list(''), ['a/1', 'b/c/1'], where)
      }
    }
  }
  t.true(steps > 15)
})

test('what a crash left is neither listed nor kept', async (t) => {
  const { root } = await place()
  await new DirectoryStore(root).put('a/x', ONE)
  await writeFile(join(root, 'a', '.y.tmp'), 'half')
  const store = new DirectoryStore(root)
  t.deepEqual(await store.list(''), ['a/x'])
  await store.put('a/z', TWO)
  t.deepEqual((await readdir(join(root, 'a'))).sort(), ['x', 'z'])
})

test('two stores that write one name at once never write into one file', async (t) => {
  const { fs, open, fail } = simulated()
  const stores = [open(), open()]
  for (const [index, store] of stores.entries()) await store.put(`a/${index}`, ONE)
  const renamed: string[] = []
  fail(({ kind, path }) => {
    if (kind === 'rename') renamed.push(path)
    return undefined
  })
  await Promise.all(stores.map((store) => store.put('a/x', TWO)))
  t.is(new Set(renamed).size, 2, renamed.join())
  fs.restart()
  t.deepEqual(await open().list('a/'), ['a/0', 'a/1', 'a/x'])
  t.deepEqual(await open().get('a/x'), TWO)
})

test('case 30: a symbolic link in a file’s place is refused, and what it points to is untouched', async (t) => {
  const { root, outside } = await place()
  const store = new DirectoryStore(root)
  await store.put('a/x', ONE)
  await symlink(join(outside, 'secret'), join(root, 'a', 'linked'))
  await t.throwsAsync(store.get('a/linked'), { code: 'ERR_STORE_CONFLICT' })
  await t.throwsAsync(store.put('a/linked', TWO), { code: 'ERR_STORE_CONFLICT' })
  t.deepEqual(await store.list(''), ['a/x'])
  await symlink(join(outside, 'new'), join(root, 'a', '.y.tmp'))
  await store.put('a/y', TWO)
  t.deepEqual(await readdir(outside), ['secret'])
  t.is(await readFile(join(outside, 'secret'), 'utf8'), 'mine')
})

test('case 30: a symbolic link in a directory’s place is refused, and nothing is written or read through it', async (t) => {
  const { root, outside } = await place()
  await new DirectoryStore(root).put('b/x', ONE)
  await symlink(outside, join(root, 'a'))
  const store = new DirectoryStore(root)
  await t.throwsAsync(store.put('a/x', ONE), { code: 'ERR_STORE_CONFLICT' })
  await t.throwsAsync(store.get('a/secret'), { code: 'ERR_STORE_CONFLICT' })
  await t.throwsAsync(store.delete('a/secret'), { code: 'ERR_STORE_CONFLICT' })
  await t.throwsAsync(store.list('a/'), { code: 'ERR_STORE_CONFLICT' })
  t.deepEqual(await store.list(''), ['b/x'])
  t.deepEqual(await readdir(outside), ['secret'])
})

test('a pipe or a directory in a file’s place is refused, and nobody waits for it', async (t) => {
  const { root } = await place()
  const store = new DirectoryStore(root)
  await store.put('a/x', ONE)
  await promisify(execFile)('mkfifo', [join(root, 'a', 'pipe')])
  await mkdir(join(root, 'a', 'deep'))
  for (const name of ['a/pipe', 'a/deep']) {
    await t.throwsAsync(store.get(name), { code: 'ERR_STORE_CONFLICT' }, name)
    await t.throwsAsync(store.put(name, ONE), { code: 'ERR_STORE_CONFLICT' }, name)
  }
  await t.throwsAsync(store.put('a/x/y', ONE), { code: 'ERR_STORE_CONFLICT' })
})

test('a name that no file system takes is refused', async (t) => {
  const { root } = await place()
  await t.throwsAsync(new DirectoryStore(root).put('x'.repeat(201), ONE), { code: 'ERR_NAME_INVALID' })
  await new DirectoryStore(root).put('x'.repeat(200), ONE)
})

test('a path with a trailing slash or a dot is the same store', async (t) => {
  const { root } = await place()
  await new DirectoryStore(`${root}/`).put('a/x', ONE)
  t.deepEqual(await new DirectoryStore(`${root}/./`).list(''), ['a/x'])
})
