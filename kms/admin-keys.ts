import { ROOT_SUITES } from '../protocol/statements.js'
import { adminRoute } from './admin-route.js'
import { newestSuite, WAITING_MS, withChange, type KeyChange } from './root-keys.js'
import type { OpenKms } from './open-kms.js'
import { STORE_COUNT_MAX } from './registered-stores.js'
import { FAILURE_COUNT_MAX } from './store-rewraps.js'
import { objectOf } from './admin-schema.js'
import { withNextKey } from './change-keys.js'

export const rotateRoute = adminRoute({
  method: 'POST',
  path: '/v1/keys/rotate',
  summary: 'Makes the next version of a root key, or the first of one; enclaves seal to it from their next session on.',
  request: objectOf(
    {
      key: { type: 'string', maxLength: 32 },
      suite: {
        type: 'string',
        maxLength: 32,
        enum: [...ROOT_SUITES],
        description: 'as the newest version unless told',
      },
    },
    ['suite'],
  ),
  reply: objectOf({ key: { type: 'string', maxLength: 64 } }),
  run: (control, { key: id, suite }) =>
    control.change(async (kms, passphrase) => {
      const next = { id, suite: suite ?? newestSuite(kms.keys, id) }
      const keys = await withNextKey(next, control.options.random, (change) => kms.changeKeys(passphrase, change))
      return { key: keys[0]?.key ?? '' }
    }),
})

const KEY = { type: 'string', maxLength: 64 } as const
const COUNT = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const
const CODE = { type: 'string', maxLength: 64 } as const
const STORE = { type: 'string', maxLength: 32 } as const
const NAME = { type: 'string', maxLength: 1024 } as const
const KEYS = objectOf({
  keys: {
    type: 'array',
    maxItems: 4096,
    items: objectOf(
      {
        key: KEY,
        suite: { type: 'string', maxLength: 32 },
        state: { type: 'string', maxLength: 16, enum: ['enabled', 'decrypt-only', 'disabled', 'destroyed'] },
        at: { type: 'string', maxLength: 32, description: 'when it is to be destroyed, or was' },
      },
      ['at'],
    ),
  },
})
const NAME_COUNT_MAX = 1000
const DAY_MS = 24 * 60 * 60 * 1000

const keysOf = ({ rootKeys }: OpenKms) => ({
  keys: rootKeys.map(({ at, ...key }) => ({ ...key, ...(at === null ? {} : { at }) })),
})

export const keysRoute = adminRoute({
  method: 'GET',
  path: '/v1/keys',
  summary: 'Every version of the root keys, the newest first; then those that are destroyed.',
  request: 'none',
  reply: KEYS,
  // eslint-disable-next-line @typescript-eslint/require-await -- a KMS that is sealed is refused like any failure
  run: async (control) => keysOf(control.openKms),
})

export const keyStateRoute = adminRoute({
  method: 'POST',
  path: '/v1/keys/state',
  summary: 'Brings one version of a root key into another state; a destruction comes after a time.',
  request: objectOf(
    {
      key: KEY,
      change: { type: 'string', maxLength: 32, enum: ['disable', 'enable', 'cancel-destruction', 'destroy'] },
      waitingDays: { type: 'integer', minimum: 1, maximum: 365, description: 'before it is destroyed; 7 unless told' },
    },
    ['waitingDays'],
  ),
  reply: KEYS,
  run: (control, { key, change: kind, waitingDays = WAITING_MS / DAY_MS }) => {
    const atMs = control.options.clock.nowMs() + waitingDays * DAY_MS
    const change: KeyChange = kind === 'destroy' ? { kind, atMs } : { kind }
    return control.change(async (kms, passphrase) => {
      await kms.changeKeys(passphrase, (keys) => withChange(keys, key, change))
      return keysOf(kms)
    })
  },
})

export const dependentsRoute = adminRoute({
  method: 'GET',
  path: '/v1/keys/dependents',
  summary: 'What of the registered stores nothing would open without a version of a root key.',
  request: objectOf({ key: KEY }),
  reply: objectOf({
    stores: { ...COUNT, description: 'how many are registered, and were looked through' },
    count: COUNT,
    names: {
      type: 'array',
      maxItems: NAME_COUNT_MAX,
      items: objectOf({ store: STORE, name: NAME }),
      description: `the first ${String(NAME_COUNT_MAX)}`,
    },
  }),
  run: async (control, { key }) => {
    const names: { readonly store: string; readonly name: string }[] = []
    let count = 0
    for await (const dependent of control.openKms.dependentsOf(key)) if (count++ < NAME_COUNT_MAX) names.push(dependent)
    return { stores: control.options.stores?.size ?? 0, count, names }
  },
})

const PROGRESS = objectOf({
  state: { type: 'string', maxLength: 16, enum: ['idle', 'running', 'done', 'failed'] },
  stores: {
    type: 'array',
    maxItems: STORE_COUNT_MAX,
    items: objectOf({ store: STORE, total: COUNT, rewrapped: COUNT, current: COUNT, failed: COUNT, code: CODE }, [
      'code',
    ]),
  },
  failures: { type: 'array', maxItems: FAILURE_COUNT_MAX, items: objectOf({ store: STORE, name: NAME, code: CODE }) },
})

const progressOf = ({ rewraps: { progress } }: OpenKms) => ({
  ...progress,
  stores: progress.stores.map(({ code, ...counts }) => ({ ...counts, ...(code === null ? {} : { code }) })),
})

export const rewrapRoute = adminRoute({
  method: 'POST',
  path: '/v1/keys/rewrap',
  summary: 'Begins to rewrap the registered stores for the newest versions of root keys; it goes on after a restart.',
  request: 'none',
  reply: PROGRESS,
  run: (control) =>
    control.change((kms) => {
      kms.rewraps.start()
      return Promise.resolve(progressOf(kms))
    }),
})

export const rewrapProgressRoute = adminRoute({
  method: 'GET',
  path: '/v1/keys/rewrap',
  summary: 'How far the last rewrap of the registered stores is.',
  request: 'none',
  reply: PROGRESS,
  // eslint-disable-next-line @typescript-eslint/require-await -- a KMS that is sealed is refused like any failure
  run: async (control) => progressOf(control.openKms),
})
