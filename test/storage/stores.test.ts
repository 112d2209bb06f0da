import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { MemoryFileSystem } from '../../faults/index.js'
import type { Store } from '../../protocol/ports.js'
import { DirectoryStore, MemoryStore, nodeFileSystem } from '../../storage/index.js'

const directory = await mkdtemp(join(tmpdir(), 'keyrise-stores-'))
test.after.always(() => rm(directory, { recursive: true }))

let count = 0
const STORES: Readonly<Record<string, () => Store>> = {
  MemoryStore: () => new MemoryStore(),
  DirectoryStore: () => new DirectoryStore(join(directory, String(count++))),
  'DirectoryStore on a simulated disk': () => new DirectoryStore('/sealed', new MemoryFileSystem()),
}

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values)

const HOSTILE_NAMES = [
  '',
  '.',
  '..',
  '../x',
  'a/../x',
  '/etc/passwd',
  'a//b',
  'a/',
  '.hidden',
  'a/.b.tmp',
  'a\0b',
  'a\\b',
  'ä',
  'a b',
  'x'.repeat(4096),
]

for (const [title, open] of Object.entries(STORES)) {
  test(`${title}: what was put is got, listed and deleted`, async (t) => {
    const store = open()
    t.is(await store.get('a/epoch-1'), undefined)
    await store.put('a/epoch-1', bytes(1, 2, 3))
    await store.put('a/epoch-2', bytes())
    await store.put('b/epoch-1', bytes(7))
    await store.put('plain', bytes(8))
    t.deepEqual([...((await store.get('a/epoch-1')) ?? [])], [1, 2, 3])
    t.deepEqual(await store.get('a/epoch-2'), bytes())
    t.deepEqual(await store.list(''), ['a/epoch-1', 'a/epoch-2', 'b/epoch-1', 'plain'])
    t.deepEqual(await store.list('a/'), ['a/epoch-1', 'a/epoch-2'])
    t.deepEqual(await store.list('a/epoch-2'), ['a/epoch-2'])
    t.deepEqual(await store.list('c/'), [])
    await store.delete('a/epoch-1')
    await store.delete('a/epoch-1')
    await store.delete('c/none')
    t.is(await store.get('a/epoch-1'), undefined)
    t.deepEqual(await store.list('a/'), ['a/epoch-2'])
  })

  test(`${title}: a part is read from anywhere, shorter or empty at the end`, async (t) => {
    const store = open()
    t.is(await store.read('a/x', 0, 1), undefined)
    await store.put('a/x', bytes(1, 2, 3))
    for (const [offset, sizeBytes, part] of [
      [0, 2, [1, 2]],
      [1, 2, [2, 3]],
      [2, 9, [3]],
      [3, 1, []],
      [2 ** 40, 1, []],
      [1, 0, []],
    ] as const)
      t.deepEqual(
        await store.read('a/x', offset, sizeBytes),
        bytes(...part),
        `${String(sizeBytes)} at ${String(offset)}`,
      )
  })

  test(`${title}: a name is immutable`, async (t) => {
    const store = open()
    await store.put('a/x', bytes(1))
    await store.put('a/x', bytes(1))
    await t.throwsAsync(store.put('a/x', bytes(2)), { code: 'ERR_STORE_CONFLICT' })
    await t.throwsAsync(store.put('a/x', bytes(1, 1)), { code: 'ERR_STORE_CONFLICT' })
    t.deepEqual([...((await store.get('a/x')) ?? [])], [1])
  })

  test(`${title}: of two puts of one name at once, one wins and the other is told`, async (t) => {
    const store = open()
    const outcomes = await Promise.allSettled([store.put('a/x', bytes(1)), store.put('a/x', bytes(2))])
    t.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
    const winner = outcomes.findIndex(({ status }) => status === 'fulfilled') + 1
    t.deepEqual([...((await store.get('a/x')) ?? [])], [winner])
  })

  test(`${title}: puts of many names at once all arrive`, async (t) => {
    const store = open()
    await Promise.all(
      Array.from({ length: 50 }, (_value, index) => store.put(`f${String(index % 5)}/${String(index)}`, bytes(index))),
    )
    t.is((await store.list('')).length, 50)
  })

  test(`${title}: the caller keeps its buffer, and the store its bytes`, async (t) => {
    const store = open()
    const mine = bytes(1, 2)
    await store.put('a/x', mine)
    mine[0] = 9
    const got = await store.get('a/x')
    got?.fill(0)
    t.deepEqual([...((await store.get('a/x')) ?? [])], [1, 2])
  })

  test(`${title}: a name that could leave it is refused in every operation`, async (t) => {
    const store = open()
    for (const name of HOSTILE_NAMES) {
      await t.throwsAsync(
        async () => store.put(name, bytes(1)),
        { code: 'ERR_NAME_INVALID' },
        `put ${name.slice(0, 20)}`,
      )
      await t.throwsAsync(async () => store.get(name), { code: 'ERR_NAME_INVALID' }, `get ${name.slice(0, 20)}`)
      await t.throwsAsync(async () => store.read(name, 0, 1), { code: 'ERR_NAME_INVALID' }, `read ${name.slice(0, 20)}`)
      await t.throwsAsync(async () => store.delete(name), { code: 'ERR_NAME_INVALID' }, `delete ${name.slice(0, 20)}`)
    }
    t.deepEqual(await store.list(''), [])
  })

  test(`${title}: behaves as a plain map does`, async (t) => {
    const name = fc.constantFrom('a/1', 'a/2', 'b/1', 'b/c/1')
    const step = fc.oneof(
      fc.record({ op: fc.constant('put' as const), name, value: fc.uint8Array({ maxLength: 3 }) }),
      fc.record({ op: fc.constant('get' as const), name }),
      fc.record({ op: fc.constant('delete' as const), name }),
      fc.record({ op: fc.constant('list' as const), prefix: fc.constantFrom('', 'a/', 'b/', 'b/c/') }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const store = open()
        const model = new Map<string, string>()
        for (const current of steps) {
          if (current.op === 'list') {
            t.deepEqual(
              await store.list(current.prefix),
              [...model.keys()].filter((key) => key.startsWith(current.prefix)).sort(),
            )
          } else if (current.op === 'get') {
            t.is((await store.get(current.name))?.join(), model.get(current.name))
          } else if (current.op === 'delete') {
            await store.delete(current.name)
            model.delete(current.name)
          } else if ([undefined, current.value.join()].includes(model.get(current.name))) {
            await store.put(current.name, current.value)
            model.set(current.name, current.value.join())
          } else {
            await t.throwsAsync(store.put(current.name, current.value), { code: 'ERR_STORE_CONFLICT' })
          }
        }
      }),
      { numRuns: 25 },
    )
  })
}

test('directories are made level by level, and where none can be made that is said', async (t) => {
  const path = join(directory, 'a', 'b', 'c')
  await Promise.all([nodeFileSystem.makeDirectory(path), nodeFileSystem.makeDirectory(path)])
  t.deepEqual(await nodeFileSystem.list(join(directory, 'a', 'b')), [{ name: 'c', kind: 'directory' }])
  await t.throwsAsync(nodeFileSystem.makeDirectory('/proc/nothing/here'), { code: 'ENOENT' })
})
