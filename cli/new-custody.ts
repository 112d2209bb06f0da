import type { Command } from 'commander'
import { allocate, asciiBytes, concatBytes, copyBytes, type Bytes } from '../protocol/bytes.js'
import { KeyriseError } from '../protocol/errors.js'
import { CUSTODIAN_COUNT_MAX } from '../protocol/limits.js'
import type { Random } from '../protocol/ports.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { Secret } from '../protocol/crypto/secret.js'
import { checkCustodians } from '../kms/custodians.js'
import type { Custody } from '../kms/custody.js'
import { wholeNumber } from './arguments.js'
import { deliverShares, showOnce } from './custody-shares.js'
import { openOutput } from './output.js'
import { askSecret, hasTerminal } from './passphrase.js'

/** What opens a keyring from now on, as `kms init` and `kms rekey` ask for it. */
export interface NewCustodyFlags {
  readonly generatePassphrase?: boolean
  readonly passphraseOut?: string
  readonly custodians?: number
  readonly threshold?: number
  readonly shares?: string
}

export const withNewCustody = (command: Command): Command => {
  const count = wholeNumber(2, CUSTODIAN_COUNT_MAX)
  return command
    .option('--generate-passphrase', 'make the passphrase, and show it once')
    .option('--passphrase-out <file>', 'write the generated passphrase there instead, readable by this user alone')
    .option('--custodians <n>', 'let so many custodians share a passphrase that nobody knows', count)
    .option('--threshold <k>', 'how many of them it takes', count)
    .option('--shares <dir>', 'write each custodian’s share to a file there; otherwise each is shown once')
}

/** @param given - flags that say where the new passphrase is. @throws {KeyriseError} ERR_CONFIG_INVALID. */
export const checkNewCustody = (flags: NewCustodyFlags, given: readonly unknown[]): void => {
  const refuse = (detail: string): never => {
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail })
  }
  const { custodians, threshold, shares, generatePassphrase, passphraseOut } = flags
  if ((custodians === undefined) !== (threshold === undefined)) refuse('--custodians and --threshold go together')
  if (custodians === undefined && shares !== undefined) refuse('--shares needs --custodians')
  if (generatePassphrase !== true && passphraseOut !== undefined) refuse('--passphrase-out needs --generate-passphrase')
  const ways = [custodians, generatePassphrase, ...given].filter((way) => way !== undefined)
  if (ways.length > 1) refuse('one passphrase: of custodians, generated, or given')
  if (custodians !== undefined && threshold !== undefined) checkCustodians(custodians, threshold)
}

/**
 * Lends `use` what the flags ask for. A generated passphrase has reached whoever keeps it before there is anything that it opens.
 * @param readGiven - a passphrase that is neither generated nor shared.
 */
export const withChosen = async <T>(
  flags: NewCustodyFlags,
  readGiven: () => Promise<Bytes>,
  use: (custody: Custody) => Promise<T>,
): Promise<T> => {
  const { custodians: count, threshold = 0, shares, generatePassphrase, passphraseOut } = flags
  if (count !== undefined) return use({ count, threshold, deliver: deliverShares(shares) })
  using passphrase = Secret.take(generatePassphrase === true ? await generated(passphraseOut) : await readGiven())
  if (passphrase.size < PASSPHRASE_SIZE_BYTES_MIN)
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `a keyring’s passphrase has ${String(PASSPHRASE_SIZE_BYTES_MIN)} characters or more; --generate-passphrase makes a good one`,
    })
  return await use({ passphrase })
}

/** As a command’s rows and its JSON say who shares the passphrase. */
export const describeCustodians = ({ custodians: count, threshold = 0 }: NewCustodyFlags) =>
  count === undefined
    ? { rows: [], fields: {} }
    : {
        rows: [['custodians', `${String(threshold)} of ${String(count)} shares open it`]] as const,
        fields: { custodians: { count, threshold } },
      }

/** Who has the file tries as fast as scrypt goes. NIST SP 800-63B-4 §3.1.1.2 has 8 where something else is asked for too. */
const PASSPHRASE_SIZE_BYTES_MIN = 8

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

const generated = async (path: string | undefined): Promise<Bytes> => {
  const passphrase = generatePassphrase(nodeRandom)
  try {
    if (path !== undefined) await writePassphrase(path, passphrase)
    else await showPassphrase(passphrase)
    return passphrase
  } catch (error) {
    passphrase.fill(0)
    throw error
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
