import type { PlantedFault } from '../fault.js'

const PUBLISH = { file: 'storage/durable.ts', test: 'storage/publish.test' }
const STORE = { file: 'storage/directory-store.ts', test: 'storage/directory-store.test' }
const MIRROR = { file: 'storage/mirror-store.ts', test: 'storage/mirror-store.test' }
const LOG = { file: 'kms/log.ts', test: 'kms/ledger.test' }

/** What makes a write durable, and what sees that it was not. */
export const DURABILITY: readonly PlantedFault[] = [
  { ...PUBLISH, name: 'a published file is not synced', find: 'await syncFile(file)', put: '' },
  {
    ...PUBLISH,
    name: 'the directory of a published file is not synced',
    find: 'join(directory, name), bytes, allowed) await syncDirectory(fs, directory)',
    put: 'join(directory, name), bytes, allowed)',
  },
  {
    ...PUBLISH,
    name: 'an fsync that runs already is shared',
    file: 'storage/shared-syncs.ts',
    find: 'if (running === undefined) return this.#sync(path)',
    put: 'if (running !== undefined) return running; return this.#sync(path)',
    test: 'storage/shared-syncs.test',
  },
  {
    ...PUBLISH,
    name: 'a file is written in its place, not beside it',
    find: 'join(directory, temporaryName(name, writer))',
    put: 'join(directory, name)',
  },
  {
    ...PUBLISH,
    name: 'a file is renamed before it is known whether the name is free',
    find: 'await writeNew(fs, temporary, bytes) await allowed',
    put: 'await writeNew(fs, temporary, bytes)',
    test: 'storage/directory-store.test',
  },
  {
    ...PUBLISH,
    name: 'a short write is taken for a whole one',
    find: "{ code: 'EIO' }) done += count",
    put: "{ code: 'EIO' }); done = bytes.length",
  },
  {
    ...PUBLISH,
    name: 'a failed fsync is not marked as final',
    find: 'throw new SyncFailure(error)',
    put: 'throw error',
  },
  {
    ...STORE,
    name: 'a store’s new directory is not synced',
    find: 'await syncDirectory(this.#fs, dirname(root))',
    put: '',
  },
  {
    ...STORE,
    name: 'a new directory in a store is not synced',
    find: 'await syncDirectory(this.#fs, parent)',
    put: '',
  },
  { ...STORE, name: 'a store goes on after a failed fsync', find: 'this.#stopped = failure', put: ';' },
  {
    ...STORE,
    name: 'a store overwrites other bytes under one name',
    find: '!equalPublicBytes(present, bytes)',
    put: 'false',
    test: 'storage/stores.test',
  },
  {
    ...STORE,
    name: 'a store follows a planted symbolic link',
    file: 'storage/node-file-system.ts',
    find: 'O_NOFOLLOW | O_NONBLOCK',
    put: 'O_NONBLOCK',
  },
  {
    ...MIRROR,
    name: 'a mirror acknowledges the first copy',
    find: 'doneCount >= this.#required',
    put: 'doneCount >= 1',
  },
  {
    ...MIRROR,
    name: 'a mirror takes a copy out of reach for an empty one',
    find: 'failureCount >= this.#required',
    put: 'false',
  },
  {
    ...LOG,
    name: 'the ledger’s records are not synced',
    find: 'const synced = syncFile(this.#file)',
    put: 'const synced = Promise.resolve()',
  },
  {
    ...LOG,
    name: 'a swap answers once its acknowledgement is signed, synced or not',
    find: 'await synced',
    put: 'synced.catch(() => undefined)',
  },
  {
    ...LOG,
    name: 'the ledger goes on after a failed fsync',
    find: 'if (cause instanceof SyncFailure) throw cause',
    put: '',
  },
  {
    ...LOG,
    name: 'the ledger keeps half a record after a failed write',
    find: 'await this.#file.truncate(this.#end.size)',
    put: '',
  },
  {
    name: 'a KMS’s new directory is not synced',
    file: 'kms/place.ts',
    find: 'await syncDirectory(fs, dirname(path))',
    put: '',
    test: 'kms/place.test',
  },
  {
    name: 'the keyring is made before the ledger that it needs',
    file: 'kms/place.ts',
    find: "await beginLedger(options, keyring, 'init', { key, state, reason: `opened by ${words}` })",
    put: `await replaceCustody({ place, fs }, { keyring: file, custodians })
  await beginLedger(options, keyring, 'init', { key, state })`,
    test: 'kms/place.test',
  },
]
