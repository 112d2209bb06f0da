import { KeyriseError } from '../protocol/errors.js'
import { DESTROYED_KEY_COUNT_MAX, ROOT_KEY_COUNT_MAX } from '../protocol/limits.js'
import type { RootCertificate, RootSuite } from '../protocol/statements.js'
import { certificateOf, type RootSecrets } from '../protocol/crypto/root-private.js'

/** One version of a root key: an encryption half, and apart from it an origin half that signs what came out. */
export interface RootKey extends RootSecrets {
  /** `root@1`: id, then version. */
  readonly key: string
  /**
   * Enclaves seal to the version of an id that is enabled, the newest. Those before it are decrypt-only, to open what was sealed
   * to them, until they are disabled: then they open nothing, and the secret halves are kept.
   */
  readonly state: 'enabled' | 'decrypt-only' | 'disabled'
  /** From when on the secret halves are to be gone, since the epoch; null where they are to stay. */
  readonly destroyAtMs: number | null
  readonly certificate: RootCertificate
}

/** What is left of a version whose secret halves are gone. */
export interface DestroyedKey {
  readonly key: string
  readonly suite: RootSuite
  readonly destroyedAtMs: number
}

/** All root keys of a KMS. Every change gives new ones; a secret is disposed of by the keyring that no longer has it. */
export interface RootKeys {
  /** The newest first. */
  readonly live: readonly RootKey[]
  readonly destroyed: readonly DestroyedKey[]
}

/** The id of the key for every flow that has none of its own. */
export const ROOT_ID = 'root'
/** Between the decision to destroy a key and its end. */
export const WAITING_MS = 7 * 24 * 60 * 60 * 1000

const KEY_NAME = /^([a-z][a-z0-9-]{0,31})@([1-9]\d{0,8})$/

/** @throws {KeyriseError} `code`. */
export const parseKeyName = (key: string, code: 'ERR_KEYRING_INVALID' | 'ERR_KEY_UNKNOWN' = 'ERR_KEY_UNKNOWN') => {
  const [, id, version] = KEY_NAME.exec(key) ?? []
  if (id === undefined) throw new KeyriseError(code, { detail: 'a key’s name' })
  return { id, version: Number(version) }
}

export const isKeyId = (claimed: string): boolean => KEY_NAME.test(`${claimed}@1`)

/** @throws {KeyriseError} ERR_NAME_INVALID: 1 to 32 lower-case letters, digits and hyphens. */
export const parseKeyId = (id: string): string => {
  if (!isKeyId(id))
    throw new KeyriseError('ERR_NAME_INVALID', { detail: 'a key’s id: 1 to 32 lower-case letters, digits, hyphens' })
  return id
}

const idOf = (key: string): string => parseKeyName(key).id

/** What the newest version of `id` is made of, and the next one then is too; x25519 where there is none. @param keys - newest first. */
export const newestSuite = (
  keys: readonly { readonly key: string; readonly suite: RootSuite }[],
  id: string,
): RootSuite => keys.find(({ key }) => idOf(key) === id)?.suite ?? 'x25519'

/** The version of `id` that enclaves seal to. @throws {KeyriseError} ERR_KEY_UNKNOWN. */
export const enabledKey = ({ live }: RootKeys, id: string): RootKey => {
  const found = live.find(({ key, state }) => state === 'enabled' && idOf(key) === id)
  if (found === undefined) throw new KeyriseError('ERR_KEY_UNKNOWN', { detail: id })
  return found
}

/** A flow whose key is not there could not be sealed to anything. @throws {KeyriseError} ERR_KEY_UNKNOWN. */
export const checkKeysOf = (policy: { readonly keys: readonly { readonly id: string }[] }, keys: RootKeys): void => {
  for (const { id } of policy.keys) enabledKey(keys, id)
}

/** Those that open what was sealed to them. */
export const openingKeys = ({ live }: RootKeys): readonly RootKey[] => live.filter(({ state }) => state !== 'disabled')

/**
 * Makes the next version of `id`, or its first, and the newest of all. The one before it is decrypt-only from here on.
 * @param secrets - taken over. @throws {KeyriseError} ERR_SIZE_LIMIT: too many root keys.
 */
