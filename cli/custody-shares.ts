import { join } from 'node:path'
import { asciiBytes, concatBytes, copyBytes, type Bytes } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { fingerprintOf, ShareCollector, type CustodianSet, type Share, type ShareProgress } from '../kms/custodians.js'
import { linesOf, readSmallFile } from './key-files.js'
import { openOutput } from './output.js'
import { askSecret, hasTerminal } from './passphrase.js'
import { emphasise } from './terminal.js'

const SECRET_MODE = 0o600
/** Erases the screen and what scrolled off it, and puts the cursor at its start. */
const CLEAR = '\x1b[2J\x1b[3J\x1b[H'

/** `2 of 3 shares: 1, 4` */
export const describeProgress = ({ submitted, threshold }: Omit<ShareProgress, 'count'>): string =>
  `${String(submitted.length)} of ${String(threshold)} shares${submitted.length === 0 ? '' : `: ${submitted.join(', ')}`}`

/**
 * The passphrase that custodians’ shares make: of the files given, or else asked for one by one on the terminal, where a bad one is
 * named and asked for again. The caller zero-fills it.
 * @throws {KeyriseError} ERR_SHARE_INVALID, ERR_CONFIG_INVALID: too few, ERR_FILE_UNREADABLE.
 */
export const readShares = async (custodians: CustodianSet, files: readonly string[]): Promise<Bytes> => {
  using collector = new ShareCollector(custodians)
  for (const path of files) await submitFile(collector, path)
  if (files.length === 0 && hasTerminal()) while (!collector.isComplete) await askShare(collector)
  if (!collector.isComplete)
    throw new KeyriseError('ERR_CONFIG_INVALID', {
      detail: `${describeProgress(collector.progress)}; give --share FILE for each`,
    })
  using passphrase = await collector.join()
  return passphrase.expose(copyBytes)
}

const submitFile = async (collector: ShareCollector, path: string): Promise<void> => {
  const share = await readShareFile(path)
  try {
    collector.submit(share)
  } catch (error) {
    if (!isKeyriseError(error)) throw error
    throw new KeyriseError(error.code, { detail: `${path}: ${error.detail ?? ''}` })
  } finally {
    share.fill(0)
  }
}

/** The one line of a share’s file that is no comment. The caller zero-fills it. */
export const readShareFile = async (path: string): Promise<Bytes> => {
  const bytes = await readSmallFile(path)
  try {
    const [first, ...rest] = linesOf(bytes)
    if (first === undefined || rest.length > 0)
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: `${path} is no file of one share` })
    return copyBytes(first.line)
  } finally {
    bytes.fill(0)
  }
}

const askShare = async (collector: ShareCollector): Promise<void> => {
  const share = await askSecret(`A share (${describeProgress(collector.progress)}): `)
  try {
    collector.submit(share)
  } catch (error) {
    if (!isKeyriseError(error, 'ERR_SHARE_INVALID')) throw error
    process.stderr.write(`${emphasise(error.code)} ${error.message}\n`)
  } finally {
    share.fill(0)
  }
}

/**
 * Writes each share to a file of its own in `directory`, or shows one after the other on the terminal, once, for its custodian alone.
 * @throws {KeyriseError} ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE, ERR_CONFIG_INVALID: no terminal to show them on.
 */
export const deliverShares =
  (directory: string | undefined) =>
  async (shares: readonly Share[], custodians: CustodianSet): Promise<void> => {
    if (directory === undefined && !hasTerminal())
      throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'no terminal to show the shares on: give --shares DIR' })
    for (const share of shares)
      if (directory === undefined) await showShare(share, custodians)
      else await writeShare(share, custodians, directory)
  }

const titleOf = ({ index }: Share, { identity, commitments, threshold }: CustodianSet): string =>
  `share ${String(index)} of ${String(commitments.length)} of the KMS ${fingerprintOf(identity)}; ${String(threshold)} open it`

const writeShare = async (share: Share, custodians: CustodianSet, directory: string): Promise<void> => {
  const name = `share-${String(share.index)}-of-${String(custodians.commitments.length)}-${fingerprintOf(custodians.identity)}.txt`
  using output = openOutput({ path: join(directory, name), isForced: false, mode: SECRET_MODE })
  const bytes = share.text.expose((text) =>
    concatBytes(asciiBytes(`# ${titleOf(share, custodians)}\n`), text, asciiBytes('\n')),
  )
  try {
    await output.write(bytes)
  } finally {
    bytes.fill(0)
  }
  output.commit({ isDurable: true })
}

const showShare = async (share: Share, custodians: CustodianSet): Promise<void> => {
  process.stderr.write(`${CLEAR}For custodian ${String(share.index)} alone: ${titleOf(share, custodians)}\n\n`)
  await showOnce(share.text.expose(copyBytes))
}

/** Shows a secret until it has been written down, then takes it off the screen. @param text - zero-filled by it. */
export const showOnce = async (text: Bytes): Promise<void> => {
  await new Promise<void>((resolve) => process.stderr.write(text, () => resolve()))
  text.fill(0)
  const typed = await askSecret('\n\nWrite it down, it is shown once. Then press Enter.', { isEmptyAllowed: true })
  typed.fill(0)
  process.stderr.write(CLEAR)
}
