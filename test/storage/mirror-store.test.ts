import test from 'ava'
import { MemoryStore, MirrorStore, type MirrorFailure } from '../../storage/index.js'
import { KeyriseError } from '../../protocol/errors.js'
import type { Store } from '../../protocol/ports.js'

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => new Uint8Array(values)

/** A copy whose every call fails while it is out of reach, or waits while it is slow. */
class Copy extends MemoryStore {
  isAway = false
  slow: Promise<void> | undefined

  override put(name: string, value: Uint8Array): Promise<void> {
    return this.#first(() => super.put(name, value))
  }
  override get(name: string) {
    return this.#first(() => super.get(name))
  }
  override read(name: string, offset: number, sizeBytes: number) {
    return this.#first(() => super.read(name, offset, sizeBytes))
  }
  override list(prefix: string) {
    return this.#first(() => super.list(prefix))
  }
  override delete(name: string) {
    return this.#first(() => super.delete(name))
  }

  async #first<T>(work: () => Promise<T>): Promise<T> {
    if (this.isAway) throw new KeyriseError('ERR_STORE_IO', { detail: 'away' })
    await this.slow
    return work()
  }
}

const twoCopies = (required?: number) => {
  const [a, b] = [new Copy(), new Copy()]
  const failures: MirrorFailure[] = []
  const onFailure = (failure: MirrorFailure): void => void failures.push(failure)
  const store = new MirrorStore([a, b], required === undefined ? { onFailure } : { required, onFailure })
  return { a, b, store, failures }
}

test('unless told otherwise, a put resolves when all copies are durable, and not before', async (t) => {
  const { a, b, store } = twoCopies()
  let release = (): void => undefined
  b.slow = new Promise((resolve) => (release = resolve))
  let isDone = false
  const put = store.put('flow/x', bytes(1)).then(() => (isDone = true))
  t.deepEqual(await a.get('flow/x'), bytes(1))
  t.false(isDone)
  release()
  await put
  t.deepEqual(await b.get('flow/x'), bytes(1))
})

test('a copy that fails a put fails the whole where all are required, and is named', async (t) => {
  const { b, store, failures } = twoCopies()
  b.isAway = true
  await t.throwsAsync(store.put('flow/x', bytes(1)), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(store.delete('flow/x'), { code: 'ERR_STORE_IO' })
  t.like(failures, [
    { copy: 1, operation: 'put', name: 'flow/x', error: { code: 'ERR_STORE_IO' } },
    { copy: 1, operation: 'delete', name: 'flow/x' },
  ])
})

test('with one of two required, a put resolves without the other, which gets the bytes as they were', async (t) => {
  const { a, b, store, failures } = twoCopies(1)
  let release = (): void => undefined
  b.slow = new Promise((resolve) => (release = resolve))
  const value = bytes(1, 2)
  await store.put('flow/x', value)
  value.fill(0)
  release()
  while ((await b.list('')).length === 0) await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(await b.get('flow/x'), bytes(1, 2))
  a.isAway = true
  b.slow = undefined
  await store.put('flow/y', bytes(3))
  t.deepEqual(await b.get('flow/y'), bytes(3))
  t.like(failures, [{ copy: 0, operation: 'put', name: 'flow/y' }])
})

test('any copy is read: one that is missing or out of reach is passed over', async (t) => {
  const { a, b, store, failures } = twoCopies()
  await store.put('flow/x', bytes(1, 2, 3))
  await a.delete('flow/x')
  t.deepEqual(await store.get('flow/x'), bytes(1, 2, 3))
  a.isAway = true
  t.deepEqual(await store.read('flow/x', 1, 1), bytes(2))
  t.deepEqual(await store.list('flow/'), ['flow/x'])
  t.deepEqual(
    failures.map(({ copy, operation }) => `${operation} ${copy}`),
    ['read 0', 'list 0'],
  )
  a.isAway = false
  b.isAway = true
  t.is(await store.get('flow/x'), undefined)
})

test('what no copy that answers has is missing only where the others could not have it alone', async (t) => {
  const { a, store } = twoCopies(1)
  a.isAway = true
  await t.throwsAsync(store.get('flow/x'), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(store.read('flow/x', 0, 1), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(store.list('flow/'), { code: 'ERR_STORE_IO' })
  a.isAway = false
  t.is(await store.get('flow/x'), undefined)
})

test('a list is what any copy has, and a deletion is of all', async (t) => {
  const { a, b, store } = twoCopies()
  await a.put('flow/x', bytes(1))
  await b.put('flow/y', bytes(2))
  t.deepEqual(await store.list('flow/'), ['flow/x', 'flow/y'])
  await store.delete('flow/x')
  await store.delete('flow/y')
  t.deepEqual([await a.list(''), await b.list('')], [[], []])
  t.deepEqual(await store.copies(), [a, b])
})

test('a failure that is no KeyriseError leaves as ERR_STORE_IO', async (t) => {
  const broken: Store = {
    put: () => Promise.reject(new Error('broken')),
    get: () => Promise.reject(new Error('broken')),
    read: () => Promise.reject(new Error('broken')),
    list: () => Promise.reject(new Error('broken')),
    delete: () => Promise.reject(new Error('broken')),
  }
  const store = new MirrorStore([broken])
  await t.throwsAsync(store.put('flow/x', bytes(1)), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(store.get('flow/x'), { code: 'ERR_STORE_IO' })
  await t.throwsAsync(store.list('flow/'), { code: 'ERR_STORE_IO' })
})

test('no store, one store twice, and a number of copies that there are not, are refused', (t) => {
  const store = new MemoryStore()
  for (const make of [
    () => new MirrorStore([]),
    () => new MirrorStore([store, store]),
    () => new MirrorStore([store], { required: 0 }),
    () => new MirrorStore([store], { required: 2 }),
    () => new MirrorStore([store], { required: 0.5 }),
    () => new MirrorStore(Array.from({ length: 17 }, () => new MemoryStore())),
  ])
    t.throws(make, { code: 'ERR_CONFIG_INVALID' })
})
