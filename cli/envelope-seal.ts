import { armorWriter } from '../protocol/age-armor.js'
import { pull, type ByteSink } from '../protocol/age-stream.js'
import { KeyriseError } from '../protocol/errors.js'
import { envelopeSealer } from '../protocol/crypto/envelope-stream.js'
import { nodeRandom } from '../protocol/crypto/primitives.js'
import { withRecipients, type RecipientFlags } from './envelope-options.js'
import { openInput, piecesOf, STANDARD } from './input.js'
import { openOutput } from './output.js'
import { Progress } from './progress.js'
import { printOutcome } from './terminal.js'

export interface SealFlags extends RecipientFlags {
  readonly passphraseFd?: number
  readonly armor?: boolean
  readonly out?: string
  readonly force?: boolean
  readonly json?: boolean
}

const ENVELOPE_MODE = 0o666

/** `keyrise envelope seal`. @throws {KeyriseError} ERR_CONFIG_INVALID, ERR_KEY_INVALID, ERR_FILE_EXISTS, ERR_FILE_UN… */
export const sealCommand = async (path: string | undefined, flags: SealFlags): Promise<void> => {
  using input = openInput(path)
  using output = openOutput({ path: flags.out, isForced: flags.force === true, input, mode: ENVELOPE_MODE })
  if (output.isTerminal && flags.armor !== true && flags.out !== STANDARD)
    throw new KeyriseError('ERR_CONFIG_INVALID', { detail: 'an envelope is not for a terminal: give --out or --armor' })
  await withRecipients(flags, flags.passphraseFd, async (recipients) => {
    const seal = (next: ByteSink): ByteSink =>
      envelopeSealer({ recipients, random: nodeRandom }, flags.armor === true ? armorWriter(next) : next)
    using progress = new Progress(input.sizeBytes)
    let [sizeBytes, sealedSizeBytes] = [0, 0]
    const plaintext = counted(piecesOf(input), (size) => progress.show((sizeBytes += size)))
    for await (const sealed of pull(plaintext, seal)) {
      await output.write(sealed)
      sealedSizeBytes += sealed.length
    }
    // Who seals a file may delete it next.
    output.commit({ isDurable: true })
    const result = { file: flags.out ?? null, recipients: recipients.length, sizeBytes, sealedSizeBytes }
    printOutcome(flags.json === true, result, output.isStandard)
  })
}

/** Passes pieces on, and tells the size of each. */
export async function* counted(
  pieces: AsyncIterable<Uint8Array>,
  onPiece: (sizeBytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of pieces) {
    onPiece(piece.length)
    yield piece
  }
}
