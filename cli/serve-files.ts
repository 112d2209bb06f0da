import { open } from 'node:fs/promises'
import { copyBytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { ServeOptions } from '../kms/index.js'
import { systemCode } from '../storage/failures.js'
import type { ServeConfig } from './serve-config.js'

/** What `kms serve` reads of the files that its configuration names. */

const CONFIG_SIZE_BYTES_MAX = 64 * 1024
const PEM_SIZE_BYTES_MAX = 1024 * 1024
const TOKEN_SIZE_BYTES_MAX = 1024
/** Of a file’s mode: what anybody but its owner may do. */
const OTHERS = 0o077

export const readConfig = async (path: string): Promise<string> =>
  new TextDecoder().decode(await readSetting('config', path, CONFIG_SIZE_BYTES_MAX))

export type Surfaces = Pick<ServeOptions, 'host' | 'port' | 'tls' | 'adminTls' | 'adminSocket' | 'insecureLoopback'>

/** @throws {KeyriseError} ERR_CONFIG_INVALID. */
export const readSurfaces = async (config: ServeConfig): Promise<Surfaces> => {
  const { host, port, insecureLoopback, adminSocket } = config
  const tls = await readTls(config, config.clientCa)
  const adminTls = await readAdmin(config)
  return {
    host,
    port,
    insecureLoopback,
    ...(adminSocket === undefined ? {} : { adminSocket }),
    ...(tls?.clientCa === undefined ? {} : { tls: { ...tls, clientCa: tls.clientCa } }),
    ...(adminTls === undefined ? {} : { adminTls }),
  }
}

/** Zero-fills what the listeners have taken over. */
export const wipeSurfaces = ({ tls, adminTls }: Surfaces): void => {
  for (const secret of [tls?.key, adminTls?.key, adminTls?.token]) secret?.fill(0)
}

const readAdmin = async (config: ServeConfig): Promise<ServeOptions['adminTls']> => {
  const { adminHost: host, adminPort: port, adminTokenFile } = config
  if (host === undefined || port === undefined) return undefined
  const tls = await readTls(config, config.adminClientCa, 'adminClientCa')
  if (tls === undefined) return undefined
  return { ...tls, host, port, ...(adminTokenFile === undefined ? {} : { token: await readToken(adminTokenFile) }) }
}

const readTls = async (config: ServeConfig, authority: string | undefined, name = 'clientCa') => {
  const { tlsCert, tlsKey } = config
  if (tlsCert === undefined || tlsKey === undefined) return undefined
  const clientCa = authority === undefined ? {} : { clientCa: await readSetting(name, authority, PEM_SIZE_BYTES_MAX) }
  const cert = await readSetting('tlsCert', tlsCert, PEM_SIZE_BYTES_MAX)
  return { ...clientCa, cert, key: await readSetting('tlsKey', tlsKey, PEM_SIZE_BYTES_MAX) }
}

/** The token without the end of its line. */
const readToken = async (path: string): Promise<Uint8Array> => {
  const file = await readSetting('adminTokenFile', path, TOKEN_SIZE_BYTES_MAX + 2, true)
  const end = file.findIndex((byte) => byte === 0x0a || byte === 0x0d)
  const token = copyBytes(end < 0 ? file : file.subarray(0, end))
  file.fill(0)
  return token
}

/** @param isSecret - nobody but its owner may read it. @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key. */
const readSetting = async (key: string, path: string, sizeMax: number, isSecret = false): Promise<Uint8Array> => {
  const refuse = (why: string): never => {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${key}: ${path} cannot be read (${why})` })
  }
  const cannot = (error: unknown): never => refuse(systemCode(error) ?? 'unknown')
  await using file = await open(path, 'r').catch(cannot)
  const { size, mode } = await file.stat()
  if (isSecret && (mode & OTHERS) !== 0) return refuse('others than its owner may use it: chmod 600')
  if (size > sizeMax) return refuse('it is too large')
  // One byte more than may be there, for what grows or tells no size.
  const bytes = new Uint8Array(sizeMax + 1)
  let end = 0
  for (let read = 1; read > 0 && end < bytes.length; end += read)
    read = (await file.read(bytes, end, bytes.length - end).catch(cannot)).bytesRead
  if (end > sizeMax) return refuse('it is too large')
  const content = bytes.slice(0, end)
  bytes.fill(0, 0, end)
  return content
}
