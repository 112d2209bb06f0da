import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { serveKms, type KmsEvent, type ServedKms, type ServeOptions, type ServeTls } from '../kms/index.js'
import { KeyriseError } from '../protocol/errors.js'
import { placeOf } from '../kms/place.js'
import { systemCode } from '../storage/failures.js'
import { wholeNumber } from './arguments.js'
import { isGiven, printIdentity, withPassphrase } from './kms-place.js'
import { readPolicy } from './policy-file.js'
import { resolveConfig, type ResolvedConfig, type ServeConfig } from './serve-config.js'
import { emphasise, EXIT, printResult, table } from './terminal.js'

const CONFIG_SIZE_BYTES_MAX = 64 * 1024
const PEM_SIZE_BYTES_MAX = 1024 * 1024

interface ServeFlags {
  readonly config?: string
  readonly passphraseFd?: number
  readonly passphraseCredential?: string
  readonly printConfig?: boolean
  readonly json?: boolean
}

/** `keyrise kms serve` */
export const addServeCommand = (kms: Command): void => {
  const port = wholeNumber(0, 65_535)
  kms
    .command('serve')
    .description('serve enclaves; sealed where no passphrase is given')
    .option('--config <file>', 'settings as JSON (docs/operating.md); the environment and flags win over it')
    .option('--directory <path>', 'the KMS’s directory: its ledger and, without --custody, its keyring')
    .option('--custody <file>', 'the keyring’s file in a third place, whose directory exists')
    .option('--policy <file>', 'which platforms and images get keys (docs/policy.md)')
    .option('--host <address>', 'where enclaves reach it; 127.0.0.1 unless told')
    .option('--port <n>', 'its port, 7600 unless told; 0 for any free one', port)
    .option('--tls-cert <file>', 'PEM: the server’s certificate and those between it and its authority')
    .option('--tls-key <file>', 'PEM: its private key')
    .option('--client-ca <file>', 'PEM: the authority that certifies the hosts of enclaves')
    .option('--insecure-loopback', 'plain HTTP instead of TLS, on a loopback address')
    .option('--admin-socket <path>', 'the socket of the admin surface, where it is not to be in the directory')
    .option('--admin-host <address>', 'an address of the admin surface, beside its socket; with TLS only')
    .option('--admin-port <n>', 'its port', port)
    .option('--admin-client-ca <file>', 'PEM: the authority that certifies operators')
    .option('--passphrase-credential <name>', 'read it from this systemd credential, in $CREDENTIALS_DIRECTORY')
    .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor', wholeNumber(0, 1023))
    .option('--print-config', 'print the settings and where each comes from, and serve nothing')
    .option('--json', 'print JSON')
    .action(serve)
}

const serve = async (flags: ServeFlags): Promise<void> => {
  const resolved = resolveConfig({
    ...(flags.config === undefined ? {} : { file: { path: flags.config, text: await readConfig(flags.config) } }),
    environment: process.env,
    flags: { ...flags },
  })
  const [{ config }, json] = [resolved, flags.json === true]
  if (flags.printConfig === true) return printConfig(json, resolved)
  const { directory = '', policy: policyFile = '' } = config
  const policy = await readPolicy(policyFile)
  if (policy.allowDebug) warnOfDebug(json, policyFile)
  const surfaces = await readSurfaces(config)
  const options: ServeOptions = {
    ...placeOf({ directory, custody: config.custody }),
    ...surfaces,
    policy,
    onEvent: (event) => logEvent(json, event),
  }
  try {
    const served = !isGiven(flags)
      ? await serveKms(options)
      : await withPassphrase({ ...flags, directory }, false, (passphrase) => serveKms({ ...options, passphrase }))
    wipeOnFault(served)
    stopOnSignal(served)
    printServed(flags, served)
  } finally {
    // The listeners have it by now.
    surfaces.tls?.key.fill(0)
    surfaces.adminTls?.key.fill(0)
  }
}

const printServed = (flags: ServeFlags, served: ServedKms): void => {
  const state = served.isSealed ? 'sealed' : 'unlocked'
  printIdentity(
    flags,
    served,
    [
      ['listening', served.url],
      ...(served.adminUrl === undefined ? [] : [['admin', served.adminUrl] as const]),
      ['state', served.isSealed ? 'sealed: give it its passphrase with `keyrise kms unlock`' : state],
    ],
    {
      event: 'listening',
      url: served.url,
      ...(served.adminUrl === undefined ? {} : { adminUrl: served.adminUrl }),
      state,
    },
  )
}

