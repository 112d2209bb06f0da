import test from 'ava'
import { MemoryFileSystem, type FileFault, type FileOperation } from '../../faults/index.js'
import { equalPublicBytes } from '../../protocol/bytes.js'
import { isKeyriseError, type ErrorCode } from '../../protocol/errors.js'
import { publish, readWhole, discard, SyncFailure } from '../../storage/index.js'

// Several pages, the last one partial, so that torn writes have pieces to lose.
const OLD = new Uint8Array(9_000).fill(1)
const NEW = new Uint8Array(10_000).fill(2)
const SIZE_MAX = 1 << 20

type FaultChoice = (operation: FileOperation) => FileFault | undefined

/** A disk with OLD published on it, and a fault for what comes after. */
const diskWithOld = async (): Promise<{ fs: MemoryFileSystem; fail: (choice: FaultChoice) => void }> => {
  let choice: FaultChoice = () => undefined
  const fs = new MemoryFileSystem((operation) => choice(operation))
  await publish(fs, '/', 'state', OLD)
  return { fs, fail: (next) => (choice = next) }
}

const read = (fs: MemoryFileSystem): Promise<Uint8Array | undefined> => readWhole(fs, '/state', SIZE_MAX)
const isOld = async (fs: MemoryFileSystem): Promise<boolean> =>
  equalPublicBytes((await read(fs)) ?? new Uint8Array(), OLD)
const isNew = async (fs: MemoryFileSystem): Promise<boolean> =>
  equalPublicBytes((await read(fs)) ?? new Uint8Array(), NEW)

test('a crash at every step, with every subset of what was unsynced, leaves the old or the new, never torn', async (t) => {
  const whole = await diskWithOld()
  const first = whole.fs.operationCount
  await publish(whole.fs, '/', 'state', NEW)
  const count = whole.fs.operationCount - first
  let states = 0
  let oldStates = 0
  for (let step = 0; step < count; step++) {
    for (const fault of ['stop-before', 'stop-after'] as const) {
      for (let subset = 0, subsets = 1; subset < subsets; subset++) {
        const { fs, fail } = await diskWithOld()
        fail(({ index }) => (index === first + step ? fault : undefined))
        await t.throwsAsync(publish(fs, '/', 'state', NEW))
        fail(() => undefined)
        subsets = 2 ** fs.unsyncedCount
        fs.restart((index) => (subset & (1 << index)) !== 0)
        const old = await isOld(fs)
        t.true(old || (await isNew(fs)), `step ${String(step)}, ${fault}, subset ${subset.toString(2)}`)
        states++
        if (old) oldStates++
        // And it can be done again, whatever the crash left.
        await publish(fs, '/', 'state', NEW)
        t.true(await isNew(fs))
      }
    }
  }
  t.true(
    states > 30 && oldStates > 0 && oldStates < states,
    `${String(states)} states, ${String(oldStates)} of them old`,
  )
})

test('what was published survives the loss of everything unsynced', async (t) => {
  const { fs } = await diskWithOld()
  await publish(fs, '/', 'state', NEW)
  fs.restart()
  t.true(await isNew(fs))
})

test('what was discarded is gone, durably once something else is published beside it', async (t) => {
  const { fs } = await diskWithOld()
  await discard(fs, '/', 'state')
  await discard(fs, '/', 'state')
  t.is(await read(fs), undefined)
  await publish(fs, '/', 'other', NEW)
  fs.restart()
  t.is(await read(fs), undefined)
})

test('short writes are continued', async (t) => {
  const { fs, fail } = await diskWithOld()
  fail(({ kind }) => (kind === 'write' ? { countMax: 999 } : undefined))
  await publish(fs, '/', 'state', NEW)
  fs.restart()
  t.true(await isNew(fs))
})

test('short reads are continued', async (t) => {
  const { fs, fail } = await diskWithOld()
  fail(({ kind }) => (kind === 'read' ? { countMax: 999 } : undefined))
  t.true(await isOld(fs))
})

test('a write that takes nothing is a failure, not a loop', async (t) => {
  const { fs, fail } = await diskWithOld()
  fail(({ kind }) => (kind === 'write' ? { countMax: 0 } : undefined))
  await t.throwsAsync(publish(fs, '/', 'state', NEW), { message: /EIO/ })
  t.true(await isOld(fs))
})

const FAILURES: readonly (readonly [kind: FileOperation['kind'], system: string, code: ErrorCode])[] = [
  ['open', 'EACCES', 'ERR_STORE_UNWRITABLE'],
  ['open', 'EROFS', 'ERR_STORE_UNWRITABLE'],
  ['open', 'ENOENT', 'ERR_STORE_UNWRITABLE'],
  ['open', 'EMFILE', 'ERR_STORE_IO'],
  ['write', 'ENOSPC', 'ERR_STORE_FULL'],
  ['write', 'EDQUOT', 'ERR_STORE_FULL'],
  ['write', 'EIO', 'ERR_STORE_IO'],
  ['sync', 'EIO', 'ERR_STORE_IO'],
  ['sync', 'ENOSPC', 'ERR_STORE_FULL'],
  ['rename', 'EIO', 'ERR_STORE_IO'],
]

for (const [kind, system, code] of FAILURES) {
  test(`${system} from ${kind} is ${code} and leaves the old state`, async (t) => {
    const { fs, fail } = await diskWithOld()
    fail((operation) => (operation.kind === kind ? { fail: system } : undefined))
    const error = await t.throwsAsync(publish(fs, '/', 'state', NEW))
    t.true(isKeyriseError(error, code), error.message)
    t.is(error.cause instanceof SyncFailure, kind === 'sync')
    fail(() => undefined)
    t.true(await isOld(fs))
    t.deepEqual(await fs.list('/'), [{ name: 'state', kind: 'file' }])
    await publish(fs, '/', 'state', NEW)
    fs.restart()
    t.true(await isNew(fs))
  })
}

test('a failed fsync of the directory is marked as one, and is not retried', async (t) => {
  const { fs, fail } = await diskWithOld()
  let count = 0
  fail(({ kind }) => (kind === 'syncDirectory' && ++count > 0 ? { fail: 'EIO' } : undefined))
  const error = await t.throwsAsync(publish(fs, '/', 'state', NEW))
  t.true(isKeyriseError(error, 'ERR_STORE_IO') && error.cause instanceof SyncFailure)
  t.is(count, 1)
})

test('a temporary file that another process sweeps away is written again, a few times', async (t) => {
  const { fs, fail } = await diskWithOld()
  let count = 0
  fail(({ kind }) => (kind === 'rename' && ++count < 3 ? { fail: 'ENOENT' } : undefined))
  await publish(fs, '/', 'state', NEW)
  t.is(count, 3)
  fs.restart()
  t.true(await isNew(fs))
})

test('what another left under the temporary name is removed, and a directory there is refused', async (t) => {
  const { fs } = await diskWithOld()
  await (await fs.open('/.state.tmp', 'create')).write(new Uint8Array(20_000).fill(9), 0)
  await publish(fs, '/', 'state', NEW)
  t.true(await isNew(fs))
  await fs.makeDirectory('/.state.tmp')
  await t.throwsAsync(publish(fs, '/', 'state', OLD), { code: 'ERR_STORE_CONFLICT' })
  t.true(await isNew(fs))
})

test('a file above the size that its reader allows is refused before it is read', async (t) => {
  const { fs, fail } = await diskWithOld()
  fail(({ kind }) => (kind === 'read' ? { fail: 'EIO' } : undefined))
  await t.throwsAsync(readWhole(fs, '/state', OLD.length - 1), { code: 'ERR_SIZE_LIMIT' })
})
