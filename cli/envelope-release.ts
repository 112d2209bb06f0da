import { pull } from '../protocol/age-stream.js'
import { allocate } from '../protocol/bytes.js'
import { isKeyriseError, KeyriseError } from '../protocol/errors.js'
import { claimedLayer } from '../protocol/crypto/layer-stanza.js'
import { readHead, type ClaimedEnvelope } from './claimed-envelope.js'
import type { OpenFlags } from './envelope-open.js'
import { identitiesFor } from './envelope-options.js'
import type { Input } from './input.js'
import type { Identities } from './key-files.js'
import { openOutput, type Output } from './output.js'
import type { OpenThreads } from './open-threads.js'
import { Progress } from './progress.js'
import { printOutcome } from './terminal.js'

/** What `keyrise envelope open` does once its threads are starting. What is released, and when: docs/envelope.md §6. */

/** A layered file is opened whole, in memory. */
const LAYERED_SIZE_BYTES_MAX = 1024 * 1024 * 1024
const PLAINTEXT_MODE = 0o600

/** @param threads - to help with a large file. @throws {KeyriseError} as `openCommand`. */
export const openInto = async (input: Input, threads: OpenThreads | undefined, flags: OpenFlags): Promise<void> => {
  const envelope = await readHead(input)
  using output = openOutput({ path: flags.out, isForced: flags.force === true, input, mode: PLAINTEXT_MODE })
  using identities = await identitiesFor(envelope.header, flags)
  const sizeBytes = await release({ input, envelope, output, identities, threads })
  // What was opened can be opened again: there is nothing to be lost in a crash.
  output.commit({ isDurable: false })
  printOutcome(flags.json === true, { file: flags.out ?? null, sizeBytes }, output.isStandard)
}

interface Opening {
  readonly input: Input
  readonly envelope: ClaimedEnvelope
  readonly output: Output
  readonly identities: Identities
  readonly threads: OpenThreads | undefined
}

/** @returns how many bytes of plaintext were written, and that is all of them. */
const release = async (opening: Opening): Promise<number> => {
  const { input, envelope, output, threads } = opening
  let doneSizeBytes = 0
  using progress = new Progress(input.sizeBytes)
  const onProgress = (sizeBytes: number): void => {
    doneSizeBytes = sizeBytes
    progress.show(sizeBytes)
  }
  try {
    if (claimedLayer(envelope.header).count > 1) await releaseLayered(opening, onProgress)
    else if (threads === undefined || envelope.isArmored) await releaseStream(opening, onProgress)
    else {
      const { releaseFile } = await import('./open-file.js')
      await releaseFile(threads, opening, onProgress)
    }
    return doneSizeBytes
  } catch (error) {
    if (!isKeyriseError(error) || !output.isOrdered || doneSizeBytes === 0) throw error
    const detail = `${error.detail === undefined ? '' : `${error.detail}; `}what was written is a beginning only`
    throw new KeyriseError(error.code, { detail, cause: error })
  }
}

const releaseStream = async ({ envelope, output, identities }: Opening, onProgress: (sizeBytes: number) => void) => {
  const { envelopeOpener } = await import('../protocol/crypto/envelope-stream.js')
  let sizeBytes = 0
  const opener = pull(envelope.pieces, (next) => envelopeOpener({ identities: identities.list }, next))
  for await (const plaintext of opener) {
    await output.write(plaintext)
    plaintext.fill(0)
    onProgress((sizeBytes += plaintext.length))
  }
}

const releaseLayered = async ({ envelope, output, identities }: Opening, onProgress: (sizeBytes: number) => void) => {
  const { openLayers } = await import('../protocol/crypto/layers.js')
  const { plaintext } = openLayers(await gather(envelope.pieces), { identities: identities.list })
  await output.write(plaintext)
  plaintext.fill(0)
  onProgress(plaintext.length)
}

/** @throws {KeyriseError} ERR_SIZE_LIMIT. */
const gather = async (pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> => {
  let bytes = allocate(1024 * 1024)
  let size = 0
  for await (const piece of pieces) {
    if (size + piece.length > LAYERED_SIZE_BYTES_MAX)
      throw new KeyriseError('ERR_SIZE_LIMIT', {
        detail: 'a file of several layers is opened in memory: 1 GiB at most',
      })
    if (size + piece.length > bytes.length) {
      const larger = allocate(Math.max(2 * bytes.length, size + piece.length))
      larger.set(bytes)
      bytes = larger
    }
    bytes.set(piece, size)
    size += piece.length
  }
  return bytes.subarray(0, size)
}
