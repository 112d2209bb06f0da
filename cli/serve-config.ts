import { dirname, resolve } from 'node:path'
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from '../kms/log-entry.js'
import type { RegisteredStores } from '../kms/registered-stores.js'
import { KeyriseError } from '../protocol/errors.js'

/** What `keyrise kms serve` can be told by a file, by the environment and by flags. Passphrases and keys are none of it. */
export interface ServeConfig {
  readonly directory?: string
  readonly custody?: string
  readonly policy?: string
  readonly host: string
  readonly port: number
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly clientCa?: string
  readonly insecureLoopback: boolean
  readonly adminSocket?: string
  readonly adminHost?: string
  readonly adminPort?: number
  readonly adminClientCa?: string
  readonly adminTokenFile?: string
  readonly logLevel: LogLevel
  /** Text on a terminal, and JSON elsewhere, unless told. */
  readonly logFormat?: LogFormat
  /** Standard error unless told. */
  readonly logFile?: string
  /** Stores that it rewraps by itself, by id. */
  readonly stores?: RegisteredStores
}

type Key = keyof ServeConfig
type Kind = 'text' | 'path' | 'port' | 'flag' | 'stores' | readonly string[]
type Value = string | number | boolean | RegisteredStores

const KINDS: Readonly<Record<Key, Kind>> = {
  directory: 'path',
  custody: 'path',
  policy: 'path',
  host: 'text',
  port: 'port',
  tlsCert: 'path',
  tlsKey: 'path',
  clientCa: 'path',
  insecureLoopback: 'flag',
  adminSocket: 'path',
  adminHost: 'text',
  adminPort: 'port',
  adminClientCa: 'path',
  adminTokenFile: 'path',
  logLevel: LOG_LEVELS,
  logFormat: LOG_FORMATS,
  logFile: 'path',
  stores: 'stores',
}
const KEYS = Object.keys(KINDS) as readonly Key[]
const DEFAULTS: Partial<ServeConfig> = { host: '127.0.0.1', port: 7600, insecureLoopback: false, logLevel: 'info' }
const TEXT_LENGTH_MAX = 4096
const ENVIRONMENT_PREFIX = 'KEYRISE_KMS_'

export interface ConfigSources {
  readonly file?: { readonly path: string; readonly text: string }
  readonly environment: Readonly<Record<string, string | undefined>>
  /** As commander read them; others than the keys of a configuration are not looked at. */
  readonly flags: Readonly<Record<string, unknown>>
}

export interface ResolvedConfig {
  readonly config: ServeConfig
  /** Where each value comes from, as messages name it. */
  readonly sources: Readonly<Partial<Record<Key, string>>>
}

/** `adminSocket` as `KEYRISE_KMS_ADMIN_SOCKET`. */
const variableOf = (key: Key): string => ENVIRONMENT_PREFIX + key.replaceAll(/[A-Z]/g, '_$&').toUpperCase()
/** `adminSocket` as `--admin-socket`. */
const flagOf = (key: Key): string => `--${key.replaceAll(/[A-Z]/g, '-$&').toLowerCase()}`

/**
 * Flags win over the environment, which wins over the file. Paths in the file are relative to it.
 * @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key and the source.
 */
export const resolveConfig = ({ file, environment, flags }: ConfigSources): ResolvedConfig => {
  const values: Partial<Record<Key, Value>> = { ...DEFAULTS }
  const sources: Partial<Record<Key, string>> = {}
  for (const key of KEYS) if (values[key] !== undefined) sources[key] = 'default'
  const set = (key: Key, value: unknown, source: string): void => {
    values[key] = checkValue(key, value, source)
    sources[key] = source
  }
  if (file !== undefined) {
    for (const [name, value] of Object.entries(readFileConfig(file))) {
      const key = keyOf(name, file.path)
      set(key, relativeTo(dirname(file.path), KINDS[key], value), file.path)
    }
  }
  for (const [variable, text] of Object.entries(environment)) {
    if (!variable.startsWith(ENVIRONMENT_PREFIX) || text === undefined) continue
    const key = KEYS.find((known) => variableOf(known) === variable)
    if (key === undefined) return refuse(variable, 'no such key', 'the environment')
    set(key, parseText(KINDS[key], text), variable)
  }
  for (const key of KEYS) if (flags[key] !== undefined) set(key, flags[key], flagOf(key))
  const config = values as unknown as ServeConfig
  checkTogether(config)
  return { config, sources }
}