const printConfig = (json: boolean, { config, sources }: ResolvedConfig): void => {
  const rows = Object.entries(config).map(([key, value]) => ({
    key,
    value: value as string | number | boolean,
    source: sources[key as keyof ServeConfig] ?? '',
  }))
  const values = Object.fromEntries(rows.map(({ key, value, source }) => [key, { value, source }]))
  printResult(json, values, table(rows.map(({ key, value, source }) => [key, `${String(value)}  (${source})`])))
}

/** @throws {KeyriseError} ERR_CONFIG_INVALID. */
const readSurfaces = async (
  config: ServeConfig,
): Promise<Pick<ServeOptions, 'host' | 'port' | 'tls' | 'adminTls' | 'adminSocket' | 'insecureLoopback'>> => {
  const { host, port, insecureLoopback, adminSocket, adminHost, adminPort } = config
  const tls = await readTls(config, 'clientCa')
  const adminTls =
    tls && adminHost !== undefined && adminPort !== undefined ? await readTls(config, 'adminClientCa') : undefined
  return {
    host,
    port,
    insecureLoopback,
    ...(adminSocket === undefined ? {} : { adminSocket }),
    ...(tls === undefined ? {} : { tls }),
    ...(adminTls === undefined ? {} : { adminTls: { ...adminTls, host: adminHost ?? '', port: adminPort ?? 0 } }),
  }
}

const readTls = async (config: ServeConfig, authority: 'clientCa' | 'adminClientCa'): Promise<ServeTls | undefined> => {
  const { tlsCert, tlsKey, [authority]: ca } = config
  if (tlsCert === undefined || tlsKey === undefined || ca === undefined) return undefined
  const clientCa = await readSetting(authority, ca, PEM_SIZE_BYTES_MAX)
  const cert = await readSetting('tlsCert', tlsCert, PEM_SIZE_BYTES_MAX)
  return { clientCa, cert, key: await readSetting('tlsKey', tlsKey, PEM_SIZE_BYTES_MAX) }
}

const readConfig = async (path: string): Promise<string> =>
  new TextDecoder().decode(await readSetting('config', path, CONFIG_SIZE_BYTES_MAX))

/** @throws {KeyriseError} ERR_CONFIG_INVALID, naming the key. */
const readSetting = async (key: string, path: string, sizeMax: number): Promise<Uint8Array> => {
  const refuse = (why: string): never => {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${key}: ${path} cannot be read (${why})` })
  }
  const bytes = await readFile(path).catch((error: unknown) => refuse(systemCode(error) ?? 'unknown'))
  return bytes.length <= sizeMax ? bytes : refuse('it is too large')
}

/** Said before anything is served, where a log has it too. */
const warnOfDebug = (json: boolean, policy: string): void => {
  const text = `${policy} has allowDebug: debug images get keys, and tell whoever runs them what they do with them`
  process.stderr.write(json ? `${JSON.stringify({ warning: text })}\n` : `${emphasise('WARNING')} ${text}\n`)
}

/** Calls that an operator wants to see as they happen; the others are every enclave’s everyday. */
const LOGGED: readonly KmsEvent['event'][] = ['handshake', 'claim', 'destroy', 'publish', 'refused', 'failed']

/** One line for each event on standard error: names and codes only. */
const logEvent = (json: boolean, event: KmsEvent): void => {
  if (!LOGGED.includes(event.event)) return
  const time = new Date().toISOString()
  const words = [event.event, event.code, event.image, event.flow, event.detail].filter((word) => word !== undefined)
  process.stderr.write(json ? `${JSON.stringify({ time, ...event })}\n` : `${time} ${words.join(' ')}\n`)
}

const stopOnSignal = (served: ServedKms): void => {
  let isStopping = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      // A second signal does not wait for answers under way.
      if (isStopping) endNow(served)
      isStopping = true
      void served.close()
    })
  }
}

const wipeOnFault = (served: ServedKms): void => {
  process.on('uncaughtException', () => endNow(served))
  process.on('unhandledRejection', () => endNow(served))
}

const endNow = (served: ServedKms): never => {
  served.wipe()
  process.exit(EXIT.failed)
}
