import { HeaderGatherer, type Header } from '../age-header.js'
import { guarded, type ByteSink } from '../age-stream.js'
import type { EnvelopeContext } from '../context.js'
import type { Random } from '../ports.js'
import {
  checkContext,
  checkSingle,
  sealHeader,
  unwrapHeader,
  type CheckOptions,
  type SealedHeader,
  type SealOptions,
} from './envelope.js'
import { checkNonce } from './payload.js'
import { payloadOpener, payloadSealer } from './payload-stream.js'
import type { Identity } from './recipients.js'

/** Envelopes in pieces of any size, with memory for a header and a chunk. What may be released: docs/envelope.md §6. */

/**
 * Seals what is pushed, as `sealEnvelope` does; `next` gets the header at once.
 * @throws {KeyriseError} as `sealEnvelope`, before anything is pushed.
 */
export const envelopeSealer = (options: SealOptions, next: ByteSink): ByteSink =>
  sealerBehind(sealHeader(options), options.random, next)

/** Seals what is pushed behind `sealed`’s header, whose file key is disposed of here. */
export const sealerBehind = ({ header, fileKey: key }: SealedHeader, random: Random, next: ByteSink): ByteSink => {
  using fileKey = key
  next.push(header)
  return payloadSealer(fileKey, random, next)
}

export interface OpenStreamOptions extends CheckOptions {
  readonly identities: readonly Identity[]
  /** Told the context as it was checked, before any plaintext. */
  readonly onContext?: (context: EnvelopeContext | undefined) => void
}

/**
 * Opens what is pushed, as `openEnvelope` does: nothing before header MAC, origin and context are checked, then each chunk once
 * it is verified. `next` is ended only when the last chunk was verified; what it has of a file that fails later is authentic,
 * and a beginning.
 * @throws {KeyriseError} as `openEnvelope`, from `push` and `end`.
 */
export const envelopeOpener = (options: OpenStreamOptions, next: ByteSink): ByteSink =>
  behindHeader((header) => {
    using fileKey = unwrapHeader(header, options.identities)
    checkSingle(header)
    const context = checkContext(header, fileKey, options)
    options.onContext?.(context)
    return payloadOpener(fileKey, next)
  }, next)

/**
 * Gathers the header of what is pushed, and passes on what stands behind it.
 * @param begin - makes the stage for the payload, which disposes of `next`; nothing is passed on where it throws.
 */
export const behindHeader = (begin: (header: Header) => ByteSink, next: Disposable): ByteSink => {
  let gatherer: HeaderGatherer | undefined = new HeaderGatherer()
  let payload: ByteSink | undefined
  let payloadSize = 0

  const pushPayload = (opener: ByteSink, bytes: Uint8Array): void => {
    payloadSize += bytes.length
    opener.push(bytes)
  }
  return guarded({
    push(bytes) {
      if (payload !== undefined) {
        pushPayload(payload, bytes)
        return
      }
      const gathered = gatherer?.push(bytes)
      if (gathered === undefined) return
      gatherer = undefined
      payload = begin(gathered.header)
      pushPayload(payload, gathered.rest)
    },
    end() {
      // Without its last line, a header only says what is wrong with it.
      gatherer?.read()
      checkNonce(payloadSize)
      payload?.end()
    },
    [Symbol.dispose]() {
      payload?.[Symbol.dispose]()
      next[Symbol.dispose]()
    },
  })
}
