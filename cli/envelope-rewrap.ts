import { createHash } from 'node:crypto'
import { armorWriter } from '../protocol/age-armor.js'
import { pull, type ByteSink } from '../protocol/age-stream.js'
import { KeyriseError } from '../protocol/errors.js'
import { unwrapHeader } from '../protocol/crypto/file-key.js'
import { payloadOpener } from '../protocol/crypto/payload-stream.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import type { Identity, Recipient } from '../protocol/crypto/recipients.js'
import { resealer, rewrapper } from '../protocol/crypto/rewrap.js'
import type { Secret } from '../protocol/crypto/secret.js'
import { readHead } from './claimed-envelope.js'
import { identitiesFor, withRecipients, type IdentityFlags, type RecipientFlags } from './envelope-options.js'
import { counted } from './envelope-seal.js'
import { openInput, STANDARD, type Input } from './input.js'
import { openOutput, type Output } from './output.js'
import { Progress } from './progress.js'
import { printOutcome } from './terminal.js'

/** `keyrise envelope rewrap`: new recipients for a file. */

export interface RewrapFlags extends IdentityFlags, RecipientFlags {
  readonly newPassphraseFd?: number
  readonly newFileKey?: boolean
  readonly out?: string
  readonly force?: boolean
  readonly json?: boolean
}

const ENVELOPE_MODE = 0o666

/** A recipient beside which the file key is remembered, so that the new file can be checked without anybody’s private key. */
class FileKeyWitness implements Identity, Disposable {
  #fileKey: Secret | undefined

  /** @param recipients - one at least. */
  watch([first, ...others]: readonly Recipient[]): Recipient[] {
    if (first === undefined) throw new TypeError('No recipient')
    const watched: Recipient = {
      wrap: (fileKey, random) => {
        this.#fileKey ??= fileKey.clone()
        return first.wrap(fileKey, random)
      },
    }
    return [watched, ...others]
  }

  unwrap(): Secret | undefined {
    return this.#fileKey?.clone()
  }

  [Symbol.dispose](): void {
    this.#fileKey?.[Symbol.dispose]()
  }
}

/**
 * @param path - replaced in one step, unless `out` names another place.
 * @throws {KeyriseError} as `rewrapHeader` and `resealEnvelope`; ERR_CONFIG_INVALID, ERR_FILE_EXISTS, ERR_FILE_UNREADABLE,
 * ERR_FILE_UNWRITABLE. Crash: the old file, or the new one.
 */
export const rewrapCommand = async (path: string, flags: RewrapFlags): Promise<void> => {
  if (path === STANDARD && flags.out === undefined)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'standard input cannot be replaced: give --out' })
  using input = openInput(path)
  const { header } = await readHead(input)
  using output = openOutput({
    path: flags.out ?? path,
    isForced: flags.force === true,
    isInPlace: flags.out === undefined,
    input,
    mode: ENVELOPE_MODE,
  })
  using identities = await identitiesFor(header, flags)
  await withRecipients(flags, flags.newPassphraseFd, async (recipients) => {
    const isReseal = flags.newFileKey === true
    using witness = new FileKeyWitness()
    const options = { identities: identities.list, recipients: witness.watch(recipients), random: nodeRandom }
    const sizeBytes = await write({ input, output, stage: (next) => (isReseal ? resealer : rewrapper)(options, next) })
    if (!output.isOrdered) {
      // A rewrapped file has the old one’s file key and payload, a resealed one another of each.
      const before = await digestOf(input, isReseal ? identities.list : [witness], isReseal)
      const after = await digestOf(output.written(), [witness], isReseal)
      if (!before.equals(after))
        throw new KeyriseError('ERR_DIGEST_MISMATCH', { detail: 'the new file; the old one is kept' })
    }
    output.commit({ isDurable: true })
    const result = { file: flags.out ?? path, recipients: recipients.length, newFileKey: isReseal, sizeBytes }
    printOutcome(flags.json === true, result, output.isStandard)
  })
}

/** @returns the size of the new file. */
const write = async (way: {
  readonly input: Input
  readonly output: Output
  readonly stage: (next: ByteSink) => ByteSink
}): Promise<number> => {
  const { input, output, stage } = way
  const { isArmored, pieces } = await readHead(input)
  using progress = new Progress(input.sizeBytes)
  let [readSize, writtenSize] = [0, 0]
  const source = counted(pieces, (size) => progress.show((readSize += size)))
  for await (const piece of pull(source, (next) => stage(isArmored ? armorWriter(next) : next))) {
    await output.write(piece)
    writtenSize += piece.length
  }
  return writtenSize
}

/** Of an envelope’s payload, or of what is in it, once its header and, in the second case, its payload are verified. */
const digestOf = async (input: Input, identities: readonly Identity[], isOpened: boolean): Promise<Buffer> => {
  const { header, pieces } = await readHead(input)
  using fileKey = unwrapHeader(header, identities)
  const payload = behind(pieces, header.sizeBytes)
  const hash = createHash('sha256')
  for await (const piece of isOpened ? pull(payload, (next) => payloadOpener(fileKey, next)) : payload)
    hash.update(piece)
  return hash.digest()
}

async function* behind(
  pieces: AsyncIterable<Uint8Array>,
  sizeBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let skipped = 0
  for await (const piece of pieces) {
    const skippedHere = Math.min(piece.length, sizeBytes - skipped)
    skipped += skippedHere
    if (skippedHere < piece.length) yield piece.subarray(skippedHere)
  }
}
