import type { Command } from 'commander'
import { toHex } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import type { RootSuite } from '../protocol/statements.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { FileLedger } from '../kms/file-ledger.js'
import { serveKms, type KmsEvent, type ServedKms, type ServeOptions } from '../kms/index.js'
import { KEYRING_LOG_N } from '../kms/keyring.js'
import { createKms, placeOf, prepareDirectory, restoreKms } from '../kms/place.js'
import { nodeFileSystem } from '../storage/index.js'
import { addAcceptStaleCommand } from './accept-stale.js'
import { suiteOption, wholeNumber } from './arguments.js'
import { addControlCommands } from './control-commands.js'
import { addKeyCommands } from './key-commands.js'
import { printIdentity, withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
import { readPolicy } from './policy-file.js'
import { addRotationCommands } from './rotation-commands.js'
import { emphasise, EXIT, printResult } from './terminal.js'

/** `keyrise kms …` */
export const addKmsCommands = (kms: Command): void => {
  withPlace(kms.command('init').description('make the keys of a new KMS, and its keyring'))
    .option(
      '--work-factor <n>',
      'scrypt’s work factor for the passphrase, as a power of two',
      wholeNumber(10, 20),
      KEYRING_LOG_N,
    )
    .addOption(suiteOption())
    .action(init)
  withPlace(kms.command('serve').description('serve enclaves on loopback; sealed where no passphrase is given'))
    .requiredOption('--policy <file>', 'which platforms and images get keys (docs/kms.md)')
    .option('--host <address>', 'a loopback address', '127.0.0.1')
    .option('--port <n>', 'the port; 0 for any free one', wholeNumber(0, 65_535), 7600)
    .option('--admin-socket <path>', 'the socket of the admin surface, where it is not to be in the directory')
    .action(serve)
  withPlace(kms.command('restore').description('check that a KMS can start from its keyring and ledger'))
    .option('--new-ledger', 'begin a new ledger: the old one, and with it which state is the newest, is lost for good')
    .action(restore)
  addControlCommands(kms)
  addAcceptStaleCommand(kms)
  addRotationCommands(kms)
  addKeyCommands(kms)
  kms
    .command('identity')
    .description('print the identity that enclaves trust; needs no passphrase')
    .requiredOption('--directory <path>', 'the KMS’s directory')
    .option('--json', 'print one JSON object')
    .action(identity)
}

const init = async (flags: PlaceFlags & { readonly workFactor: number; readonly suite: RootSuite }): Promise<void> => {
  const made = await withPassphrase(flags, true, async (bytes) => {
    using passphrase = Secret.take(bytes)
    await prepareDirectory(nodeFileSystem, flags.directory)
    return await createKms({
      place: placeOf(flags),
      passphrase,
      fs: nodeFileSystem,
      random: nodeRandom,
      logN: flags.workFactor,
      suite: flags.suite,
    })
  })
  printIdentity(flags, made, [['keyring', flags.custody ?? `in ${flags.directory}`]])
}

const restore = async (flags: PlaceFlags & { readonly newLedger?: boolean }): Promise<void> => {
  const found = await withPassphrase(flags, false, async (bytes) => {
    using passphrase = Secret.take(bytes)
    if (flags.newLedger === true) await prepareDirectory(nodeFileSystem, flags.directory)
    return await restoreKms({
      place: placeOf(flags),
      passphrase,
      fs: nodeFileSystem,
      newLedger: flags.newLedger === true,
    })
  })
  printIdentity(flags, found, [['ledger', `${found.ledger}, ${found.flowCount} flows`]], {
    ledger: found.ledger,
    flows: found.flowCount,
  })
}

const identity = async (flags: { readonly directory: string; readonly json?: boolean }): Promise<void> => {
  const ledger = await FileLedger.inspect(nodeFileSystem, flags.directory)
  if (ledger === undefined) throw new KeyriseError('ERR_LEDGER_MISSING', { detail: flags.directory })
  printResult(flags.json === true, { identity: toHex(ledger.identity) }, [toHex(ledger.identity)])
}

interface ServeFlags extends PlaceFlags {
  readonly policy: string
  readonly host: string
  readonly port: number
  readonly adminSocket?: string
}

const serve = async (flags: ServeFlags): Promise<void> => {
  const policy = await readPolicy(flags.policy)
  if (policy.allowDebug === true) warnOfDebug(flags)
  const options: ServeOptions = {
    ...placeOf(flags),
    policy,
    host: flags.host,
    port: flags.port,
    ...(flags.adminSocket === undefined ? {} : { adminSocket: flags.adminSocket }),
    onEvent: (event) => logEvent(flags, event),
  }
  const served =
    flags.passphraseFd === undefined
      ? await serveKms(options)
      : await withPassphrase(flags, false, (passphrase) => serveKms({ ...options, passphrase }))
  wipeOnFault(served)
  stopOnSignal(served)
  const state = served.isSealed ? 'sealed' : 'unlocked'
  printIdentity(
    flags,
    served,
    [
      ['listening', served.url],
      ['state', served.isSealed ? 'sealed: give it its passphrase with `keyrise kms unlock`' : state],
    ],
    { event: 'listening', url: served.url, state },
  )
}

/** Said before anything is served, where a log has it too. */
const warnOfDebug = ({ json, policy }: PlaceFlags & { readonly policy: string }): void => {
  const text = `${policy} has allowDebug: debug images get keys, and tell whoever runs them what they do with them`
  process.stderr.write(json === true ? `${JSON.stringify({ warning: text })}\n` : `${emphasise('WARNING')} ${text}\n`)
}

/** Calls that an operator wants to see as they happen; the others are every enclave’s everyday. */
const LOGGED: readonly KmsEvent['event'][] = ['handshake', 'claim', 'destroy', 'publish', 'refused', 'failed']

/** One line for each event on standard error: names and codes only. */
const logEvent = ({ json }: { readonly json?: boolean }, event: KmsEvent): void => {
  if (!LOGGED.includes(event.event)) return
  const time = new Date().toISOString()
  const words = [event.event, event.code, event.image, event.flow, event.detail].filter((word) => word !== undefined)
  process.stderr.write(json === true ? `${JSON.stringify({ time, ...event })}\n` : `${time} ${words.join(' ')}\n`)
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