export const withNext = (keys: RootKeys, id: string, secrets: RootSecrets): RootKeys => {
  if (keys.live.length >= ROOT_KEY_COUNT_MAX)
    throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${String(ROOT_KEY_COUNT_MAX)} root keys` })
  const versions = [...keys.live, ...keys.destroyed].flatMap(({ key }) => {
    const name = parseKeyName(key)
    return name.id === id ? [name.version] : []
  })
  const key = `${parseKeyId(id)}@${String(Math.max(0, ...versions) + 1)}`
  const next = {
    ...secrets,
    key,
    state: 'enabled',
    destroyAtMs: null,
    certificate: certificateOf(key, secrets),
  } as const
  const older = keys.live.map((one): RootKey =>
    idOf(one.key) === id && one.state === 'enabled' ? { ...one, state: 'decrypt-only' } : one,
  )
  return { ...keys, live: [next, ...older] }
}

/** What an operator does with one version of a key. */
export type KeyChange =
  | { readonly kind: 'disable' | 'enable' | 'cancel-destruction' }
  /** Disabled from now on; its secret halves go at that time. */
  | { readonly kind: 'destroy'; readonly atMs: number }

/**
 * One version in another state.
 * @throws {KeyriseError} ERR_KEY_UNKNOWN; ERR_KEY_STATE: the newest version of an id stays enabled; nothing is disabled that is,
 * or enabled that waits for its end.
 */
export const withChange = (keys: RootKeys, key: string, change: KeyChange): RootKeys => {
  const known = findKey(keys, key)
  if (known.state === 'enabled') throw refused(key, 'enclaves seal to it: rotate first')
  const next = changed(known, change)
  return { ...keys, live: keys.live.map((one) => (one === known ? next : one)) }
}

/** @throws {KeyriseError} ERR_KEY_UNKNOWN; ERR_KEY_STATE: it is destroyed. */
export const findKey = (keys: RootKeys, key: string): RootKey => {
  const known = keys.live.find((one) => one.key === key)
  if (known !== undefined) return known
  if (keys.destroyed.some((one) => one.key === key)) throw refused(key, 'it is destroyed')
  throw new KeyriseError('ERR_KEY_UNKNOWN', { detail: key })
}

const changed = (known: RootKey, change: KeyChange): RootKey => {
  const isWaiting = known.destroyAtMs !== null
  switch (change.kind) {
    case 'disable':
      if (known.state === 'disabled') throw refused(known.key, 'it is disabled')
      return { ...known, state: 'disabled' }
    case 'enable':
      if (known.state !== 'disabled' || isWaiting)
        throw refused(known.key, isWaiting ? 'its destruction waits: cancel that first' : 'it opens already')
      return { ...known, state: 'decrypt-only' }
    case 'destroy':
      if (isWaiting) throw refused(known.key, 'its destruction waits already')
      return { ...known, state: 'disabled', destroyAtMs: change.atMs }
    case 'cancel-destruction':
      if (!isWaiting) throw refused(known.key, 'no destruction of it waits')
      return { ...known, destroyAtMs: null }
  }
}

/** Ends those whose time has come. The same object where none is due. @throws {KeyriseError} ERR_SIZE_LIMIT. */
export const withoutDue = (keys: RootKeys, nowMs: number): RootKeys => {
  const isDue = ({ destroyAtMs }: RootKey): boolean => destroyAtMs !== null && destroyAtMs <= nowMs
  const due = keys.live.filter(isDue)
  if (due.length === 0) return keys
  const destroyed = [...due.map(({ key, suite }) => ({ key, suite, destroyedAtMs: nowMs })), ...keys.destroyed]
  if (destroyed.length > DESTROYED_KEY_COUNT_MAX)
    throw new KeyriseError('ERR_SIZE_LIMIT', { detail: `${String(DESTROYED_KEY_COUNT_MAX)} destroyed keys` })
  return { live: keys.live.filter((one) => !isDue(one)), destroyed }
}

/** When the next destruction is due, since the epoch; undefined where none waits. */
export const nextDueMs = ({ live }: RootKeys): number | undefined => {
  const times = live.flatMap(({ destroyAtMs }) => (destroyAtMs === null ? [] : [destroyAtMs]))
  return times.length === 0 ? undefined : Math.min(...times)
}

/** What anyone may know of a version. `at`: when it is to be destroyed, or was, in ISO 8601. */
export interface KeyDescription {
  readonly key: string
  readonly suite: RootSuite
  readonly state: RootKey['state'] | 'destroyed'
  readonly at: string | null
}

/** The newest first; then those that are destroyed. */
export const describeKeys = ({ live, destroyed }: RootKeys): readonly KeyDescription[] => [
  ...live.map(({ key, suite, state, destroyAtMs }) => ({ key, suite, state, at: isoOf(destroyAtMs) })),
  ...destroyed.map(({ key, suite, destroyedAtMs }) => ({
    key,
    suite,
    state: 'destroyed' as const,
    at: isoOf(destroyedAtMs),
  })),
]

const isoOf = (timeMs: number | null): string | null => (timeMs === null ? null : new Date(timeMs).toISOString())

const refused = (key: string, why: string): KeyriseError =>
  new KeyriseError('ERR_KEY_STATE', { detail: `${key}: ${why}` })
