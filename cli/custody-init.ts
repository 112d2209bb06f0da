import type { Command } from 'commander'
import { allocate, asciiBytes, concatBytes, copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { CUSTODIAN_COUNT_MAX } from '../protocol/limits.js'
import type { Random } from '../protocol/ports.js'
import type { RootSuite } from '../protocol/statements.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { checkCustodians } from '../kms/custodians.js'
import type { KmsIdentity } from '../kms/index.js'
import { KEYRING_LOG_N } from '../kms/keyring.js'
import { createKms, createSharedKms, placeOf, prepareDirectory } from '../kms/place.js'
import { nodeFileSystem } from '../storage/index.js'
import { suiteOption, wholeNumber } from './arguments.js'
import { deliverShares, showOnce } from './custody-shares.js'
import { printIdentity, withPassphrase, withPlace, type PlaceFlags } from './kms-place.js'
import { openOutput } from './output.js'
import { askSecret, hasTerminal } from './passphrase.js'

interface InitFlags extends PlaceFlags {
  readonly workFactor: number
  readonly suite: RootSuite
  readonly generatePassphrase?: boolean
  readonly passphraseOut?: string
  readonly custodians?: number
  readonly threshold?: number
  readonly shares?: string
}

/** `keyrise kms init` */
export const addInitCommand = (kms: Command): void => {
  const count = wholeNumber(2, CUSTODIAN_COUNT_MAX)
  withPlace(kms.command('init').description('make the keys of a new KMS, and its keyring'))
    .option(
      '--work-factor <n>',
      'scrypt’s work factor for the passphrase, as a power of two',
      wholeNumber(10, 20),
      KEYRING_LOG_N,
    )
    .addOption(suiteOption())
    .option('--generate-passphrase', 'make the passphrase, and show it once')
    .option('--passphrase-out <file>', 'write the generated passphrase there instead, readable by this user alone')
    .option('--custodians <n>', 'let so many custodians share a passphrase that nobody knows', count)
    .option('--threshold <k>', 'how many of them it takes', count)
    .option('--shares <dir>', 'write each custodian’s share to a file there; otherwise each is shown once')
    .action(init)
}

const init = async (flags: InitFlags): Promise<void> => {
  checkFlags(flags)
  const options = {
    place: placeOf(flags),
    fs: nodeFileSystem,
    random: nodeRandom,
    logN: flags.workFactor,
    suite: flags.suite,
  }
  const make = async (bytes: Bytes): Promise<KmsIdentity> => {
    using passphrase = Secret.take(bytes)
    await prepareDirectory(nodeFileSystem, flags.directory)
    return await createKms({ ...options, passphrase })
  }
  const { custodians: count, threshold = 0 } = flags
  const rows = [['keyring', flags.custody ?? `in ${flags.directory}`] as const]
  if (count !== undefined) {
    await prepareDirectory(nodeFileSystem, flags.directory)
    const made = await createSharedKms({ ...options, count, threshold, deliver: deliverShares(flags.shares) })
    const told = `${String(threshold)} of ${String(count)} shares open it`
    return printIdentity(flags, made, [...rows, ['custodians', told]], { custodians: { count, threshold } })
  }
  const made =
    flags.generatePassphrase === true
      ? await withGenerated(flags.passphraseOut, make)
      : await withPassphrase(flags, true, make)
  printIdentity(flags, made, rows)
}

const checkFlags = (flags: InitFlags): void => {
  const refuse = (detail: string): never => {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
  }
  const { custodians, threshold, shares, generatePassphrase, passphraseOut, passphraseFd, passphraseCredential } = flags
  if ((custodians === undefined) !== (threshold === undefined)) refuse('--custodians and --threshold go together')
  if (custodians === undefined && shares !== undefined) refuse('--shares needs --custodians')
  if (generatePassphrase !== true && passphraseOut !== undefined) refuse('--passphrase-out needs --generate-passphrase')
  const ways = [custodians, generatePassphrase, passphraseFd, passphraseCredential].filter((way) => way !== undefined)
  if (ways.length > 1) refuse('one passphrase: of custodians, generated, or given')
  if (custodians !== undefined && threshold !== undefined) checkCustodians(custodians, threshold)
}

/** Letters and digits of which none looks like another. */
const LETTERS = asciiBytes('abcdefghjkmnpqrstuvwxyz23456789')
const GROUP_COUNT = 6
const GROUP_LENGTH = 5

/** Thirty letters of 31, by rejection: 148 bits. Groups of five, with hyphens between. */
const generatePassphrase = (random: Random): Bytes => {
  const text = allocate(GROUP_COUNT * (GROUP_LENGTH + 1) - 1)
  const one = allocate(1)
  for (let index = 0; index < text.length;) {
    if (index % (GROUP_LENGTH + 1) === GROUP_LENGTH) {
      text[index++] = 0x2d
      continue
    }
    const value = (random.fill(one)[0] ?? 0) & 31
    if (value < LETTERS.length) text[index++] = LETTERS[value] ?? 0
  }
  one.fill(0)
  return text
}

/** The passphrase has reached whoever keeps it before there is anything that it opens. */
const withGenerated = async <T>(path: string | undefined, make: (passphrase: Bytes) => Promise<T>): Promise<T> => {
  const passphrase = generatePassphrase(nodeRandom)
  try {
    if (path !== undefined) await writePassphrase(path, passphrase)
    else await showPassphrase(passphrase)
    return await make(passphrase)
  } finally {
    passphrase.fill(0)
  }
}

const writePassphrase = async (path: string, passphrase: Bytes): Promise<void> => {
  using output = openOutput({ path, isForced: false, mode: 0o600 })
  const line = concatBytes(passphrase, asciiBytes('\n'))
  await output.write(line)
  line.fill(0)
  output.commit({ isDurable: true })
}

const showPassphrase = async (passphrase: Bytes): Promise<void> => {
  if (!hasTerminal())
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'no terminal to show it on: give --passphrase-out FILE' })
  process.stderr.write('The keyring’s passphrase:\n\n')
  await showOnce(copyBytes(passphrase))
  const typed = await askSecret('Type it, so that it is sure to be known: ')
  const isSame = typed.length === passphrase.length && typed.every((byte, index) => byte === passphrase[index])
  typed.fill(0)
  if (!isSame) throw new KeyriseError('ERR_NOT_CONFIRMED', { detail: 'another passphrase was typed' })
}