/** Paths of a file of settings are relative to it. */
const relativeTo = (folder: string, kind: Kind, value: unknown): unknown => {
  if (kind === 'path') return typeof value === 'string' ? resolve(folder, value) : value
  if (kind !== 'stores' || !isStores(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([id, store]) => [id, { directory: resolve(folder, store.directory) }]),
  )
}

const isStores = (value: unknown): value is RegisteredStores =>
  isObject(value) &&
  Object.values(value).every(
    (store) => isObject(store) && isText(store['directory']) && Object.keys(store).length === 1,
  )

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length > 0 && value.length <= TEXT_LENGTH_MAX && !value.includes('\0')

const refuse = (key: string, problem: string, source: string): never => {
  throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${key} (${source}): ${problem}` })
}

const readFileConfig = ({ path, text }: { readonly path: string; readonly text: string }): object => {
  let claimed: unknown
  try {
    claimed = JSON.parse(text)
  } catch {
    return refuse('configuration', 'it is not JSON', path)
  }
  return typeof claimed === 'object' && claimed !== null && !Array.isArray(claimed)
    ? claimed
    : refuse('configuration', 'an object', path)
}

const keyOf = (name: string, source: string): Key =>
  KEYS.find((key) => key === name) ?? refuse(name.slice(0, 64), 'no such key', source)

/** What the environment says, as a value of its kind; what is none stays a text, and is refused. */
const parseText = (kind: Kind, text: string): unknown => {
  if (kind === 'port' && /^\d{1,5}$/.test(text)) return Number(text)
  if (kind === 'stores') return parseStores(text)
  if (kind === 'flag' && (text === 'true' || text === 'false')) return text === 'true'
  return text
}

const parseStores = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const checkValue = (key: Key, value: unknown, source: string): Value => {
  const kind = KINDS[key]
  if (typeof kind === 'object')
    return typeof value === 'string' && kind.includes(value) ? value : refuse(key, `one of ${kind.join(', ')}`, source)
  switch (kind) {
    case 'port':
      return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 65_535
        ? value
        : refuse(key, 'a whole number from 0 to 65535', source)
    case 'flag':
      return typeof value === 'boolean' ? value : refuse(key, 'true or false', source)
    case 'stores':
      return isStores(value) ? value : refuse(key, 'an object like { "id": { "directory": "path" } }', source)
    default:
      return isText(value) ? value : refuse(key, 'a text', source)
  }
}

const checkTogether = (config: ServeConfig): void => {
  for (const key of ['directory', 'policy'] as const)
    if (config[key] === undefined) refuse(key, 'it is needed', `${flagOf(key)}, ${variableOf(key)} or the file`)
  const together = (keys: readonly Key[]): void => {
    const missing = keys.find((key) => config[key] === undefined)
    if (missing !== undefined && keys.some((key) => config[key] !== undefined))
      refuse(missing, `it is needed with ${keys.filter((key) => key !== missing).join(' and ')}`, flagOf(missing))
  }
  together(['tlsCert', 'tlsKey', 'clientCa'])
  together(['adminHost', 'adminPort'])
  const { adminHost, adminClientCa, adminTokenFile } = config
  if (adminHost === undefined && (adminClientCa ?? adminTokenFile) !== undefined)
    refuse('adminHost', 'it is needed with adminClientCa and with adminTokenFile', flagOf('adminHost'))
  if (adminHost !== undefined && (adminClientCa === undefined) === (adminTokenFile === undefined))
    refuse('adminClientCa', 'it or adminTokenFile is needed with adminHost, and not both', flagOf('adminClientCa'))
  if (config.adminHost !== undefined && config.tlsCert === undefined)
    refuse('tlsCert', 'it is needed with adminHost', flagOf('tlsCert'))
}
