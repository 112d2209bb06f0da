import { Option, type Command } from 'commander'
import { serveKms, type ServedKms, type ServeOptions } from '../kms/index.js'
import { LOG_FORMATS, LOG_LEVELS } from '../kms/log-entry.js'
import { placeOf } from '../kms/place.js'
import { wholeNumber } from './arguments.js'
import { isGiven, printIdentity, withPassphrase } from './kms-place.js'
import { readPolicy } from './policy-file.js'
import { openLog, type OperatorLog } from './serve-log.js'
import { readConfig, readSurfaces, wipeSurfaces } from './serve-files.js'
import type { RegisteredStores } from '../kms/registered-stores.js'
import { resolveConfig, type ResolvedConfig, type ServeConfig } from './serve-config.js'
import { EXIT, printResult, table } from './terminal.js'

const DEBUG = 'debug images get keys, and tell whoever runs them what they do with them'

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
    .option('--admin-token-file <file>', 'in place of that authority: who shows what the file holds is an operator')
    .addOption(new Option('--log-level <level>', 'the least that is logged; info unless told').choices(LOG_LEVELS))
    .addOption(
      new Option('--log-format <format>', 'text on a terminal and json elsewhere, unless told').choices(LOG_FORMATS),
    )
    .option('--log-file <file>', 'append the log to this file; standard error unless told')
    .option(
      '--stores <id=directory>',
      'a store to rewrap after a rotation and to read headers in; may be repeated',
      (text: string, before: RegisteredStores | undefined): RegisteredStores => ({ ...before, ...parseStore(text) }),
    )
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
  const log = openLog(config, json)
  // Before anything is served.
  if (policy.allowDebug) log.write({ level: 'warn', event: 'policy', detail: `${policyFile} has allowDebug: ${DEBUG}` })
  const surfaces = await readSurfaces(config)
  const options: ServeOptions = {
    ...placeOf({ directory, custody: config.custody }),
    ...surfaces,
    policy,
    readPolicy: () => readPolicy(policyFile),
    onLog: (entry) => log.write(entry),
    ...(config.stores === undefined ? {} : { stores: config.stores }),
  }
  try {
    const served = !isGiven(flags)
      ? await serveKms(options)
      : await withPassphrase({ ...flags, directory }, false, (passphrase) => serveKms({ ...options, passphrase }))
    endOnFault(served, log)
    stopOnSignal(served, log)
    log.write({ level: 'info', event: 'listening', detail: `${served.url}, ${stateOf(served)}` })
    printServed(flags, served)
  } finally {
    // The listeners have it by now.
    wipeSurfaces(surfaces)
  }
}

const stateOf = ({ isSealed }: ServedKms): string => (isSealed ? 'sealed' : 'unlocked')

const printServed = (flags: ServeFlags, served: ServedKms): void => {
  const state = stateOf(served)
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

/** `id=directory`; what is none names the store in what is said of it. */
const parseStore = (text: string): RegisteredStores => {
  const end = text.indexOf('=')
  return { [text.slice(0, Math.max(end, 0))]: { directory: text.slice(end + 1) } }
}

const printConfig = (json: boolean, { config, sources }: ResolvedConfig): void => {
  const rows = Object.entries(config).map(([key, value]) => ({
    key,
    value: typeof value === 'object' ? JSON.stringify(value) : (value as string | number | boolean),
    source: sources[key as keyof ServeConfig] ?? '',
  }))
  const values = Object.fromEntries(rows.map(({ key, value, source }) => [key, { value, source }]))
  printResult(json, values, table(rows.map(({ key, value, source }) => [key, `${String(value)}  (${source})`])))
}

const stopOnSignal = (served: ServedKms, log: OperatorLog): void => {
  let isStopping = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      // A second signal does not wait for answers under way.
      if (isStopping) endNow(served)
      isStopping = true
      log.write({ level: 'info', event: 'stopping', detail: signal })
      void served.close().then(() => log.write({ level: 'info', event: 'stopped' }))
    })
  }
}

const endOnFault = (served: ServedKms, log: OperatorLog): void => {
  const end = (error: unknown): void => {
    log.fault(error)
    endNow(served)
  }
  process.on('uncaughtException', end)
  process.on('unhandledRejection', end)
}

const endNow = (served: ServedKms): never => {
  served.wipe()
  process.exit(EXIT.failed)
}
